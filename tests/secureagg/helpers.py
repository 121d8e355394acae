"""What tests of several topics share."""

from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import messages

SEGMENTS = (secureagg.Segment("x", 10, 20),)


def choose(n, corrupt, dropout, **changes) -> secureagg.Params:
    fields: dict[str, Any] = {
        "rounds": 1,
        "server": "semi_honest",
        "graph_seed": b"seed",
        "session_id": b"s",
    }
    return secureagg.choose_params(
        n, SEGMENTS, corrupt=corrupt, dropout=dropout, **(fields | changes)
    )


def refused(play, client_id, message, error, match) -> Any:
    """The client refuses the message, and still takes the honest one."""
    session_ = play.clients[client_id]
    before = vars(session_).copy()
    before["_taken"] = dict(before["_taken"])
    with pytest.raises(error, match=match) as caught:
        session_.receive(message)
    assert vars(session_) == before
    return caught.value


def shared_message(play, client_id, shared, senders) -> Any:
    """A neighbour-shares message with another set, and the boxes of `senders`."""
    honest = messages.NeighbourShares.from_bytes(
        memoryview(play.inbound[client_id])[38:], num_clients=play.params.num_clients, limit=99
    )
    flags = np.isin(np.arange(play.params.num_clients), shared)
    nothing = messages.SealedShares(bytes(90), bytes(32), bytes(32))
    boxes = {i: honest.boxes.get(i, nothing) for i in senders}
    return play.edit(play.inbound[client_id], messages.NeighbourShares(flags, boxes).to_bytes())
