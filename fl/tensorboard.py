"""A run as TensorBoard events: DIR/tensorboard, one scalar per figure and round.

Needs tensorboardX, the extra `tensorboard`. What a private plan keeps from readers of summary.json
is kept from readers of the events, times included; what it marks there is marked here.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl.errors import MissingExtraError, StoreError

FOLDER = "tensorboard"
_VERSION = "brain.Event:2"  # of the file format


class EventWriter:
    """Writes rounds as events, durably after each.

    Every file is whole by itself: who goes on with a run writes its earlier rounds again, and
    TensorBoard then drops what older files in the directory say.

    Args:
        out: the run's directory; the files go to out/tensorboard. None is refused.
        private: whether the plan promises privacy.
        secret_cohort: whether survivors, bytes and durations must not show.

    Raises:
        MissingExtraError: tensorboardX is not installed.
        StoreError: there is no directory.
    """

    def __init__(self, out: Path | None, *, private: bool, secret_cohort: bool) -> None:
        try:
            import tensorboardX
            import tensorboardX.proto.event_pb2
        except ModuleNotFoundError as error:
            raise MissingExtraError("tensorboard events", "tensorboard") from error
        if out is None:
            raise StoreError("tensorboard", "a run that keeps nothing", "a run with `out`")
        self._open = tensorboardX.RecordWriter
        self._events = tensorboardX.proto.event_pb2
        self._directory = out.absolute() / FOLDER
        self._private, self._secret_cohort = private, secret_cohort
        self._began = time.time()
        self._file: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds one row of the store's table `rounds`."""
        if self._file is None:
            self._begin()
        found = scalars(row, private=self._private, secret_cohort=self._secret_cohort)
        values = [{"tag": tag, "simple_value": value} for tag, value in found.items()]
        self._put(step=row["round"], summary={"value": values})
        self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        try:
            self._directory.mkdir(exist_ok=True)
            earlier = len(list(self._directory.glob("events.out.tfevents.*")))
            # Readers take files in the order of their names, which tell neither host nor time.
            self._file = self._open(str(self._directory / f"events.out.tfevents.{earlier:06d}"))
        except OSError as error:
            takes = "a directory that can be written"
            raise StoreError("tensorboard", f"{self._directory}: {error}", takes) from error
        self._put(file_version=_VERSION)
        self._put(step=0, session_log={"status": self._events.SessionLog.START})

    def _put(self, **fields: Any) -> None:
        now = self._began if self._secret_cohort else time.time()
        self._file.write(self._events.Event(wall_time=now, **fields).SerializeToString())


def scalars(row: Mapping[str, Any], *, private: bool, secret_cohort: bool) -> dict[str, float]:
    """Returns tag -> value for one round; a value that is missing or not finite has no tag.

    Args:
        row: of the store's table `rounds`.
        private: whether figures over the clients' own examples are outside a guarantee; their
            tags then say so.
        secret_cohort: leave out what shows who took part: survivors, bytes, seconds.
    """
    clients = "clients_outside_the_guarantee" if private else "clients"
    found = {
        **{f"metrics/{name}": value for name, value in row["metrics"].items()},
        **{f"{clients}/{name}": value for name, value in (row["client_metrics"] or {}).items()},
        "privacy/epsilon_worst_case": row["epsilon_worst_case"],
    }
    if not secret_cohort:
        found |= {f"seconds/{part}": value for part, value in row["seconds"].items()}
        found |= {"round/survivors": row["survivors"], "round/upload_bytes": row["upload_bytes"]}
    return {
        tag: float(value)
        for tag, value in found.items()
        if value is not None and math.isfinite(value)
    }
