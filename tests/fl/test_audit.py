"""An audit's bound stays below the claim, a broken pipeline's does not, and bugs are found."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import dp
import fl
from fl.audit import Audit, audit, probe
from fl.audit.attack import Scores
from fl.audit.canaries import draw_canaries, with_clients
from fl.audit.probes import law_of
from fl.encoding import PrivateEncoding, round_rotation
from fl.engine import Attempted
from fl.errors import PlanError
from fl.round import Outcome
from fl.site import Order
from tests.fl import helpers, planted

MECHANISMS = {
    "skellam": "server",
    "discrete_gaussian": "server",
    "poisson_binomial": "server",
    "gaussian": "outsider",
}
CORRELATED = ("tree", "banded", "blt")
AGGREGATIONS: dict[str, Callable[[], fl.aggregate.Aggregation]] = {
    "ideal": helpers.ideal,
    "secure": helpers.secure,
    "dropouts": lambda: helpers.ideal(simulate_dropout={"mask_input": 0.1}),
    "plain": fl.Plain,
}
COHORTS = {"full": fl.cohort.full(), "cyclic": fl.cohort.cyclic(40)}
# Calibrating coins takes seconds.
COINS_SLOW = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "poisson_binomial" else [])
    for name in MECHANISMS
]


def attack(
    name: str,
    seed: int,
    *,
    epsilon: float = 1.0,
    mechanism: str = "skellam",
    canaries: int = 60,
    **overrides: Any,
) -> Audit:
    with planted.bug(name, seed) as rand:
        private = planted.private(mechanism, epsilon)
        return audit(
            planted.plan(privacy=private, **overrides), planted.MODEL, planted.data(20),
            canaries=canaries, significance=0.05, rand=rand,
        )  # fmt: skip


@pytest.mark.parametrize("mechanism", COINS_SLOW)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_no_bound_is_above_its_claim(mechanism, aggregation):
    if aggregation == "plain" and mechanism != "gaussian":
        pytest.skip("Plain takes central noise only")
    made = AGGREGATIONS[aggregation]()
    found = attack("none", 1, mechanism=mechanism, aggregation=made, canaries=16)
    wanted = {"participants", "outsider"} | ({"server"} if mechanism != "gaussian" else set())
    assert {row.adversary for row in found.rows} == wanted
    for row in found.rows:
        assert row.lower <= row.claimed
        assert not row.refuted


@pytest.mark.parametrize("mechanism", CORRELATED)
def test_no_bound_is_above_its_claim_under_correlated_noise(mechanism):
    found = attack("none", 1, mechanism=mechanism)
    assert {row.adversary for row in found.rows} == {"participants", "outsider"}
    assert not any(row.refuted for row in found.rows)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_bound_is_above_its_claim_with_a_malicious_server(mechanism):
    made = helpers.secure(server="malicious", security_bits=16, correctness_bits=8)
    found = attack("none", 1, mechanism=mechanism, aggregation=made)
    assert found.rows
    assert not any(row.refuted for row in found.rows)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", [*MECHANISMS, *CORRELATED])
@pytest.mark.parametrize("aggregation", ["ideal", "secure", "dropouts"])
@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_no_bound_is_above_its_claim_over_seeds(mechanism, aggregation, cohort, epsilon):
    """Each row by itself errs in at most 5 % of the runs; over 20 seeds 4 errors are 1 in 60."""
    above: dict[str, int] = {}
    for seed in range(20):
        found = attack(
            "none", 100 + seed, epsilon=epsilon, mechanism=mechanism,
            aggregation=AGGREGATIONS[aggregation](), cohort=COHORTS[cohort],
        )  # fmt: skip
        for row in found.rows:
            above[row.adversary] = above.get(row.adversary, 0) + row.refuted
    assert max(above.values()) <= 3


def test_a_tight_claim_is_nearly_reached():
    """At a large epsilon the canaries stand out, and the bound is no constant 0."""
    found = attack("none", 2, epsilon=40.0)
    for row in found.rows:
        known = row.adversary != "outsider"  # an outsider does not know the others' inputs
        assert (2.0 if known else 0.3) < row.lower <= row.claimed


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_missing_noise_refutes_every_row(mechanism):
    if reason := planted.no_such("noise missing", mechanism):
        pytest.skip(reason)
    found = attack("noise missing", 3, mechanism=mechanism)
    assert found.rows
    assert all(row.refuted for row in found.rows)


def test_ideal_and_secure_are_attacked_alike():
    """The server learns the same sums: with the noise of a seeded run, the same guesses."""
    rows = []
    for make in (helpers.ideal, helpers.secure):
        with planted.bug("seed shared between rounds", 4):
            found = audit(
                planted.plan(aggregation=make(), privacy=helpers.privacy(epsilon=20.0)),
                planted.MODEL, planted.data(20), canaries=16, significance=0.05,
                rand=np.random.default_rng(4).bytes,
            )  # fmt: skip
        rows.append(found.rows)
    assert rows[0] == rows[1]


def test_absent_canaries_send_zero_and_present_ones_the_clip_norm():
    sent: dict[int, NDArray[np.int64]] = {}
    kept = Scores.sent

    def spy(self: Any, round_index: int, client: int, segments: Any) -> None:
        sent[client] = dp.unwrap(segments["update"], self._encoding.mechanism.modulus_bits)
        kept(self, round_index, client, segments)

    with pytest.MonkeyPatch.context() as patch, planted.bug("noise missing", 5) as rand:
        patch.setattr(Scores, "sent", spy)
        audit(
            planted.plan(rounds=1), planted.MODEL, planted.data(20), canaries=40,
            significance=0.05, rand=rand,
        )  # fmt: skip
        resolved = fl.resolve(planted.plan(rounds=1), with_clients(planted.data(20), 40))
    assert isinstance(resolved.encoding, PrivateEncoding)
    assert isinstance(resolved.encoding.mechanism, dp.DistributedMechanism)
    size = resolved.encoding.mechanism.discretizer
    norms = np.array([np.linalg.norm(sent[client]) for client in range(20, 60)]) * size.granularity
    absent = norms == 0
    assert 10 < absent.sum() < 30
    assert norms[~absent] == pytest.approx(size.clip_norm, rel=0.02)


def test_scores_hold_what_colluders_know_and_nothing_of_others():
    """The server's score is the sum over all but the colluders, in the canary's direction."""
    with planted.bug("noise missing", 6) as rand:
        resolved = fl.resolve(planted.plan(rounds=1), with_clients(planted.data(20), 30))
        drawn = draw_canaries(30, 130, first_id=20, directions="orthogonal", rand=rand)
    encoding = resolved.encoding
    assert isinstance(encoding, PrivateEncoding)
    mechanism = encoding.mechanism
    assert isinstance(mechanism, dp.DistributedMechanism)
    rotation = round_rotation(130, resolved.plan.seed, 0)
    rng = np.random.default_rng(6)
    integers = {client: rng.integers(-9, 9, 130) for client in (0, 1, 25)}
    segments = {
        client: {"update": dp.wrap(vector, mechanism.modulus_bits)}
        for client, vector in integers.items()
    }
    scores = Scores(resolved, drawn, range(1))
    for client, values in segments.items():
        scores.sent(0, client, values)
    total = np.sum(list(integers.values()), axis=0)
    mean = encoding.decode(
        {"update": dp.wrap(total, mechanism.modulus_bits)}, rotation, 50, lambda _: rng.bytes
    )
    outcome = Outcome(mean, (0, 1, 25), None, None)
    order = Order(0, 0, tuple(range(50)), {}, None)
    scores.attempted(order, Attempted(outcome, [], []))
    left = mechanism.discretizer.decode(integers[1] + integers[25], rotation)
    expected = drawn.directions @ left
    assert scores.by_adversary["server"][5] == pytest.approx(expected[5], abs=1e-9)
    assert scores.by_adversary["server"][4] == 0.0  # canary 24 did not survive
    assert scores.by_adversary["participants"] == pytest.approx(expected, abs=1e-9)
    assert not scores.by_adversary["outsider"].any()


@pytest.mark.parametrize("directions", ["orthogonal", "random"])
def test_directions_have_norm_one_and_coins_are_fair(directions):
    drawn = draw_canaries(
        100, 130, first_id=7, directions=directions, rand=np.random.default_rng(7).bytes
    )
    assert np.linalg.norm(drawn.directions, axis=1) == pytest.approx(1.0, rel=1e-6)
    assert 30 < drawn.present.sum() < 70
    assert list(drawn.ids) == list(range(7, 107))
    gram = drawn.directions @ drawn.directions.T
    if directions == "orthogonal":
        assert np.count_nonzero(gram) == 100


PLANTED = [
    ("noise missing", "too little noise"),
    ("noise halved", "too little noise"),
    ("clip doubled", "inputs beyond the clip"),
    ("seed shared between rounds", "noise shared between rounds"),
    ("seed shared between clients", "noise shared between clients"),
    ("fixed batches as Poisson", "cohorts of fixed size"),
    ("one batch as Poisson", "cohorts that repeat or avoid each other"),
]


def alarms(name: str, mechanism: str, seed: int) -> set[str]:
    wanted, clients = planted.plan_for(name, mechanism)
    with planted.bug(name, seed):
        return {
            found.name
            for found in probe(
                wanted, planted.MODEL, planted.data(clients), significance=0.01
            ).alarms
        }


@pytest.mark.parametrize(("bug", "detector"), PLANTED)
@pytest.mark.parametrize("mechanism", ["skellam", "gaussian"])
def test_planted_bugs_are_found(bug, detector, mechanism):
    if reason := planted.no_such(bug, mechanism):
        pytest.skip(reason)
    assert detector in alarms(bug, mechanism, 8)


@pytest.mark.parametrize("mechanism", COINS_SLOW)
@pytest.mark.parametrize("like", ["none", "none, Poisson"])
def test_an_honest_run_does_not_alarm(mechanism, like):
    wanted, clients = planted.plan_for(like, mechanism)
    with planted.repeatable(9):
        found = probe(wanted, planted.MODEL, planted.data(clients), significance=0.01)
    assert not found.alarms
    assert len(found.detections) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "detector"), PLANTED)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_planted_bugs_are_found_with_power(bug, detector, mechanism):
    if reason := planted.no_such(bug, mechanism):
        pytest.skip(reason)
    found = [detector in alarms(bug, mechanism, seed) for seed in range(40)]
    assert np.mean(found) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("like", ["none", "none, Poisson"])
def test_honest_runs_rarely_alarm(mechanism, like):
    wanted, clients = planted.plan_for(like, mechanism)
    count = 0
    for seed in range(200):
        with planted.repeatable(seed):
            found = probe(wanted, planted.MODEL, planted.data(clients), significance=0.01)
        count += bool(found.alarms)
    assert count <= 0.01 * 200


def test_a_law_is_what_the_statement_claims():
    resolved = fl.resolve(planted.plan(), planted.data(40))
    law = law_of(resolved.exposure)
    mechanism = resolved.exposure.mechanism
    assert law is not None
    assert isinstance(mechanism, dp.DistributedMechanism)
    assert law.variance(30) == pytest.approx(30 * mechanism.share_variance)
    assert law.norm**2 == pytest.approx(mechanism.discretizer.l2_sq)
    honest = resolved.exposure.bounds.honest_shares
    multiplier = math.sqrt(law.variance(honest)) * law.granularity / 0.5
    assert multiplier == pytest.approx(resolved.noise_multiplier, rel=1e-9)


@pytest.mark.parametrize(
    ("field", "arguments", "overrides"),
    [
        ("privacy", {}, {"privacy": fl.NotPrivate(1.0)}),
        ("unit", {}, {"privacy": helpers.privacy(unit="record", record_sampling=1.0)}),
        ("canaries", {"canaries": 0}, {}),
        ("canaries", {"canaries": 131}, {}),
        ("guesses", {"guesses": 41}, {}),
        ("significance", {"significance": 0.0}, {}),
        ("directions", {"directions": "aligned"}, {}),
        ("plan", {}, {"seeded_secrets": True}),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_audited_is_refused(field, arguments, overrides):
    settings = {"canaries": 40, "significance": 0.05, **arguments}
    with pytest.raises(PlanError) as caught:
        audit(planted.plan(**overrides), planted.MODEL, planted.data(20), **settings)
    assert any(line.startswith(f"{field}: got ") for line in caught.value.faults)
