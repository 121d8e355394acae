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


@dataclasses.dataclass(frozen=True)
class Partition:
    """A named way to make clients.

    Attributes:
        kind: "natural" keeps the clients that the data come with.
        alpha: concentration of the Dirichlet distribution; None for the other kinds.
    """

    kind: Literal["iid", "dirichlet", "natural"]
    alpha: float | None = None


def parse_partition(text: str) -> Partition:
    """Reads "iid", "dirichlet:ALPHA" or "natural".

    Raises:
        DataError: anything else, or an alpha out of range.

    Example:
        >>> parse_partition("dirichlet:0.3")
        Partition(kind='dirichlet', alpha=0.3)
    """
    takes = f"'iid', 'natural' or 'dirichlet:ALPHA' with 0 < ALPHA <= {_MAX_ALPHA:g}"
    if text == "iid":
        return Partition("iid")
    if text == "natural":
        return Partition("natural")
    kind, colon, number = text.partition(":")
    if kind != "dirichlet" or not colon:
        raise DataError("partition", repr(text), takes)
    try:
        alpha = float(number)
    except ValueError:
        raise DataError("partition", repr(text), takes) from None
    if not 0 < alpha <= _MAX_ALPHA:
        raise DataError("partition", repr(text), takes)
    return Partition("dirichlet", alpha)


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
    if not 0 < alpha <= _MAX_ALPHA:
        raise DataError("alpha", alpha, f"0 < alpha <= {_MAX_ALPHA:g}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError("labels", f"{labels.dtype} {labels.shape}", "integers [N]")
    ids = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        proportions = rng.dirichlet(np.full(num_clients, alpha))
        # The last cut is left out: rounding must not leave an example beyond it.
        cuts = np.floor(np.cumsum(proportions[:-1]) * len(members))
        ids[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    return ids


def assign(
    partition: Partition,
    labels: npt.NDArray[np.integer],
    num_clients: int,
    rng: np.random.Generator,
) -> Ids:
    """Client ids of an artificial partition, int64 [N].

    Raises:
        DataError: the partition is "natural", or as `iid` and `dirichlet`.
    """
    if partition.kind == "iid":
        return iid(len(labels), num_clients, rng)
    if partition.kind == "dirichlet" and partition.alpha is not None:
        return dirichlet(labels, num_clients, partition.alpha, rng)
    raise DataError("partition", partition.kind, "'iid' or 'dirichlet:ALPHA' (no natural clients)")


def _check_num_clients(num_clients: int) -> None:
    if num_clients < 1:
        raise DataError("clients", num_clients, "at least 1")
