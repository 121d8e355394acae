"""What the benchmarks compute besides times: crossings, differences, results that survive."""

import re
from pathlib import Path

import pytest

import fl
from benchmarks import privacy_utility, report
from benchmarks._results import RESULTS, Results
from benchmarks.privacy_utility import MECHANISMS, PRIVATE, SETS, Cell
from benchmarks.rounds_to_target import crossing
from fl.plan import settings_faults


@pytest.mark.parametrize(
    ("curve", "rounds"),
    [
        ([0.5, 0.9], 1.75),  # a quarter of the last round missing
        ([0.8], 1.0),
        ([0.4], None),
        ([0.6, 0.5, 0.9], 2.0 + 2 / 3),  # from the best so far, not from the last
        ([], None),
    ],
)
def test_the_crossing_is_on_the_line_from_the_best_so_far(
    curve: list[float], rounds: float | None
) -> None:
    assert crossing(curve, 0.8) == (None if rounds is None else pytest.approx(rounds))


def test_results_are_kept_row_by_row(tmp_path: Path) -> None:
    Results("some", tmp_path).add("b", {"value": 1})
    Results("some", tmp_path).add("a", {"value": 2})
    Results("some", tmp_path).add("b", {"value": 3})
    found = Results("some", tmp_path)
    assert [(key, row["value"]) for key, row in found.rows().items()] == [("a", 2), ("b", 3)]
    (run,) = found.runs()
    assert run["machine"].keys() == {"cpu", "cores", "ram_gib"}
    assert all(row["run"] == 0 for row in found.rows().values())


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
def test_every_cell_is_a_job_without_faults(name: str, mechanism: str) -> None:
    epsilon = SETS[name].epsilons[0] if mechanism in PRIVATE else None
    cell = Cell(name, mechanism, epsilon, 0)
    job = cell.job("data")
    assert job.no_dp is (mechanism not in PRIVATE)
    found = settings_faults(
        job.rounds, job.eval_every, job.seed, job._privacy(), job._aggregation({})
    )
    assert (found == ()) is cell.exists
    assert cell.exists or (name, len(found)) == ("heart-disease", 1)


def test_a_weaker_adversary_takes_less_noise() -> None:
    noise = []
    for adversary in privacy_utility.ADVERSARIES:
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


def test_the_page_is_drawn_from_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PAGE", tmp_path / "report.html")
    monkeypatch.setattr(report, "PICTURES", tmp_path / "img")
    report.main()
    page = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!#)', page)  # refers to nothing outside itself
    for section in report.SECTIONS:
        assert (RESULTS / f"{section.name}.json").exists() == (section.title in page)
    assert {path.name for path in (tmp_path / "img").iterdir()} <= set(report.README)
