"""Epsilon, or the noise for one, by dp-accounting's privacy loss distributions, as users call them.

    python benchmarks/peers/dp_accounting_epsilon.py --settings '[[0.01, 1.0, 1000]]' --delta 1e-5
        [--epsilon 2] --repeats 3 --patience 10 --limit 3600

For an environment of peers/environments.py; it imports nothing of this project. The last line
printed is JSON: value and CPU seconds by accountant.
"""

import functools

import dp_accounting
from _accounting import Settings, answer, options
from dp_accounting.pld import PLDAccountant


def event(settings: Settings) -> dp_accounting.DpEvent:
    """Poisson-sampled Gaussians, composed."""
    return dp_accounting.ComposedDpEvent([
        dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)), count
        )
        for q, sigma, count in settings
    ])  # fmt: skip


def epsilon(settings: Settings, delta: float) -> float:
    """Its upper end; the step of its grid is its own."""
    accountant = PLDAccountant()
    accountant.compose(event(settings))
    return float(accountant.get_epsilon(delta))


def noise(settings: Settings, delta: float, target: float) -> float:
    """The noise multiplier of all settings that meets the target."""
    return float(
        dp_accounting.calibrate_dp_mechanism(
            PLDAccountant,
            lambda sigma: event([(q, sigma, count) for q, _, count in settings]),
            target_epsilon=target,
            target_delta=delta,
            bracket_interval=dp_accounting.ExplicitBracketInterval(0.3, 30.0),
            tol=1e-4,
        )
    )


def main() -> None:
    """Prints what is asked for."""
    given = options(__doc__)
    call = functools.partial(epsilon, given.settings, given.delta)
    if given.epsilon is not None:
        call = functools.partial(noise, given.settings, given.delta, given.epsilon)
    answer({"dp-accounting PLD": call}, given, ["dp-accounting"])


if __name__ == "__main__":
    main()
