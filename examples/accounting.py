"""Accounting alone: what a training run spends, what noise a budget needs, what dropouts cost.

    python examples/accounting.py

`dp` needs numpy only. Every figure is an interval that the true epsilon lies in; its upper end is
the one to promise. The same figures serve any training loop, of this project or not.
"""

import dp

ROUNDS, DELTA = 1000, 1e-5
ADD_REMOVE, ZERO_OUT = dp.NeighboringRelation.ADD_REMOVE, dp.NeighboringRelation.ZERO_OUT


def dp_sgd(noise_multiplier: float) -> dp.Event:
    """What DP-SGD releases: ROUNDS Gaussian sums over batches that hold each example at 1 %."""
    step = dp.PoissonSampledEvent(0.01, dp.GaussianEvent(noise_multiplier))
    return dp.SelfComposedEvent(step, ROUNDS)


def masked_sum(survivors: int) -> dp.Event:
    """One sum of 100 clients or fewer, each of whom added its share of Skellam noise.

    Shares are sized so that 90 of them are Gaussian noise of four times the clip norm.
    """
    mechanism = dp.distributed(
        "skellam", dim=650, clip_norm=1.0, noise_multiplier=4.0, num_clients=100, shares=90
    )
    return mechanism.event(survivors)


def main() -> None:
    """Prints four figures and how they hang together."""
    spent = dp.epsilon(dp_sgd(1.0), delta=DELTA, neighboring=ADD_REMOVE)
    print(f"DP-SGD, sampling 1 %, noise multiplier 1, {ROUNDS} steps:")
    print(f"  {spent.lower:.4f} <= epsilon <= {spent.upper:.4f} at delta {DELTA}")

    rough = dp.epsilon(dp_sgd(1.0), delta=DELTA, neighboring=ADD_REMOVE, accountant="rdp")
    print(
        f"  an RDP accountant, which most libraries use, bounds the same run by {rough.upper:.4f}"
    )

    needed = dp.calibrate(dp_sgd, epsilon=2.0, delta=DELTA, neighboring=ADD_REMOVE)
    print(f"  for epsilon 2 it takes a noise multiplier of {needed:.4f}")

    print("Twenty masked sums of 100 clients with noise shares, when fewer survive:")
    for survivors in (100, 90, 70, 50):
        twenty = dp.SelfComposedEvent(masked_sum(survivors), 20)
        figure = dp.epsilon(twenty, delta=DELTA, neighboring=ZERO_OUT, accountant="rdp")
        print(f"  {survivors} survivors: epsilon <= {figure.upper:.3f}")

    print("A ledger counts what happened, per client, and refuses what the plan ruled out:")
    ledger = dp.Ledger(100, max_releases=2, min_survivors=90, neighboring=ZERO_OUT)
    for round_index, present in enumerate([range(100), range(5, 100)]):
        ledger.charge(round_index, 0, range(100))
        ledger.release(round_index, 0, present, masked_sum(len(present)))
        realised = ledger.realised(DELTA, "rdp").upper
        print(f"  after a sum of {len(present)} clients: epsilon <= {realised:.3f}")
    try:
        ledger.charge(2, 0, range(100))
    except dp.ReleaseLimitError as error:
        print(f"  refused: {error}")


if __name__ == "__main__":
    main()
