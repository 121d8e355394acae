"""Ledger: refusals that change nothing, realised epsilon, text in and out."""

# Helpers are untyped like the tests, and refusals are tested with wrong types on purpose.
# mypy: allow-untyped-calls, disable-error-code="arg-type, type-var"

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dp

ZERO_OUT = dp.NeighboringRelation.ZERO_OUT
EVENT = dp.SkellamEvent(400.0, 100, 60, 10, 9)
OTHER = dp.SkellamEvent(500.0, 100, 60, 10, 9)


def make(num_clients=5, max_releases=2, min_survivors=3):
    return dp.Ledger(
        num_clients, max_releases=max_releases, min_survivors=min_survivors, neighboring=ZERO_OUT
    )


def refuses(ledger, error, call):
    """The call raises and the ledger is as before."""
    before = ledger.to_json(), ledger.charges.tolist()
    with pytest.raises(error) as caught:
        call()
    assert (ledger.to_json(), ledger.charges.tolist()) == before
    return caught.value


def spent(event, delta=1e-5, accountant="rdp"):
    return dp.epsilon(event, delta, neighboring=ZERO_OUT, accountant=accountant).upper


def test_charges_count_whether_or_not_something_is_released():
    ledger = make()
    ledger.charge(0, 0, [0, 1, 2])
    ledger.charge(0, 0, [3])
    ledger.charge(0, 1, [0])
    assert ledger.charges.tolist() == [2, 1, 1, 1, 0]
    assert ledger.exhausted.tolist() == [True, False, False, False, False]
    assert ledger.releases == 0
    ledger.charges[:] = 0  # a copy
    assert ledger.charges.sum() == 5
    assert ledger.realised(1e-5, "rdp") == dp.Interval(0.0, 0.0)


def test_release_beyond_the_limit_is_refused_and_names_the_client():
    ledger = make()
    ledger.charge(0, 0, range(5))
    ledger.charge(1, 0, [1, 3])
    error = refuses(ledger, dp.ReleaseLimitError, lambda: ledger.charge(2, 0, [0, 1, 3]))
    assert error.client_ids == (1, 3)
    assert "1, 3" in str(error)


def test_second_charge_of_an_attempt_is_refused():
    ledger = make(max_releases=9)
    ledger.charge(4, 1, [0, 2])
    error = refuses(ledger, dp.RepeatedChargeError, lambda: ledger.charge(4, 1, [2, 3]))
    assert (error.round_index, error.attempt, error.client_ids) == (4, 1, (2,))


def test_charge_after_the_release_of_its_attempt_is_refused():
    ledger = make()
    ledger.charge(0, 0, [0, 1, 2])
    ledger.release(0, 0, [0, 1, 2], EVENT)
    refuses(ledger, dp.RepeatedReleaseError, lambda: ledger.charge(0, 0, [3]))


def test_second_release_of_an_attempt_is_refused():
    ledger = make()
    ledger.charge(0, 0, range(5))
    ledger.release(0, 0, [0, 1, 2, 3], EVENT)
    refuses(ledger, dp.RepeatedReleaseError, lambda: ledger.release(0, 0, [0, 1, 2], EVENT))


def test_too_few_survivors_are_refused():
    ledger = make()
    ledger.charge(0, 0, range(5))
    error = refuses(ledger, dp.SurvivorsError, lambda: ledger.release(0, 0, [0, 1], EVENT))
    assert "min_survivors is 3" in str(error)


def test_survivors_that_were_never_charged_are_refused():
    ledger = make()
    ledger.charge(0, 0, [0, 1, 2])
    ledger.charge(0, 1, [3])
    error = refuses(ledger, dp.SurvivorsError, lambda: ledger.release(0, 0, [0, 1, 2, 3], EVENT))
    assert error.client_ids == (3,)
    refuses(ledger, dp.SurvivorsError, lambda: ledger.release(7, 0, [0, 1, 2], EVENT))


@pytest.mark.parametrize("ids", [[5], [-1], [0, 0], [0.5], ["a"], [True]])
def test_ids_that_are_none_are_refused(ids):
    ledger = make()
    refuses(ledger, dp.ParameterError, lambda: ledger.charge(0, 0, ids))


def test_other_arguments_out_of_range_are_refused():
    ledger = make()
    ledger.charge(0, 0, range(5))
    refuses(ledger, dp.ParameterError, lambda: ledger.charge(-1, 0, [0]))
    refuses(ledger, dp.ParameterError, lambda: ledger.charge(0, 1.5, [0]))
    refuses(ledger, dp.ParameterError, lambda: ledger.release(0, 0, [0, 1, 2], "event"))
    refuses(
        ledger,
        dp.ParameterError,
        lambda: ledger.release(0, 0, [0, 1, 2], EVENT, num_survivors=2),
    )
    refuses(ledger, dp.ParameterError, lambda: ledger.realised(0.0, "rdp"))
    for changes in ({"num_clients": 0}, {"max_releases": 0}, {"min_survivors": 0}):
        with pytest.raises(dp.ParameterError, match=next(iter(changes))):
            make(**changes)
    with pytest.raises(dp.ParameterError, match="neighboring"):
        dp.Ledger(1, max_releases=1, min_survivors=1, neighboring="zero_out")


def test_own_ledger_of_a_client():
    ledger = dp.Ledger(1, max_releases=2, min_survivors=170, neighboring=ZERO_OUT)
    ledger.charge(3, 0, [0])
    error = refuses(
        ledger, dp.SurvivorsError, lambda: ledger.release(3, 0, [0], EVENT, num_survivors=169)
    )
    assert "169" in str(error)
    ledger.release(3, 0, [0], EVENT, num_survivors=170)
    assert ledger.realised(1e-5, "rdp").upper == pytest.approx(spent(EVENT), rel=1e-9)


def test_realised_is_the_maximum_over_clients():
    ledger = make(max_releases=5)
    for t, (survivors, event) in enumerate(
        [((0, 1, 2), EVENT), ((0, 1, 2, 3), OTHER), ((2, 3, 4), EVENT)]
    ):
        ledger.charge(t, 0, range(5))
        ledger.release(t, 0, survivors, event)
    for accountant in ("rdp", "zcdp"):
        want = max(
            spent(dp.ComposedEvent(parts), accountant=accountant)
            for parts in [(EVENT, OTHER), (EVENT, OTHER, EVENT), (OTHER, EVENT), (EVENT,)]
        )
        got = ledger.realised(1e-5, accountant).upper
        assert got == pytest.approx(want, rel=1e-9)


def test_realised_charges_failures_and_changes_nothing():
    ledger = make()
    ledger.charge(0, 0, range(5))
    ledger.release(0, 0, range(4), EVENT)
    before = ledger.to_json()
    plain = ledger.realised(1e-3, "rdp")
    failing = ledger.realised(1e-3, "rdp", failure_prob=5e-4, total_variation=1e-9)
    assert failing.upper > plain.upper
    assert ledger.realised(1e-3, "rdp") == plain
    assert ledger.to_json() == before
    with pytest.raises(dp.FailureBudgetError):
        ledger.realised(1e-3, "rdp", failure_prob=1e-3)


def test_sampled_events_are_refused():
    ledger = make()
    ledger.charge(0, 0, range(5))
    sampled = dp.PoissonSampledEvent(0.1, dp.GaussianEvent(1.0))
    for event in (sampled, dp.SelfComposedEvent(sampled, 2), dp.ComposedEvent((EVENT, sampled))):
        error = refuses(
            ledger,
            dp.LedgerMismatchError,
            lambda event=event: ledger.release(0, 0, [0, 1, 2], event),
        )
        assert "participation" in str(error)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(1e-9, 0.1))
@pytest.mark.slow
def test_realised_agrees_with_every_client_on_its_own(seed, delta):
    rng = np.random.default_rng(seed)
    ledger = make(num_clients=8, max_releases=6, min_survivors=1)
    own: list[list[dp.Event]] = [[] for _ in range(8)]
    for t in range(6):
        ledger.charge(t, 0, range(8))
        survivors = np.flatnonzero(rng.random(8) < 0.6)
        if survivors.size == 0:
            continue
        event = dp.SkellamEvent(float(rng.integers(50, 60)) * survivors.size, 100, 60, 10, 9)
        ledger.release(t, 0, survivors.tolist(), event)
        for client in survivors:
            own[client].append(event)
    want = max((spent(dp.ComposedEvent(tuple(e)), delta) for e in own if e), default=0.0)
    assert ledger.realised(delta, "rdp").upper == pytest.approx(want, rel=1e-8)


@pytest.mark.slow
def test_thousand_distinct_events_are_composed():
    ledger = make(num_clients=300, max_releases=1000, min_survivors=1)
    rng = np.random.default_rng(0)
    for t in range(1000):
        ledger.charge(t, 0, range(300))
        event = dp.SkellamEvent(1e6 + t, 100, 60, 10, 9)
        ledger.release(t, 0, np.flatnonzero(rng.random(300) < 0.9).tolist(), event)
    everything = dp.SelfComposedEvent(dp.SkellamEvent(1e6, 100, 60, 10, 9), 1000)
    assert 0 < ledger.realised(1e-6, "rdp").upper < spent(everything, 1e-6)


def test_save_load_continue_equals_uninterrupted():
    def first(ledger):
        ledger.charge(0, 0, range(5))
        ledger.release(0, 0, [0, 1, 2], EVENT)
        ledger.charge(1, 0, [0, 1, 2])

    def second(ledger):
        ledger.charge(1, 1, [3, 4])
        ledger.release(
            1, 0, [0, 1, 2], dp.ComposedEvent((OTHER, dp.SelfComposedEvent(dp.GaussianEvent(3), 2)))
        )

    whole, half = make(), make()
    first(whole)
    second(whole)
    first(half)
    resumed = dp.Ledger.from_json(half.to_json())
    second(resumed)
    assert resumed.to_json() == whole.to_json()
    assert resumed.charges.tolist() == whole.charges.tolist()
    assert resumed.realised(1e-5, "rdp") == whole.realised(1e-5, "rdp")
    assert dp.Ledger.from_json(whole.to_json()).to_json() == whole.to_json()


def edited(**changes):
    ledger = make()
    ledger.charge(0, 0, range(5))
    ledger.release(0, 0, range(5), EVENT)
    return json.dumps({**json.loads(ledger.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("no json", dp.LedgerMismatchError),
        ("[]", dp.LedgerMismatchError),
        (edited(version=2), dp.LedgerMismatchError),
        (edited(attempts=[{}]), dp.LedgerMismatchError),
        (edited(attempts=None), dp.LedgerMismatchError),
        (edited(neighboring="add"), dp.LedgerMismatchError),
        (edited(num_clients=0), dp.ParameterError),
        (edited(num_clients=4), dp.ParameterError),
        (edited(min_survivors=6), dp.SurvivorsError),
    ],
    ids=["text", "list", "version", "empty", "none", "relation", "zero", "fewer", "survivors"],
)
def test_text_that_is_no_ledger_is_refused(text, error):
    with pytest.raises(error):
        dp.Ledger.from_json(text)


def test_repr_holds_no_ids():
    assert repr(make()) == "Ledger(num_clients=5, attempts=0, releases=0, max_releases=2)"


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.sets(st.integers(0, 5))), max_size=9))
def test_distinct_compositions_are_those_of_a_full_table(releases):
    events = [dp.GaussianEvent(z) for z in (1.0, 2.0, 3.0)]
    ledger = make(num_clients=6, max_releases=20, min_survivors=1)
    table = {client: [0, 0, 0] for client in range(6)}
    for t, (kind, survivors) in enumerate(releases):
        if survivors:
            ledger.charge(t, 0, survivors)
            ledger.release(t, 0, survivors, events[kind])
            for client in survivors:
                table[client][kind] += 1
    order, rows = ledger._compositions(None)
    got = [
        {order[event].noise_multiplier: count for event, count in rows.row(i)}
        for i in range(len(rows))
    ]
    want = [
        {event.noise_multiplier: n for event, n in zip(events, row, strict=True) if n}
        for row in {tuple(row) for row in table.values()}
        if any(row)
    ]
    assert sorted(map(sorted, (d.items() for d in got))) == sorted(
        map(sorted, (d.items() for d in want))
    )


LARGE = """
import pathlib
import numpy as np
import dp
ledger = dp.Ledger(
    10**6, max_releases=50, min_survivors=10, neighboring=dp.NeighboringRelation.ZERO_OUT
)
rng = np.random.default_rng(0)
for t in range(1000):
    ids = rng.choice(10**6, 1000, replace=False).tolist()
    ledger.charge(t, 0, ids)
    ledger.release(t, 0, ids[:900], dp.SkellamEvent(900.0 + t, 900, 90, 30, 100))
assert ledger.realised(1e-8, "rdp").upper > 0
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_million_clients_and_a_thousand_events_take_less_than_a_gigabyte():
    root = pathlib.Path(dp.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LARGE], check=True, capture_output=True, text=True, cwd=root
    )
    assert int(done.stdout) < 1 << 20  # kilobytes
