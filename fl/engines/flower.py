"""Flower carries the bytes: a Grid as the coordinator's transport.

Control messages travel in ConfigRecords, what is as long as the model in one uint8 Array, which is
what Flower cuts into chunks. One message type per stage; the stage's barrier is a deadline here.
flwr is the extra `deploy`: Flower loads this module, and nothing else does.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fl import workers
from fl.engines.coordinator import Parts
from fl.engines.deployment import read_deployment
from fl.engines.server import run_server

LOG = logging.getLogger("fl.flower")
LOG_FILE = "server.log"
_LOOK_SECONDS = 2.0  # between looks for the reply to one message
CONTROL, BULK, BODY = "control", "bulk", "body"  # as fl/engines/client_app.py has them


def message_type(stage: str) -> str:
    """Returns Flower's name of a stage: it takes the bases train, evaluate and query alone."""
    return f"train.{stage}" if stage == "mask_input" else f"query.{stage}"


class GridTransport:
    """A `fl.engines.coordinator.Transport` over Flower's Grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def node_ids(self) -> Sequence[int]:
        """See `Transport.node_ids`."""
        return list(self._grid.get_node_ids())

    def exchange(
        self, stage: str, requests: Mapping[int, Parts], timeout: float
    ) -> Iterator[tuple[int, Parts]]:
        """See `Transport.exchange`.

        An answer counts where it is of this stage, to one of these messages, and from the node
        that was asked.
        """
        messages = [
            Message(_content(*parts), node, message_type(stage), ttl=timeout, group_id=stage)
            for node, parts in requests.items()
        ]
        if not messages:
            return
        deadline = time.monotonic() + timeout
        sent = list(self._grid.push_messages(messages))
        asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        for reply in self._replies(sent, deadline):
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

    def _replies(self, sent: Sequence[str], deadline: float) -> Iterator[Message]:
        """Yields the replies to messages as they come, until all are there or time is up.

        Each is waited for on a thread of its own. Flower waits for minutes for the rest of a reply
        whose sender died, or stalls, in the middle of it; nobody else's answer may wait with it.
        """
        over = threading.Event()
        found: queue.SimpleQueue[Sequence[Message] | Exception] = queue.SimpleQueue()
        for message_id in sent:
            threading.Thread(
                target=self._fetch, args=(message_id, found, over), daemon=True
            ).start()
        try:
            for _ in sent:
                got = found.get(timeout=max(0.0, deadline - time.monotonic()))
                if isinstance(got, Exception):
                    self.node_ids()  # raises where the SuperLink is gone; else it is the reply
                    LOG.warning("a reply that cannot be read: %r", got)
                    continue
                yield from got
        except queue.Empty:
            return
        finally:
            over.set()

    def _fetch(
        self,
        message_id: str,
        found: "queue.SimpleQueue[Sequence[Message] | Exception]",
        over: threading.Event,
    ) -> None:
        try:
            while not over.is_set():
                if replies := list(self._grid.pull_messages([message_id])):
                    found.put(replies)
                    return
                over.wait(_LOOK_SECONDS)
        except Exception as error:  # noqa: BLE001 - looked at where the barrier is
            found.put(error)


def _content(control: bytes, bulk: bytes) -> RecordDict:
    content = RecordDict({CONTROL: ConfigRecord({BODY: control})})
    if bulk:
        content[BULK] = ArrayRecord({BODY: Array("uint8", (len(bulk),), "bytes", bulk)})
    return content


def _parts(reply: Message) -> Parts | None:
    """Control and bulk of a reply; None where it is not made so."""
    content = reply.content
    if CONTROL not in content.config_records:
        return None
    control = content.config_records[CONTROL].get(BODY)
    if not isinstance(control, bytes):
        return None
    if BULK not in content.array_records:
        return control, b""
    array = content.array_records[BULK].get(BODY)
    return None if array is None else (control, array.data)


def main(grid: Grid, context: Context) -> None:
    """Runs, or resumes, the run of the server's own plan file: `--run-config 'plan="FILE"'`.

    Flower keeps what is printed for `flwr log` alone; so the log goes to the state directory too.
    """
    workers.use_one_thread()
    data_dir = str(context.run_config.get("data-dir", "")) or None
    deployment = read_deployment(str(context.run_config["plan"]))
    deployment.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _logging_to(deployment.state / LOG_FILE):
        run_server(deployment, GridTransport(grid), data_dir=data_dir)


server_app = ServerApp()
server_app.main()(main)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Prints what this package says, and keeps it in a file.

    Not what others say: the HTTP client's word of each log line that Flower fetches would be the
    next line.
    """
    ours = logging.getLogger("fl")
    ours.setLevel(logging.INFO)
    handlers = (logging.StreamHandler(), logging.FileHandler(path))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        ours.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            ours.removeHandler(handler)
            handler.close()
