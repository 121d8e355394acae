"""The cells of benchmarks/privacy_utility.py: their jobs, refusals, differences and promises."""

import pytest

import fl
from benchmarks import privacy_utility
from benchmarks._cells import ADVERSARIES, IN_TURN, MECHANISMS, PRIVATE, SETS, Cell, cells
from fl.plan import settings_faults
from fl.privacy import CORRELATED


def test_differences_are_taken_seed_by_seed() -> None:
    rows = {
        f"{mechanism}/{seed}": {
            "dataset": "digits", "epsilon": 2.0, "mechanism": mechanism, "seed": seed,
            "adversary": "strongest", "accuracy": accuracy,
        }
        for mechanism, accuracies in [("gaussian", (0.5, 0.7, 0.9)), ("skellam-16", (0.4, 0.6))]
        for seed, accuracy in enumerate(accuracies)
    }  # fmt: skip
    groups = privacy_utility.grouped(rows)
    found = privacy_utility.beside_reference(groups, ("digits", 2.0, "strongest", "skellam-16"))
    assert found is not None
    assert found.values == pytest.approx((-10.0, -10.0))
    assert (
        privacy_utility.beside_reference(groups, ("digits", 2.0, "strongest", "gaussian")) is None
    )


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_cell_is_a_job_without_faults_or_says_that_it_may_be_refused(
    name: str, mechanism: str
) -> None:
    epsilon = SETS[name].epsilons[0] if mechanism in PRIVATE else None
    cell = Cell(name, mechanism, epsilon, 0)
    if not cell.exists:
        return
    job = cell.job("data")
    assert job.no_dp is (mechanism not in PRIVATE)
    found = settings_faults(
        job.rounds, job.eval_every, job.seed, job._privacy(), job._aggregation({})
    )
    if name == "heart-disease" and mechanism.partition("-")[0] in (*CORRELATED, "poisson_binomial"):
        assert len(found) == 1
        assert "unit: got record" in found[0]
        assert cell.may_be_refused
    else:
        assert found == ()
    if mechanism in IN_TURN and not cell.may_be_refused:
        assert job.cohort.rpartition(":")[0] in ("", "cyclic")
        assert job.cohort != "full"


def test_rows_in_turn_are_of_one_cohort_and_one_server_step() -> None:
    jobs = {name: Cell("mnist-writers", name, 8.0, 0).job("data") for name in IN_TURN[1:]}
    assert {job.cohort for job in jobs.values()} == {"cyclic:54"}
    assert {(job.rounds, job.against, job.server_momentum) for job in jobs.values()} == {
        (60, "participants", 0.9)
    }
    assert {name: job.algorithm for name, job in jobs.items()} == {
        "gaussian-cyclic": "fedavg", **dict.fromkeys(CORRELATED, "dp_ftrl"),
    }  # fmt: skip


def test_a_set_without_turns_has_no_rows_in_turn_and_hospitals_say_that_they_are_refused() -> None:
    def mechanisms(name: str) -> set[str]:
        return {cell.mechanism for cell in cells([name], MECHANISMS, None, ADVERSARIES[:1], [0])}

    assert mechanisms("wisdm") == {*MECHANISMS} - {*IN_TURN}
    assert mechanisms("shakespeare") == {*IN_TURN}
    assert mechanisms("heart-disease") == {*MECHANISMS} - {"clipped-cyclic", "gaussian-cyclic"}


def test_a_row_that_is_refused_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("heart-disease", "blt", 2.0, 0)
    row = privacy_utility.run(cell, "nowhere")
    assert row["refused"].startswith("unit: got record; takes client")
    assert "refused: unit: got record" in privacy_utility.table({cell.key: row})
    monkeypatch.setattr(Cell, "may_be_refused", False)  # then a fault is no row
    with pytest.raises(fl.PlanError, match="unit: got record"):
        privacy_utility.run(cell, "nowhere")


def test_promises_are_those_of_the_plan() -> None:
    cell = Cell("digits", "skellam-16", 4.0, 0)
    plan, model, data = cell.job(None).build()
    promised = privacy_utility.promises(fl.resolve(plan, data, model=model))
    assert promised["outsider"]["upper"] < 3.9 < promised["server"]["upper"] <= 4.0
    row = {
        "dataset": "digits", "epsilon": 4.0, "mechanism": "skellam-16", "adversary": "strongest",
        "seed": 0, "accuracy": 0.9, "against": "server", "promises": promised,
    }  # fmt: skip
    assert "90.00          4.00" in privacy_utility.table({cell.key: row})
    told = {"server": {"reason": "none"}, "participants": {"upper": 2.0, "lower": 0.0},
            "outsider": {"upper": 1.671, "lower": 0.0}}  # fmt: skip
    shown = privacy_utility.table({cell.key: {**row, "promises": told}})
    assert "-          2.00          1.68\n-: none" in shown  # bounds are rounded up


def test_a_weaker_adversary_takes_less_noise() -> None:
    noise = []
    for adversary in ADVERSARIES:
        plan, model, data = Cell("digits", "skellam-16", 4.0, 0, adversary).job(None).build()
        noise.append(fl.resolve(plan, data, model=model).noise_multiplier or 0.0)
    assert 0 < noise[1] < noise[0]


def test_noise_shares_and_central_noise_meet_the_same_epsilon() -> None:
    for mechanism in ("gaussian", "skellam-16"):
        cell = Cell("digits", mechanism, 4.0, 0)
        plan, model, data = cell.job(None).build()
        assert isinstance(plan.privacy, fl.Privacy)
        row = next(
            r
            for r in fl.resolve(plan, data, model=model).privacy.rows
            if r.adversary == plan.privacy.against
        )
        assert row.worst_case is not None
        assert 3.95 < row.worst_case.upper <= 4.0
