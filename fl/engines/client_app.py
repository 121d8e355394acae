"""The ClientApp: a byte pipe from Flower to the organisation's own process, and nothing else.

It is the one part that the server ships: a SuperNode downloads it and starts it anew for every
message. So it holds no data, key or state, decides nothing, and loads neither this package nor
JAX. The app directory has this file as it is. The path of the socket is the node's own
configuration (`--node-config 'socket="/run/fl.sock"'`), never the server's.
"""

import socket
import struct
import time

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

LENGTHS = struct.Struct("<IQ")
LIMIT = 2**32  # of an answer's bulk; the process answers what its own plan says
RETRY_SECONDS = 0.2

app = ClientApp()


def ask(path: str, frame: bytes, seconds: float) -> tuple[bytes, bytes]:
    """Sends a frame to the organisation's process and returns its answer: (control, bulk).

    A process that is being started again is waited for: the same bytes get the same answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _ask_once(path, frame, deadline)
        except (ConnectionError, FileNotFoundError, BlockingIOError):  # the last: a full queue
            if time.monotonic() + RETRY_SECONDS >= deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _ask_once(path: str, frame: bytes, deadline: float) -> tuple[bytes, bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        connection.connect(path)
        connection.sendall(frame)
        control, bulk = LENGTHS.unpack(_exactly(connection, LENGTHS.size, deadline))
        if bulk > LIMIT:
            raise ValueError(f"an answer of {bulk} bytes; takes at most {LIMIT}")
        return _exactly(connection, control, deadline), _exactly(connection, bulk, deadline)


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    found = bytearray()
    while len(found) < size:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        piece = connection.recv(min(2**20, size - len(found)))
        if not piece:
            raise ConnectionResetError(f"{len(found)} of {size} bytes, then the end")
        found += piece
    return bytes(found)


def forward(message: Message, context: Context) -> Message:
    """Carries one message there and its answer back."""
    control = message.content.config_records["control"]["body"]
    bulk = message.content.array_records["bulk"]["body"].data if "bulk" in message.content else b""
    if not isinstance(control, bytes):
        raise TypeError("control takes bytes")
    frame = LENGTHS.pack(len(control), len(bulk)) + control + bulk
    control, bulk = ask(str(context.node_config["socket"]), frame, message.metadata.ttl)
    content = RecordDict({"control": ConfigRecord({"body": control})})
    if bulk:
        array = Array("uint8", (len(bulk),), "bytes", bulk)
        content["bulk"] = ArrayRecord({"body": array})
    return Message(content, reply_to=message)


for _name in ("hello", "advertise_keys", "share_keys", "check_consistency", "unmask"):
    app.query(_name)(forward)
app.train("mask_input")(forward)
