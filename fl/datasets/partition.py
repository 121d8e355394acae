"""Artificial clients: which client gets which example.

Every function returns client_ids, int64 [N] in [0, num_clients): each example has exactly one
client, by construction. `rng` is a generator that the caller made from the run seed; the split is
public and protects nobody.
"""

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from fl.errors import DataError

Ids = npt.NDArray[np.int64]

# Long before this the proportions are equal; far beyond it the gamma variates overflow to nan.
_MAX_ALPHA = 1e9
_SPLIT_STREAM = 0x7370_6C69  # "spli"
_TAKES = (
    f"'iid', 'natural', 'natural:KEY', 'shards:COUNT', or 'dirichlet:ALPHA' or 'quantity:ALPHA' "
    f"with 0 < ALPHA <= {_MAX_ALPHA:g}"
)


@dataclasses.dataclass(frozen=True)
class Partition:
    """A named way to make clients.

    Attributes:
        kind: "natural" keeps the clients that the data come with.
        parameter: concentration of "dirichlet" and "quantity"; shards per client of "shards"; for
            "natural" the column that tells clients apart where a set has several, else None.
    """

    kind: Literal["iid", "dirichlet", "quantity", "shards", "natural"]
    parameter: float | int | str | None = None


def parse_partition(text: str) -> Partition:
    """Reads the partition of a job, such as "iid", "dirichlet:0.3", "shards:2" or "natural:month".

    Raises:
        DataError: anything else, or a number out of range.

    Example:
        >>> parse_partition("dirichlet:0.3")
        Partition(kind='dirichlet', parameter=0.3)
    """
    kind, colon, rest = text.partition(":")
    if text == "iid":
        return Partition("iid")
    if kind == "natural" and bool(rest) == bool(colon):
        return Partition("natural", rest or None)
    if kind == "shards" and rest.isascii() and rest.isdecimal() and int(rest) > 0:
        return Partition("shards", int(rest))
    if kind in ("dirichlet", "quantity"):
        try:
            alpha = float(rest)
        except ValueError:
            raise DataError("partition", repr(text), _TAKES) from None
        if 0 < alpha <= _MAX_ALPHA:
            return Partition("dirichlet" if kind == "dirichlet" else "quantity", alpha)
    raise DataError("partition", repr(text), _TAKES)


def checked_request(clients: int | None, partition: str, seed: int) -> Partition:
    """Everything about artificial clients that can be wrong, before a file is read.

    Raises:
        DataError: clients, seed (0 to 2**32 - 1) or partition is missing or out of range.
    """
    if clients is None:
        raise DataError("clients", clients, "a number, for artificial clients")
    _check_num_clients(clients)
    if not 0 <= seed < 2**32:
        raise DataError("seed", seed, "0 to 2**32 - 1")
    split = parse_partition(partition)
    if split.kind == "natural":
        raise DataError("partition", repr(partition), "an artificial one: no natural clients")
    return split


def split_rng(seed: int) -> np.random.Generator:
    """The second word keeps these draws apart from others made from the same run seed."""
    return np.random.default_rng([seed, _SPLIT_STREAM])


def iid(num_examples: int, num_clients: int, rng: np.random.Generator) -> Ids:
    """Deals a shuffled deck: client sizes differ by at most one.

    Args:
        num_examples: N.
        num_clients: at least 1.
        rng: decides the order.

    Returns:
        client_ids, int64 [N].

    Raises:
        DataError: num_clients < 1.
    """
    _check_num_clients(num_clients)
    ids = np.empty(num_examples, np.int64)
    ids[rng.permutation(num_examples)] = np.arange(num_examples) % num_clients
    return ids


def dirichlet(
    labels: npt.NDArray[np.integer], num_clients: int, alpha: float, rng: np.random.Generator
) -> Ids:
    """Label skew: each class is spread over the clients in Dirichlet(alpha) proportions.

    For each class, ascending: draw p ~ Dirichlet(alpha, ..., alpha) over the clients, shuffle the
    examples of the class, and cut them at floor(n_class * cumulated p). Small alpha gives each
    client few classes, large alpha tends to `iid` in the labels; clients may end up without an
    example. After Hsu, Qi, Brown 2019 (arXiv:1909.06335), per class as in Yurochkin et al. 2019
    (arXiv:1905.12022, section 4).

    Args:
        labels: integers [N].
        num_clients: at least 1.
        alpha: concentration, positive.
        rng: draws proportions and orders.

    Returns:
        client_ids, int64 [N].

    Raises:
        DataError: num_clients < 1, alpha out of range, or labels not integers [N].
    """
    _check_num_clients(num_clients)
    _check_alpha(alpha)
    _check_labels(labels)
    ids = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ids[members] = _cut(len(members), rng.dirichlet(np.full(num_clients, alpha)))
    return ids


def quantity(num_examples: int, num_clients: int, alpha: float, rng: np.random.Generator) -> Ids:
    """Quantity skew: shuffled examples in Dirichlet(alpha) shares, labels alike everywhere.

    Small alpha gives a few clients nearly everything and others nothing, large alpha tends to
    `iid`. After Li, Diao, Chen, He 2022 (arXiv:2102.02079, section IV-D).

    Args:
        num_examples: N.
        num_clients: at least 1.
        alpha: concentration, positive.
        rng: draws shares and order.

    Returns:
        client_ids, int64 [N].

    Raises:
        DataError: num_clients < 1 or alpha out of range.
    """
    _check_num_clients(num_clients)
    _check_alpha(alpha)
    ids = np.empty(num_examples, np.int64)
    order = rng.permutation(num_examples)
    ids[order] = _cut(num_examples, rng.dirichlet(np.full(num_clients, alpha)))
    return ids


def shards(
    labels: npt.NDArray[np.integer], num_clients: int, per_client: int, rng: np.random.Generator
) -> Ids:
    """Pathological skew: sorted by label, cut into shards, each client gets `per_client` of them.

    Within a label the order is random. The num_clients * per_client shards differ in size by at
    most one. McMahan et al. 2017, section 3: 100 clients with 2 shards of 300 MNIST digits each
    have at most 4 classes, most of them 2.

    Args:
        labels: integers [N].
        num_clients: at least 1.
        per_client: at least 1.
        rng: draws the order within labels and deals the shards.

    Returns:
        client_ids, int64 [N].

    Raises:
        DataError: num_clients or per_client < 1, or labels not integers [N].
    """
    _check_num_clients(num_clients)
    if per_client < 1:
        raise DataError("shards", per_client, "at least 1 per client")
    _check_labels(labels)
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    count = num_clients * per_client
    dealt = rng.permutation(count) // per_client  # client of each shard
    ids = np.empty(len(labels), np.int64)
    # Example k of the sorted order is in shard floor(k * count / N): sizes differ by at most one.
    ids[order] = dealt[np.arange(len(labels)) * count // max(1, len(labels))]
    return ids


def assign(
    partition: Partition,
    labels: npt.NDArray[np.integer],
    num_clients: int,
    rng: np.random.Generator,
) -> Ids:
    """Client ids of an artificial partition, int64 [N].

    Raises:
        DataError: the partition is "natural", or as the function of that name.
    """
    parameter = partition.parameter
    if partition.kind == "iid":
        return iid(len(labels), num_clients, rng)
    if partition.kind == "dirichlet" and isinstance(parameter, (int, float)):
        return dirichlet(labels, num_clients, parameter, rng)
    if partition.kind == "quantity" and isinstance(parameter, (int, float)):
        return quantity(len(labels), num_clients, parameter, rng)
    if partition.kind == "shards" and isinstance(parameter, int):
        return shards(labels, num_clients, parameter, rng)
    raise DataError("partition", f"{partition.kind}:{parameter}", f"an artificial one of {_TAKES}")


def _cut(count: int, proportions: npt.NDArray[np.float64]) -> Ids:
    """The part of each of `count` positions, parts being consecutive in these proportions."""
    # The last cut is left out: rounding must not leave a position beyond it.
    cuts = np.floor(np.cumsum(proportions[:-1]) * count)
    return np.searchsorted(cuts, np.arange(count), side="right").astype(np.int64)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha <= _MAX_ALPHA:
        raise DataError("alpha", alpha, f"0 < alpha <= {_MAX_ALPHA:g}")


def _check_labels(labels: npt.NDArray[np.integer]) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError("labels", f"{labels.dtype} {labels.shape}", "integers [N]")


def _check_num_clients(num_clients: int) -> None:
    if num_clients < 1:
        raise DataError("clients", num_clients, "at least 1")
