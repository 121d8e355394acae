"""Epsilon, or the noise for one, by Opacus' RDP and PRV accountants, at their defaults.

    python benchmarks/peers/opacus_epsilon.py --settings '[[0.01, 1.0, 1000]]' --delta 1e-5
        [--epsilon 2] --repeats 3 --patience 10 --limit 3600

For an environment of peers/environments.py; it imports nothing of this project. The last line
printed is JSON: value and CPU seconds by accountant. RDP over its default orders is an upper bound;
PRV returns the upper end of its own error, 0.01 in epsilon and a thousandth of delta, for the
direction in which the record is removed. The search for noise stops within 0.01 of the target.
"""

import functools
import warnings

import torch
from _accounting import Settings, answer, options
from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier


def epsilon(name: str, settings: Settings, delta: float) -> float:
    """By the accountant of that name."""
    accountant = create_accountant(mechanism=name)
    accountant.history = [(sigma, q, count) for q, sigma, count in settings]
    return float(accountant.get_epsilon(delta))


def noise(name: str, settings: Settings, delta: float, target: float) -> float:
    """The noise multiplier of the one setting that meets the target."""
    ((q, _, count),) = settings
    return float(
        get_noise_multiplier(
            target_epsilon=target, target_delta=delta, sample_rate=q, steps=count, accountant=name
        )
    )


def main() -> None:
    """Prints what is asked for."""
    given = options(__doc__)
    warnings.simplefilter("ignore")  # that the best order is the largest of its defaults
    torch.set_num_threads(1)
    call = functools.partial(epsilon, settings=given.settings, delta=given.delta)
    if given.epsilon is not None:
        call = functools.partial(
            noise, settings=given.settings, delta=given.delta, target=given.epsilon
        )
    calls = {f"Opacus {name.upper()}": functools.partial(call, name) for name in ("rdp", "prv")}
    answer(calls, given, ["opacus", "scipy"])


if __name__ == "__main__":
    main()
