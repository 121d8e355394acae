"""What the benchmarks compute besides times: crossings, differences, results that survive."""

import functools
import importlib
import math
import re
import shutil
import sys
import unittest.mock
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dp
import fl
import secureagg
from benchmarks import (
    _dpsgd,
    _script,
    accounting,
    attack,
    audit,
    deployment,
    dropout_privacy,
    report,
)
from benchmarks._results import RESULTS, Results, beside
from benchmarks._timing import cpu_seconds
from benchmarks.rounds_to_target import crossing
from fl.group import alone
from fl.prepare import prepare


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


def test_a_row_is_of_the_run_that_it_comes_from(tmp_path: Path) -> None:
    results = Results("some", tmp_path)
    results.add("a", {"value": 1})
    with unittest.mock.patch("benchmarks._results.versions", return_value={"python": "other"}):
        results.add("b", {"value": 2})
    assert results.rows() == {"a": {"value": 1, "run": 0}, "b": {"value": 2, "run": 1}}


def test_a_row_without_peers_leaves_one_beside_them() -> None:
    assert beside("2nn", []) == "2nn"
    assert beside("2nn", ["fedjax", "pfl"]) == "2nn, beside fedjax, pfl"


def test_a_peer_answers_with_the_last_line_that_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_script, "_PEERS", tmp_path)
    inside = tmp_path / "opacus" / "bin"
    inside.mkdir(parents=True)
    (inside / "python").symlink_to(sys.executable)
    said = 'import json, sys\nprint("a warning")\nprint(json.dumps({"asked": sys.argv[1:]}))\n'
    (tmp_path / "peer.py").write_text(said, "utf-8")
    found = _script.ask_peer(tmp_path, "opacus", "peer.py", {"clients": 3, "drop": 0.1})
    assert found == {"asked": ["--clients=3", "--drop=0.1"]}
    (tmp_path / "peer.py").write_text("raise SystemExit(3)", "utf-8")
    with pytest.raises(SystemExit, match=r"peer\.py ended with 3"):
        _script.ask_peer(tmp_path, "opacus", "peer.py", {})


def test_a_script_passes_over_peers_that_do_other_work() -> None:
    parser = _script.options_of("")
    _script.take_peers(parser)
    given = parser.parse_args(["--peers", "opacus", "fedjax", "pfl"])
    assert _script.beside_us(given, ("fedjax", "opacus")) == ["opacus", "fedjax"]
    assert _script.beside_us(parser.parse_args([]), ("fedjax",)) == []


def test_a_peer_without_an_environment_is_told_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"peers\.environments accounting --folder"):
        _script.ask_peer(tmp_path, "opendp", "opendp_gaussian.py", {})


@pytest.mark.parametrize(
    ("value", "says"), [(0.9, "BELOW our lower end"), (1.05, "inside"), (1.21, "10.00% above")]
)
def test_a_peers_epsilon_is_placed_beside_our_interval(value: float, says: str) -> None:
    peers = {"Some": {"value": value, "seconds": 2.0, "versions": {"some": "1"}}}
    row = {"lower": 1.0, "upper": 1.1, "seconds": 0.5, "peers": peers}
    assert says in accounting.text("a", row)
    assert "4x ours (some 1)" in accounting.text("a", row)
    lost = {**row, "peers": {"Some": {"failed": "not done after 1 s", "versions": {}}}}
    assert "no figure: not done after 1 s" in accounting.text("a", lost)


# Each with wrong input that its own code, not its parser's choices, has to refuse, if it has any.
SCRIPTS = {
    "accounting": ["--rows", "none"],
    "attack": ["--cohorts", "1"],
    "audit": ["--mechanisms", "none"],
    "correlated_noise": ["--rounds", "1"],
    "deployment": ["--nodes", "1"],
    "dropout_privacy": ["--trials", "0"],
    "privacy_utility": ["--sets", "mnist-writers"],
    "protocol_cost": ["--peers", "flower", "--rows", "n100-malicious"],
    "rounds_to_target": [],
    "samplers": ["--peers", "none"],
    "simulation_speed": ["--repeats", "0"],
    "strategies": ["--clients", "0"],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_shows_its_help_and_its_results_and_refuses_wrong_input(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module(f"benchmarks.{name}")
    for words, code in ((["--help"], 0), (SCRIPTS[name], 2)):
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            script.main()
        assert ended.value.code == code
    assert "error: " in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [name, "--show"])
    script.main()
    assert (RESULTS / f"{name}.json").exists() <= bool(capsys.readouterr().out.strip())


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the report writes: the page, the pictures, and copies of the pages with tables."""
    monkeypatch.setattr(report, "PAGE", tmp_path / "report.html")
    monkeypatch.setattr(report, "PICTURES", tmp_path / "img")
    for name, _ in report.TABLES.values():
        shutil.copy(report.DOCS / name, tmp_path)
    monkeypatch.setattr(report, "DOCS", tmp_path)
    return tmp_path


def test_a_section_without_results_names_the_command_that_makes_them(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "Results", functools.partial(Results, folder=written))
    report.main([])
    page = (written / "report.html").read_text("utf-8")
    for section in report.SECTIONS:
        assert f"(python -m benchmarks.{section.name})" in page
    assert "<pre>" not in page


def test_a_timing_calls_once_more_than_it_counts() -> None:
    calls: list[int] = []
    assert cpu_seconds(lambda: calls.append(1), repeats=3, times=4) >= 0.0
    assert len(calls) == 1 + 3 * 4


NO_PEERS = accounting.Peers([], Path(), 1)


def test_wide_intervals_are_counted() -> None:
    assert accounting.survey(5, 1, NO_PEERS).keys() == {"count", "wide", "seconds"}
    loose = dp.Interval(1.0, 1.2, "")
    with unittest.mock.patch.object(dp, "epsilon", return_value=loose):
        assert accounting.survey(5, 2, NO_PEERS)["wide"] == 5


def test_planted_bugs_and_honest_runs_are_in_tables_of_their_own() -> None:
    found = {
        "mechanism": "skellam",
        "probes": 100,
        "refuted": 1,
        "attacks": 20,
        "detectors": {"a": 3},
    }
    text = audit.table({
        "bug": {**found, "bug": "noise halved", "found": 97, "at_least": 0.92},
        "none": {**found, "bug": "none, Poisson", "alarms": 3, "at_most": 0.08},
    })  # fmt: skip
    bugs, honest = text.split("\n\n")
    assert "noise halved" in bugs
    assert "97 of 100 (0.920)" in bugs
    assert "Poisson" in honest
    assert "3 of 100 (0.0800)" in honest


@pytest.mark.slow
def test_the_page_is_drawn_from_the_committed_results(written: Path) -> None:
    report.main([])
    page = (written / "report.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!#|data:)', page)  # refers to nothing outside itself
    for section in report.SECTIONS:
        measured = (RESULTS / f"{section.name}.json").exists()
        assert measured == (f"<h2>{section.title}</h2>" in page)
        assert measured != (f"Not measured here: {section.title}" in page)
    assert {path.name for path in (written / "img").iterdir()} <= set(report.README)


@pytest.mark.parametrize("name", report.TABLES)
def test_tables_of_docs_are_those_of_the_committed_results(name: str) -> None:
    file, table = report.TABLES[name]
    page = (report.DOCS / file).read_text("utf-8")
    assert report.with_table(page, name, table(Results(name).rows())) == page


def test_a_table_is_written_where_the_page_asks_for_it() -> None:
    page = "a\n<!-- table x, by benchmarks.report -->\nold\n<!-- end of table -->\nb\n"
    found = report.with_table(page, "x", "new")
    assert found == page.replace("old", "new")
    with pytest.raises(ValueError, match="no table y"):
        report.with_table(page, "y", "new")


def test_noise_that_is_sized_for_all_clients_does_not_hold_its_epsilon() -> None:
    plan, model, data = dropout_privacy.demo(0.0).build()
    resolved = fl.resolve(plan, data, model=model)
    sizes, fewest = dropout_privacy.sizings(resolved.exposure), resolved.exposure.bounds
    found = {
        name: dropout_privacy.against_server(resolved, size, fewest.min_survivors)
        for name, size in sizes.items()
    }
    assert 3.99 < found["honest survivors"].upper <= 4.0
    assert found["all clients"].lower > 4.0  # certified: the claim of 4 is false
    assert found["survivors"].upper > 4.0


def test_the_head_count_is_in_sums_of_the_clients_own_shares() -> None:
    others, trials = 9, 60
    mechanism = dp.distributed(
        "skellam", dim=4096, clip_norm=1.0, noise_multiplier=1.0, num_clients=10, shares=others
    )
    laws = dropout_privacy.expected(mechanism, others)
    seen = dropout_privacy.releases(mechanism, others, trials)
    assert abs(seen.absent.size.mean()) < 6 / trials**0.5
    assert abs(seen.zero.size.mean() - laws.apart) < 6 * laws.wider / trials**0.5
    assert abs(seen.vector.along.mean() - laws.shift) < 6 * laws.wider / trials**0.5
    rng = secureagg.byte_stream(bytes(32))
    variance = others * mechanism.share_variance
    spread = (4096 * (2 * variance**2 + variance)) ** 0.5
    for count, mean in [(others, 0.0), (others + 1, laws.apart)]:
        sums = [
            np.sum([mechanism.sample_share(rng) for _ in range(count)], axis=0) for _ in range(20)
        ]
        sizes = [(float((total**2).sum()) - 4096 * variance) / spread for total in sums]
        assert abs(np.mean(sizes) - mean) < 6 * laws.wider / 20**0.5


def test_bounds_of_the_distinguisher_hold_and_find_something() -> None:
    rng, trials, prob = np.random.default_rng(0), 1000, 0.5
    absent, zero, vector = rng.binomial(trials, [[0.1], [0.3], [0.6]], (3, 400))
    found = [
        dropout_privacy.absent_bound(int(a), int(z), trials, prob)
        for a, z in zip(absent, zero, strict=True)
    ]
    truth = math.log(0.5 + 0.5 * 0.3 / 0.1)
    assert np.mean([bound > truth for bound in found]) < 0.05 + 0.04
    assert np.median(found) > truth / 2
    truth = math.log((0.05 + 0.3) / (0.05 + 0.15))
    found = [
        dropout_privacy.zero_out_bound(int(a), int(z), int(v), trials, prob)
        for a, z, v in zip(absent, zero, vector, strict=True)
    ]
    assert np.mean([bound > truth for bound in found]) < 0.05 + 0.04
    assert np.median(found) > truth / 2
    assert dropout_privacy.absent_bound(100, 100, trials, 0.1) == 0.0
    assert dropout_privacy.zero_out_bound(100, 100, 100, trials, 0.1) == 0.0


@pytest.fixture
def twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cohorts small enough for every test run."""
    monkeypatch.setattr(attack, "CLIENTS", 20)


@pytest.mark.slow
@pytest.mark.usefixtures("twenty")
@pytest.mark.parametrize("name", attack.MODELS)
def test_an_update_is_the_image_and_a_masked_one_is_not(name: str) -> None:
    model, found = attack.MODELS[name](), attack.images()
    data = attack.cohort_of(found, np.random.default_rng(0))
    ready = prepare(attack.plan_of(model, None), model, data, fl.Execution(), alone())
    updates = attack.updates_of(ready)
    round_ = attack.run_masked(ready, updates)
    np.testing.assert_allclose(round_.total, updates.sum(axis=0), atol=1e-3)
    for i, true in enumerate(data.fields["x"]):
        image, label = attack.inverted(ready, updates[i])
        np.testing.assert_allclose(image, true, atol=1e-3)
        assert label == data.fields["y"][i]
        assert np.abs(attack.inverted(ready, round_.masked[i])[0] - true).max() > 0.1
    views = attack.views(round_, updates)
    np.testing.assert_allclose(views["sum, others known"], updates, atol=1e-3)


def test_the_advantage_is_that_of_half_of_the_cohorts() -> None:
    rng = np.random.default_rng(0)
    coins = [rng.random(100) < 0.5 for _ in range(4)]
    sure = attack.advantage([np.where(c, 1.0, -1.0) for c in coins], coins)
    assert sure["value"] == 1.0 > sure["low"] > 0.9
    noise = attack.advantage([rng.normal(size=100) for _ in coins], coins)
    assert noise["low"] < 0.0 < noise["high"]
    signs = [np.where(c, 1.0, -1.0) for c in coins]
    backwards = attack.advantage([*signs[:2], *(-sign for sign in signs[2:])], coins)
    assert backwards["value"] == -1.0  # the threshold reads none of the coins that it is tried on


def test_the_bound_on_the_advantage_is_that_of_randomised_response() -> None:
    true, false = math.exp(1.0) / (math.exp(1.0) + 1.0), 1.0 / (math.exp(1.0) + 1.0)
    assert attack.dp_bound(1.0, 0.0) == pytest.approx(true - false)
    assert attack.dp_bound(0.0, 0.25) == 0.25


@pytest.mark.slow
@pytest.mark.usefixtures("twenty")
def test_an_attack_without_noise_succeeds_and_with_noise_stays_below_the_bound() -> None:
    rows = attack.attacked("logistic", 6)
    assert rows["update"]["correlation"] > 0.999
    assert rows["sum, others known"]["named"]["value"] == 1.0
    assert abs(rows["masked vector"]["correlation"]) < 0.3
    assert (
        rows["masked vector"]["advantage"]["low"] < 0.0 < rows["masked vector"]["advantage"]["high"]
    )
    noised = rows["noised sum, others known, epsilon 1"]["advantage"]
    assert noised["low"] < attack.dp_bound(1.0, attack.DELTA)


def test_every_size_is_predicted_or_says_why_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = secureagg.RoundCost(1, {}, {}, {"mask_input": 1}, {})
    monkeypatch.setattr(secureagg, "predict_cost", lambda params, dropouts: cost)
    deployment.predict()
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(deployment._PREDICTED)
    (refused,) = [line for line in lines if "takes" in line]
    assert re.search(r"4 malicious +dropout=0.25: takes c \+ 2 D \+ 3 <= n", refused)


def test_torch_gets_the_cnn_that_is_trained_here() -> None:
    """By layers that hold channels and outputs first, as torch's do."""
    model = fl.models.cnn(784, 10, channels=(2, 64), hidden=5)
    params = jax.tree.map(lambda leaf: leaf + 0.01, model.init(jax.random.key(0)))
    *convolutions, dense, bias, out, last = _dpsgd.torch_weights("cnn", params)
    x = np.random.default_rng(0).random((3, 784), dtype=np.float32)
    images = jnp.asarray(x).reshape(3, 1, 28, 28)
    for kernel, shift in zip(convolutions[::2], convolutions[1::2], strict=True):
        images = jax.lax.conv(images, jnp.asarray(kernel), (1, 1), "SAME") + shift[:, None, None]
        pooled = jax.nn.relu(images).reshape(*images.shape[:2], images.shape[2] // 2, 2, -1, 2)
        images = pooled.max(axis=(3, 5))
    logits = jax.nn.relu(images.reshape(3, -1) @ dense.T + bias) @ out.T + last
    np.testing.assert_allclose(logits, model.apply(params, jnp.asarray(x)), rtol=1e-4, atol=1e-5)
