"""`python -m fl client`, which stops dead where a test says so: `python -m tests.deploy.held ...`.

A test that kills a process must know what it has done by then, and a log line is read too late to
tell. So the test leaves a file `hold` in the plan's folder, with a stage, "before" or "after", and,
for one round alone, its number. At that request the process renames the file to `held`, with round
and attempt in it, and waits: before, nothing is on disk of the request; after, all of it is, and no
byte of the answer has left. It goes on when the test removes `held`.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl.__main__ import main
from fl.engines import pipe, wire
from fl.engines.wire import Limits, Step

ANY = Limits(2**31, 2**31)


def holding(handle: Callable[[bytes], bytes], folder: Path) -> Callable[[bytes], bytes]:
    """Wraps a process's `handle`."""

    def stop(asked: wire.Hello | Step, moment: str) -> None:
        hold, held = folder / "hold", folder / "held"
        if not isinstance(asked, Step) or not hold.exists():
            return
        words = hold.read_text().split()
        if words[:2] == [asked.stage, moment] and words[2:] in ([], [str(asked.round_index)]):
            hold.write_text(f"{asked.round_index} {asked.attempt}")
            hold.rename(held)
            while held.exists():
                time.sleep(0.02)

    def held(request: bytes) -> bytes:
        try:
            asked = wire.read_request(request, ANY)
        except ValueError:
            return handle(request)
        stop(asked, "before")
        answer = handle(request)
        stop(asked, "after")
        return answer

    return held


def run() -> int:
    """Runs the command `client` with these words."""
    words = sys.argv[1:]
    folder, serve = Path(words[words.index("--plan") + 1]).parent, pipe.serve

    def served(path: Path, handle: Callable[[bytes], bytes], limits: Limits, **rest: Any) -> None:
        serve(path, holding(handle, folder), limits, **rest)

    pipe.serve = served
    return main(["client", *words])


if __name__ == "__main__":
    sys.exit(run())
