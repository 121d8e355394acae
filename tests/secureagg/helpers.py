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


def refused_by_client(play, client_id, message, error, match) -> Any:
    """The client refuses the message, and still takes the honest one."""
    session_ = play.clients[client_id]
    before = vars(session_).copy()
    before["_taken"] = dict(before["_taken"])
    with pytest.raises(error, match=match) as caught:
        session_.receive(message)
    assert vars(session_) == before
    return caught.value


def refused_by_server(play, client_id, message, error, match) -> Any:
    """The server refuses the message; its state and sums are as before."""
    session = play.server
    sums = [array.copy() for array in session._sums]
    before = session._state, dict(session._received), dict(session._taken), set(session._keys)
    with pytest.raises(error, match=match) as caught:
        session.receive(client_id, message)
    assert (session._state, session._received, session._taken, session._keys) == before
    assert all(np.array_equal(a, b) for a, b in zip(sums, session._sums, strict=True))
    return caught.value


def give(play) -> None:
    """The honest messages of this stage, and the rest of the round."""
    for client_id, message in play.sent.items():
        play.server.receive(client_id, message)
    play.inbound = play.server.close_stage()
    play.finish()


def shared_message(play, client_id, shared, senders) -> Any:
    """A neighbour-shares message with another set, and the boxes of `senders`."""
    honest = messages.NeighbourShares.from_bytes(
        memoryview(play.inbound[client_id])[38:], num_clients=play.params.num_clients, limit=99
    )
    flags = np.isin(np.arange(play.params.num_clients), shared)
    nothing = messages.SealedShares(bytes(90), bytes(32), bytes(32))
    boxes = {i: honest.boxes.get(i, nothing) for i in senders}
    return play.edit(play.inbound[client_id], messages.NeighbourShares(flags, boxes).to_bytes())
