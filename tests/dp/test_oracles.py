"""Intervals contain what tools of others find, over all kinds of events; see vectors/."""

# Helpers are untyped like the tests.
# mypy: allow-untyped-calls

import json
import pathlib
import warnings

import pytest

import dp

VECTORS = pathlib.Path(__file__).parent / "vectors"
PARTS = 20


def frozen():
    return json.loads((VECTORS / "oracles.json").read_text())["rows"]


def costly(row):
    """Few releases of a pure loss need the finest grids."""
    text = json.dumps(row["event"])
    return "LaplaceEvent" in text and "Composed" in text


def check(row):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of delta above 1 / population
        found = dp.epsilon(
            dp.event_from_dict(row["event"]),
            row["delta"],
            neighboring=dp.NeighboringRelation(row["neighboring"]),
        )
    assert found.lower <= row["upper"] * (1 + 1e-9) + 1e-9, row
    assert found.upper >= row["lower"] * (1 - 1e-9) - 1e-9, row
    if row["by"] == "mpmath":  # the truth itself: neither end is far from it
        assert found.upper <= row["upper"] * 1.02 + 1e-5, row
    if row["by"] == "mpmath" and "Composed" not in json.dumps(row["event"]):
        assert found.upper - found.lower <= 1e-6 * found.upper + 1e-9, row


def test_there_are_at_least_five_hundred_rows_of_every_kind():
    rows = frozen()
    older = json.loads((VECTORS / "dp_accounting_gaussian.json").read_text())["rows"]
    assert len(rows) + len(older) >= 650
    text = json.dumps([row["event"] for row in rows])
    for kind in ("Gaussian", "Laplace", "DiscreteGaussian", "DiscreteLaplace", "Skellam"):
        assert f'"{kind}Event"' in text
    for kind in ("PoissonSampledEvent", "FixedSizeSampledEvent", "ComposedEvent"):
        assert f'"{kind}"' in text
    assert {row["neighboring"] for row in rows} == {"add_remove", "replace_one", "zero_out"}
    assert min(row["delta"] for row in rows) == 1e-12


@pytest.mark.parametrize("part", range(PARTS))
def test_intervals_contain_the_oracles(part):
    for row in [row for row in frozen() if not costly(row)][part::PARTS]:
        check(row)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_intervals_contain_the_oracles_of_pure_losses(part):
    for row in [row for row in frozen() if costly(row)][part::PARTS]:
        check(row)
