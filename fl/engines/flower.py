"""Flower carries the bytes: a Grid as the coordinator's transport.

Control messages travel in ConfigRecords, what is as long as the model in one uint8 Array, which is
what Flower cuts into chunks. One message type per stage; `send_and_receive` with a timeout is the
stage's barrier. flwr is the extra `deploy`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fl.engines.coordinator import Parts
from fl.errors import MissingExtraError

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

LOG = logging.getLogger("fl.flower")
CONTROL, BULK, BODY = "control", "bulk", "body"  # as fl/engines/client_app.py has them


def message_type(stage: str) -> str:
    """Returns Flower's name of a stage: it takes the bases train, evaluate and query alone."""
    return f"train.{stage}" if stage == "mask_input" else f"query.{stage}"


class GridTransport:
    """A `fl.engines.coordinator.Transport` over a Grid.

    Args:
        grid: Flower's.

    Raises:
        MissingExtraError: flwr is not installed.
    """

    def __init__(self, grid: "Grid") -> None:
        try:
            import flwr.app
        except ImportError as error:
            raise MissingExtraError("a run across organisations", "deploy") from error
        self._grid = grid
        self._app: Any = flwr.app

    def nodes(self) -> Sequence[int]:
        """See `Transport.nodes`."""
        return list(self._grid.get_node_ids())

    def exchange(
        self, stage: str, requests: Mapping[int, Parts], timeout: float
    ) -> Iterator[tuple[int, Parts]]:
        """See `Transport.exchange`.

        An answer counts where it is of this stage, to one of these messages, and from the node
        that was asked.
        """
        messages = [
            self._app.Message(
                self._content(*parts), node, message_type(stage), ttl=timeout, group_id=stage
            )
            for node, parts in requests.items()
        ]
        if not messages:
            return
        replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        for reply in replies:
            node = reply.metadata.src_node_id
            to = reply.metadata.reply_to_message_id
            if reply.has_error():
                LOG.warning("%s: node %s: %s", stage, asked.get(to, node), reply.error)
            elif asked.get(to) != node:
                LOG.warning("%s: node %d answers what it was not asked", stage, node)
            else:
                found = _parts(reply)
                if found is None:
                    LOG.warning("%s: node %d: an answer of another form", stage, node)
                else:
                    yield node, found

    def _content(self, control: bytes, bulk: bytes) -> Any:
        content = self._app.RecordDict({CONTROL: self._app.ConfigRecord({BODY: control})})
        if bulk:
            array = self._app.Array("uint8", (len(bulk),), "bytes", bulk)
            content[BULK] = self._app.ArrayRecord({BODY: array})
        return content


def _parts(reply: "Message") -> Parts | None:
    """Control and bulk of a reply; None where it is not made so."""
    content = reply.content
    control = content.config_records.get(CONTROL, {}).get(BODY)
    if not isinstance(control, bytes):
        return None
    if BULK not in content.array_records:
        return control, b""
    array = content.array_records[BULK].get(BODY)
    return None if array is None else (control, array.data)
