"""A process behind a SuperNode that claims to be member 0 and holds another key."""

import sys
import threading
from pathlib import Path

from fl.engines import pipe, wire
from fl.engines.wire import Hello, Limits, Reply, Status
from fl.secure import IdentityKey, sign_presence

LIMITS = Limits(2**16, 2**20)


def main() -> None:
    """Answers every greeting with a signature of its own key, and anything else with noise."""
    key = IdentityKey.generate()

    def handle(request: bytes) -> bytes:
        asked = wire.read_request(request, LIMITS)
        if isinstance(asked, Hello):
            signature = sign_presence(key, asked.session, 0, asked.nonce)
            return wire.presence(0, signature).to_bytes()
        return Reply(Status.ANSWER, b"noise").to_bytes()

    pipe.serve(Path(sys.argv[1]), handle, LIMITS, read_timeout=60.0, stop=threading.Event())


if __name__ == "__main__":
    main()
