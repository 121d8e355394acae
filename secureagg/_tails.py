"""Failure probabilities of a round's graph and threshold, from exact hypergeometric tails.

Source: Bell, Bonawitz, Gascon, Lepoint, Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, Theorem 3.10 and its conditions, in the exact form of the
public parameter finder of google-parfait/federated-compute
(fcp/secagg/server/graph_parameter_finder.cc). Letters: n clients, c of them corrupt, at most D
dropped, k neighbours each, threshold t.

Against a malicious server two more events count. It may tell some holders (or witnesses) one story
and the rest another: a set of k with c' corrupt ones gives t answers to both as soon as
2 t <= k + c'. And it chooses who counts as dropped: `log_divided`.
"""

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Model(Enum):
    """Which conditions hold a graph and threshold to be private."""

    SEMI_HONEST = "the server follows the protocol"
    SEMI_MALICIOUS = "it may lie to holders, but not choose who drops out (published)"
    MALICIOUS = "it may do both; the witnesses are one more set of holders"


@dataclass(frozen=True)
class Failure:
    """Probabilities that a run goes wrong: union bounds over clients and rounds, at most 1.

    Attributes:
        disconnected: the honest survivors fall into parts whose sums leak one by one.
        exposed: some client has `threshold` or more corrupt holders; or, with a malicious server,
            so many corrupt holders (or the round so many corrupt witnesses) that two different
            requests find `threshold` answers each.
        stalled: some client keeps fewer than `threshold` holders (or, with a malicious server, the
            round so few witnesses), so a round may abort.
        divided: a malicious server cuts the honest survivors in two by its choice of who counts
            as dropped; 0 with a server that follows the protocol.
    """

    disconnected: float
    exposed: float
    stalled: float
    divided: float = 0.0

    @property
    def privacy(self) -> float:
        """Upper bound on the probability that more than the sum is learnt, at any round."""
        return min(1.0, self.disconnected + self.exposed + self.divided)

    @property
    def correctness(self) -> float:
        """Upper bound on the probability that a round aborts within the dropout allowed."""
        return self.stalled


def log_pmf(population: int, marked: int, draws: int) -> tuple[int, NDArray[np.float64]]:
    """Log-probabilities of the hypergeometric law.

    Args:
        population: size n.
        marked: marked elements among them.
        draws: elements drawn without replacement.

    Returns:
        (first, logs): logs[i] = ln Pr[X = first + i], over the part of the support within
        20 sqrt(draws) of the mean. What is left out weighs less than 2^-1000 (Hoeffding 1963,
        Theorem 4).
    """
    mean, width = draws * marked / population, 20 * math.sqrt(draws)
    first = max(0, draws + marked - population, math.floor(mean - width))
    last = min(draws, marked, math.ceil(mean + width))
    start = (
        _log_binomial(marked, first)
        + _log_binomial(population - marked, draws - first)
        - _log_binomial(population, draws)
    )
    i = np.arange(first, last, dtype=np.float64)
    ratios = np.log((marked - i) * (draws - i)) - np.log(
        (i + 1) * (population - marked - draws + i + 1)
    )
    return first, np.concatenate(([start], start + np.cumsum(ratios)))


def log_disconnected(n: int, bad: int, k: int) -> float:
    """Ln of the union bound that two ring windows of k/2 slots hold only the `bad` clients.

    Args:
        n: clients.
        bad: corrupt plus dropped.
        k: degree.
    """
    if k > bad or n - k - 1 <= 0:
        return -math.inf
    return (
        _log_pairs(n, k)
        + math.lgamma(bad + 1)
        + math.lgamma(n - k + 1)
        - math.lgamma(n + 1)
        - math.lgamma(bad - k + 1)
    )


def log_divided(n: int, corrupt: int, k: int, t: int) -> float:
    """Ln of the union bound that the honest survivors can be cut in two by chosen dropouts.

    In agreed sets every included honest client u has t - c_u honest surviving neighbours. A proper
    component of the honest survivors then takes two disjoint windows of k/2 ring slots with
    t - k/2 - 1 corrupt clients each: pairs of windows times Pr[Hyp(n, c, k/2) >= t - k/2 - 1]^2.
    The product is a bound: a random permutation of fixed values is negatively associated
    (Joag-Dev, Proschan 1983, Theorem 2.11), hence so are the counts of disjoint windows.

    Args:
        n: clients.
        corrupt: c.
        k: even degree.
        t: threshold.
    """
    window = t - k // 2 - 1
    if n - k - 1 <= 0:
        return -math.inf
    first, logs = log_pmf(n, corrupt, k // 2)
    return _log_pairs(n, k) + 2 * _log_sum(logs[max(0, window - first) :])


def threshold_range(
    n: int,
    corrupt: int,
    dropped: int,
    k: int,
    *,
    model: Model,
    log_privacy: float,
    log_correctness: float,
) -> tuple[int, int]:
    """The thresholds a sparse graph of degree k leaves.

    Args:
        n: clients.
        corrupt: c.
        dropped: D.
        k: degree.
        model: which conditions; in MALICIOUS the witnesses count as one more client's holders.
        log_privacy: ln of what n Pr[Hyp(n, c, k) >= t] may be (2 t - k in place of t where the
            server may lie), and in MALICIOUS the bound of `log_divided`.
        log_correctness: ln of what n Pr[Hyp(n, n - D, k) < t] may be.

    Returns:
        (smallest for privacy, largest for correctness); none fits where the first is larger.
    """
    log_sets = math.log(n + (model is Model.MALICIOUS))
    smallest = _quantile(n, corrupt, k, log_privacy - log_sets)
    if model is not Model.SEMI_HONEST:
        smallest = (k + smallest + 1) // 2
    if model is Model.MALICIOUS:
        window = _quantile(n, corrupt, k // 2, (log_privacy - _log_pairs(n, k)) / 2)
        smallest = max(smallest, k // 2 + 1 + window)
    first, logs = log_pmf(n, n - dropped, k)
    upto = np.logaddexp.accumulate(logs) + log_sets  # [i]: n Pr[X <= first + i]
    largest = first + int(np.count_nonzero(upto <= log_correctness))
    return max(1, smallest), min(k, largest)


def smallest_complete_threshold(n: int, corrupt: int, *, malicious: bool) -> int:
    """The smallest private threshold of the complete graph.

    More than the corrupt holders there may be; against a malicious server also more than half of
    the n witnesses and the corrupt ones together, so that no two quorums differ.
    """
    return (n + corrupt) // 2 + 1 if malicious else corrupt + 1


@lru_cache(maxsize=4096)
def failure(
    n: int,
    corrupt: int,
    dropped: int,
    k: int,
    t: int,
    rounds: int,
    *,
    malicious: bool = False,
    most_dropped: int | None = None,
) -> Failure:
    """Failure probabilities of one parameter set over a run.

    In the complete graph (k = n - 1) nothing is random. Each client's secrets are held by the
    n - 1 others, never by itself: c corrupt ones rebuild them exactly when c >= t, and with D
    gone a surviving client still has n - D - 1 holders.

    Args:
        n: clients.
        corrupt: c.
        dropped: D.
        k: degree; n - 1 is the complete graph.
        t: threshold.
        rounds: rounds of the run.
        malicious: the server is.
        most_dropped: with how many gone a round still releases, where that is more than D: more
            dropouts leave the honest survivors more loosely connected.
    """
    if k == n - 1:
        needed = smallest_complete_threshold(n, corrupt, malicious=malicious)
        return Failure(0.0, float(t < needed), float(n - dropped - 1 < t))
    scale = math.log(rounds) + math.log(n + malicious)
    first, logs = log_pmf(n, corrupt, k)
    tolerated = 2 * t - k if malicious else t
    exposed = _log_sum(logs[max(0, tolerated - first) :]) + scale
    first, logs = log_pmf(n, n - dropped, k)
    stalled = _log_sum(logs[: max(0, t - first)]) + scale
    apart = log_disconnected(n, corrupt + max(dropped, most_dropped or 0), k) + math.log(rounds)
    divided = log_divided(n, corrupt, k, t) + math.log(rounds) if malicious else -math.inf
    return Failure(_capped(apart), _capped(exposed), _capped(stalled), _capped(divided))


def _quantile(population: int, marked: int, draws: int, log_tail: float) -> int:
    """The smallest q with ln Pr[Hyp >= q] <= log_tail."""
    first, logs = log_pmf(population, marked, draws)
    above = np.logaddexp.accumulate(logs[::-1])[::-1]
    return first + int(np.count_nonzero(above > log_tail))


def _log_pairs(n: int, k: int) -> float:
    """Ln of the number of pairs of ring windows that cut the ring in two parts."""
    return math.log(n) + math.log(n - k - 1) - math.log(2)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_sum(logs: NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(logs)) if len(logs) else -math.inf


def _capped(log_probability: float) -> float:
    return min(1.0, math.exp(min(0.0, log_probability)))
