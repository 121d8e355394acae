"""Failure probabilities of a round's graph and threshold, from exact hypergeometric tails.

Source: Bell, Bonawitz, Gascon, Lepoint, Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, Theorem 3.10 and its conditions, in the exact form of the
public parameter finder of google-parfait/federated-compute
(fcp/secagg/server/graph_parameter_finder.cc). Letters: n clients, c of them corrupt, at most D
dropped, k neighbours each, threshold t.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Failure:
    """Probabilities that a run goes wrong: union bounds over clients and rounds, at most 1.

    Attributes:
        disconnected: the honest survivors fall into parts whose sums leak one by one.
        exposed: some client has `threshold` or more corrupt holders.
        stalled: some client keeps fewer than `threshold` holders, so a round may abort.
    """

    disconnected: float
    exposed: float
    stalled: float

    @property
    def privacy(self) -> float:
        """Upper bound on the probability that more than the sum is learnt, at any round."""
        return min(1.0, self.disconnected + self.exposed)

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
        (first, logs): logs[i] = ln Pr[X = first + i], over the whole support.
    """
    first, last = max(0, draws + marked - population), min(draws, marked)
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
    pairs = math.log(n) + math.log(n - k - 1) - math.log(2)
    return (
        pairs
        + math.lgamma(bad + 1)
        + math.lgamma(n - k + 1)
        - math.lgamma(n + 1)
        - math.lgamma(bad - k + 1)
    )


def threshold_range(
    n: int, corrupt: int, dropped: int, k: int, *, log_privacy: float, log_correctness: float
) -> tuple[int, int]:
    """The thresholds a sparse graph of degree k leaves.

    Args:
        n: clients.
        corrupt: c.
        dropped: D.
        k: degree.
        log_privacy: ln of what n Pr[Hyp(n, c, k) >= t] may be.
        log_correctness: ln of what n Pr[Hyp(n, n - D, k) < t] may be.

    Returns:
        (smallest for privacy, largest for correctness); none fits where the first is larger.
    """
    first, logs = log_pmf(n, corrupt, k)
    above = np.logaddexp.accumulate(logs[::-1])[::-1] + math.log(n)  # [i]: n Pr[X >= first + i]
    smallest = first + int(np.count_nonzero(above > log_privacy))
    first, logs = log_pmf(n, n - dropped, k)
    upto = np.logaddexp.accumulate(logs) + math.log(n)  # [i]: n Pr[X <= first + i]
    largest = first + int(np.count_nonzero(upto <= log_correctness))
    return max(1, smallest), min(k, largest)


@lru_cache(maxsize=4096)
def failure(n: int, corrupt: int, dropped: int, k: int, t: int, rounds: int) -> Failure:
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
    """
    if k == n - 1:
        return Failure(0.0, float(corrupt >= t), float(n - dropped - 1 < t))
    scale = math.log(rounds) + math.log(n)
    first, logs = log_pmf(n, corrupt, k)
    exposed = _log_sum(logs[max(0, t - first) :]) + scale
    first, logs = log_pmf(n, n - dropped, k)
    stalled = _log_sum(logs[: max(0, t - first)]) + scale
    apart = log_disconnected(n, corrupt + dropped, k) + math.log(rounds)
    return Failure(_capped(apart), _capped(exposed), _capped(stalled))


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_sum(logs: NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(logs)) if len(logs) else -math.inf


def _capped(log_probability: float) -> float:
    return min(1.0, math.exp(min(0.0, log_probability)))
