"""Examples of many clients, kept as one array per field and the places where clients begin.

A client is a range of rows, not an object: a million clients cost one int64 each, and what a
client sees is a view. Arrays may be maps of files (`fl.datasets.from_npz`): then a client's rows
are read when that client is asked for, and no others.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fl.errors import DataError

Array = npt.NDArray[np.generic]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FederatedDataset:
    """Examples ordered by client, and a public test set.

    Data never appear in `repr`. Arrays are held as read-only views of what was given.

    Attributes:
        name: what summaries call the data.
        fields: name -> [N, ...], the examples of all clients, client 0 first. The vision sets
            have "x" float32 [N, pixels] and "y" int32 [N].
        offsets: int64 [num_clients + 1]; client i owns the rows offsets[i] to offsets[i + 1].
        test: name -> [M, ...], the same fields for evaluation; public, outside every guarantee.
        num_classes: labels "y" are in [0, num_classes); None where there are no classes. Labels of
            a mapped file are checked client by client, when they are read.
    """

    name: str
    fields: Mapping[str, Array]
    offsets: npt.NDArray[np.int64]
    test: Mapping[str, Array] | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        fields = _checked_fields(self.fields, "fields")
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "offsets", _checked_offsets(self.offsets, _length(fields)))
        if self.test is not None:
            test = _checked_fields(self.test, "test")
            _check_alike(fields, test)
            object.__setattr__(self, "test", test)
        if self.num_classes is not None:
            if not isinstance(fields.get("y"), np.memmap):
                _check_labels(fields, self.num_classes, "fields['y']")
            _check_labels(self.test or {}, self.num_classes, "test['y']")

    @classmethod
    def from_arrays(
        cls,
        fields: Mapping[str, Array],
        client_ids: npt.NDArray[np.integer],
        *,
        test: Mapping[str, Array] | None = None,
        num_clients: int | None = None,
        num_classes: int | None = None,
        name: str = "arrays",
    ) -> "FederatedDataset":
        """Groups examples by client.

        Args:
            fields: name -> [N, ...], example j of every field belonging to the same client.
            client_ids: integers [N] in [0, num_clients), in any order. Within a client the order
                of the examples is kept. Already ascending ids spare the copy.
            test: name -> [M, ...], the same fields.
            num_clients: clients without an example count too; None means the largest id plus one.
            num_classes: labels "y" are then checked to be in [0, num_classes).
            name: what summaries call the data.

        Raises:
            DataError: a field is not an array or of another length, an id is out of range, ...

        Example:
            >>> import numpy as np
            >>> data = FederatedDataset.from_arrays({"x": np.arange(4)}, np.array([1, 0, 1, 3]))
            >>> data.num_clients, data.sizes.tolist(), data.client(1)["x"].tolist()
            (4, [1, 2, 0, 1], [0, 2])
        """
        checked = _checked_fields(fields, "fields")
        ids, count = _checked_ids(client_ids, _length(checked), num_clients)
        if ids.size and np.any(ids[1:] < ids[:-1]):
            order = np.argsort(ids, kind="stable")
            checked = {key: _taken(value, order) for key, value in checked.items()}
        sizes = np.bincount(ids, minlength=count)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(name=name, fields=checked, offsets=offsets, test=test, num_classes=num_classes)

    def __repr__(self) -> str:
        shapes = {key: f"{value.dtype}{list(value.shape)}" for key, value in self.fields.items()}
        return f"FederatedDataset({self.name!r}, {self.num_clients} clients, {shapes})"

    @property
    def num_clients(self) -> int:
        """How many clients there are, those without an example included."""
        return len(self.offsets) - 1

    @property
    def num_examples(self) -> int:
        """N, the training examples of all clients."""
        return int(self.offsets[-1])

    @functools.cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Examples per client, int64 [num_clients], read-only."""
        sizes = np.diff(self.offsets)
        sizes.flags.writeable = False
        return sizes

    def client_slice(self, i: int) -> slice:
        """The rows of client i in every array of `fields`.

        Raises:
            DataError: i is not in [0, num_clients).
        """
        index = operator.index(i)
        if not 0 <= index < self.num_clients:
            raise DataError("client", index, f"0 to {self.num_clients - 1}")
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def client(self, i: int) -> dict[str, Array]:
        """The examples of client i as read-only views: name -> [sizes[i], ...].

        Raises:
            DataError: i is not in [0, num_clients), or a mapped file holds a label out of range.
        """
        rows = self.client_slice(i)
        mine = {key: value[rows] for key, value in self.fields.items()}
        if self.num_classes is not None and isinstance(self.fields.get("y"), np.memmap):
            _check_labels(mine, self.num_classes, f"fields['y'] of client {i}")
        return mine


_ALIGNED = 64  # bytes; a compiled program on a CPU reads an array that begins so without a copy


def _taken(array: Array, order: npt.NDArray[np.int64]) -> Array:
    """Returns array[order] in aligned memory."""
    shape = (len(order), *array.shape[1:])
    room = np.empty(math.prod(shape) * array.itemsize + _ALIGNED, dtype=np.uint8)
    start = -room.ctypes.data % _ALIGNED
    taken = room[start : start + room.size - _ALIGNED].view(array.dtype).reshape(shape)
    return np.take(array, order, axis=0, out=taken, mode="clip")  # "raise" would buffer `out`


def _length(fields: Mapping[str, Array]) -> int:
    return len(next(iter(fields.values())))


def _frozen(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _checked_fields(fields: Mapping[str, Array], where: str) -> dict[str, Array]:
    """Read-only views of arrays of one common length; `where` names them in errors."""
    if not isinstance(fields, Mapping) or not fields:
        raise DataError(where, type(fields).__name__, "a mapping of at least one name to an array")
    for key, value in fields.items():
        if not isinstance(value, np.ndarray):
            raise DataError(f"{where}[{key!r}]", type(value).__name__, "a numpy array")
        if value.ndim == 0 or value.dtype.hasobject:
            got = f"{value.ndim} dimensions of {value.dtype}"
            raise DataError(f"{where}[{key!r}]", got, "examples along axis 0, no Python objects")
    lengths = {key: len(value) for key, value in fields.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(where, f"lengths {lengths}", "the same number of examples in every field")
    return {key: _frozen(value) for key, value in fields.items()}


def _checked_offsets(offsets: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    takes = f"int64 [num_clients + 1], from 0 to {total}, never falling"
    if not isinstance(offsets, np.ndarray) or offsets.dtype != np.int64:
        raise DataError("offsets", str(getattr(offsets, "dtype", type(offsets).__name__)), takes)
    if offsets.ndim != 1 or len(offsets) < 2:
        raise DataError("offsets", f"shape {offsets.shape}", takes)
    if offsets[0] != 0 or offsets[-1] != total or np.any(np.diff(offsets) < 0):
        raise DataError("offsets", f"{offsets[0]} to {offsets[-1]}, or falling", takes)
    view = offsets.view()
    view.flags.writeable = False
    return view


def _checked_ids(
    client_ids: npt.NDArray[np.integer], total: int, num_clients: int | None
) -> tuple[npt.NDArray[np.int64], int]:
    """Ids as int64 [total] and the number of clients."""
    takes = f"one integer per example: shape ({total},)"
    if not isinstance(client_ids, np.ndarray) or client_ids.dtype.kind not in "iu":
        got = str(getattr(client_ids, "dtype", type(client_ids).__name__))
        raise DataError("client_ids", got, takes)
    if client_ids.shape != (total,):
        raise DataError("client_ids", f"shape {client_ids.shape}", takes)
    low, high = (int(client_ids.min()), int(client_ids.max())) if total else (0, -1)
    count = high + 1 if num_clients is None else operator.index(num_clients)
    if count < 1:
        raise DataError("num_clients", count, "at least 1")
    if low < 0 or high >= count:
        raise DataError("client_ids", f"{low} to {high}", f"0 to {count - 1}")
    return client_ids.astype(np.int64), count


def _check_alike(fields: Mapping[str, Array], test: Mapping[str, Array]) -> None:
    """The test set has the fields of the training set, example by example of the same kind."""
    if set(fields) != set(test):
        raise DataError("test", f"fields {sorted(test)}", f"fields {sorted(fields)}")
    for key, value in fields.items():
        got, want = test[key], value
        if got.shape[1:] != want.shape[1:] or got.dtype != want.dtype:
            raise DataError(
                f"test[{key!r}]",
                f"{got.dtype} examples of shape {got.shape[1:]}",
                f"{want.dtype} examples of shape {want.shape[1:]}, as in training",
            )


def _check_labels(fields: Mapping[str, Array], num_classes: int, where: str) -> None:
    """Labels outside the classes would index past a model's outputs, which JAX does not notice."""
    if num_classes < 1:
        raise DataError("num_classes", num_classes, "at least 1")
    labels = fields.get("y")
    if labels is None or not len(labels):
        return
    if labels.dtype.kind not in "iu":
        raise DataError(where, str(labels.dtype), "integer labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(where, f"labels {low} to {high}", f"labels 0 to {num_classes - 1}")
