"""Jobs: strings and numbers that become a plan, or every fault at once."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fl
from fl.job import from_dict, from_toml

WHOLE: dict[str, Any] = {
    "dataset": "digits",
    "clients": 10,
    "partition": "iid",
    "server": "semi_honest",
    "corrupt": 0.1,
    "dropout": 0.2,
    "mechanism": "skellam",
    "against": "server",
    "epsilon": 4.0,
    "delta": 1e-3,
    "clip_norm": 0.5,
}


def job(**overrides: Any) -> fl.Job:
    return fl.Job(**{**WHOLE, **overrides})


def faults_of(made: fl.Job) -> tuple[str, ...]:
    with pytest.raises(fl.PlanError) as caught:
        made.build()
    return caught.value.faults


def faults_from(values: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(fl.PlanError) as caught:
        from_dict(values)
    return caught.value.faults


def fields_of(faults: tuple[str, ...]) -> list[str]:
    return [line.partition(":")[0] for line in faults]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_digits_become_plan_model_and_data() -> None:
    made = job(
        rounds=7, cohort="4", batch_size=3, local_epochs=2, seed=5, eval_every=3,
        expected_dropout=0.1, simulate_dropout="share_keys:0.1, unmask:0.05", graph="complete",
        report_deltas=(1e-4,), spare_releases=2, seeded_secrets=True,
    )  # fmt: skip
    plan, model, data = made.build()
    assert (data.name, data.num_clients, data.num_classes) == ("digits", 10, 10)
    assert data.fields["x"].shape == (1437, 64)
    assert (plan.rounds, plan.seed, plan.eval_every, plan.seeded_secrets) == (7, 5, 3, True)
    assert plan.cohort == fl.cohort.cyclic(4)
    assert plan.algorithm.batching == fl.Batching(batch_size=3, local_epochs=2)
    assert plan.privacy == fl.Privacy(
        unit="client", against="server", epsilon=4.0, delta=1e-3, clip_norm=0.5,
        mechanism="skellam", spare_releases=2, report_deltas=(1e-4,),
    )  # fmt: skip
    assert plan.aggregation == fl.Secure(
        corrupt=0.1, dropout=0.2, server="semi_honest", expected_dropout=0.1,
        simulate_dropout={"share_keys": 0.1, "unmask": 0.05}, graph="complete",
    )  # fmt: skip
    assert fl.resolve(plan, data, model=model).messages.dim == 64 * 10 + 10


def test_the_learning_rates_and_the_momentum_reach_the_optimizers() -> None:
    plan, _, _ = job(client_lr=0.25, server_lr=2.0, server_momentum=0.5).build()
    params = {"w": np.ones(1, np.float32)}
    gradient = {"w": np.full(1, 3.0, np.float32)}
    once = plan.algorithm.server_update(plan.algorithm.init(params), gradient)
    assert float(once.params["w"][0]) == 1 - 2.0 * 3
    twice = plan.algorithm.server_update(once, gradient)
    assert float(twice.params["w"][0]) == -5 - 2.0 * (3 + 0.5 * 3)


@pytest.mark.parametrize(
    ("name", "dim"), [("logistic", 650), ("2nn", 55_210), ("cnn", 188_810), ("cnn-lax", 188_810)]
)
def test_models_are_known_by_name(name: str, dim: int) -> None:
    plan, model, data = job(model=name).build()
    assert fl.resolve(plan, data, model=model).messages.dim == dim


def test_aggregations_and_privacy_follow_their_names() -> None:
    plan, _, _ = job(aggregation="ideal", server=None).build()
    assert plan.aggregation == fl.Ideal(corrupt=0.1, dropout=0.2)
    plan, _, _ = job(aggregation="plain", mechanism="gaussian", against="outsider").build()
    assert plan.aggregation == fl.Plain()
    plan, _, _ = job(no_dp=True, max_norm=2.0, weights="examples", max_weight=9).build()
    assert plan.privacy == fl.NotPrivate(2.0, "examples", 9)


def test_all_faults_are_listed_at_once() -> None:
    found = faults_of(
        job(
            dataset="nosuch", model="mlp", aggregation="magic", processes=0, epsilon=None,
            client_lr=0.0, server_lr=-1.0, server_momentum=1.0, cohort="some",
            simulate_dropout="unmask",
        )
    )  # fmt: skip
    assert sorted(fields_of(found)) == [
        "aggregation", "client_lr", "cohort", "dataset", "epsilon", "model", "processes",
        "server_lr", "server_momentum", "simulate_dropout",
    ]  # fmt: skip
    assert f"model: got mlp; takes {' | '.join(fl.models.MODELS)}" in found
    assert "aggregation: got magic; takes plain | ideal | secure" in found
    assert f"dataset: got nosuch; takes {' | '.join(fl.datasets.DATASETS)}" in found


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mu": 0.5}, "mu: got 0.5; takes 0.0: it belongs to fedprox"),
        ({"control_scale": 0.1}, "control_scale: got 0.1; takes 1.0: it belongs to scaffold"),
        ({"epsilon": math.inf}, "epsilon: got inf; takes a number above 0, finite"),
        ({"seed": 2**63}, f"seed: got {2**63}; takes an integer, 0 to {2**63 - 1}"),
        ({"seed": -1}, "seed: got -1; takes an integer, at least 0"),
    ],
)
def test_a_fault_says_what_would_do(wrong: dict[str, Any], says: str) -> None:
    assert faults_of(job(**wrong)) == (says,)


def test_one_client_is_too_few_for_a_protocol_and_the_fault_names_it() -> None:
    plan, model, data = job(clients=1, corrupt=0.0, dropout=0.0).build()
    with pytest.raises(fl.PlanError, match=r"^num_clients: got 1; takes an integer in 2"):
        fl.resolve(plan, data, model=model)


PRIVATE = ["mechanism", "against", "epsilon", "delta", "clip_norm"]


@pytest.mark.parametrize(
    ("aggregation", "no_dp", "required"),
    [
        ("plain", True, []),
        ("plain", False, PRIVATE),
        ("ideal", True, ["corrupt", "dropout", "max_norm"]),
        ("ideal", False, ["corrupt", "dropout", *PRIVATE]),
        ("secure", True, ["corrupt", "dropout", "server", "max_norm"]),
        ("secure", False, ["corrupt", "dropout", "server", *PRIVATE]),
    ],
)
def test_what_decides_privacy_and_security_has_no_default(
    aggregation: str, no_dp: bool, required: list[str]
) -> None:
    bare = fl.Job(
        dataset="digits", clients=10, partition="iid", aggregation=aggregation, no_dp=no_dp
    )
    if not required:
        plan, _, _ = bare.build()
        assert plan.privacy == fl.NotPrivate()
        return
    found = faults_of(bare)
    assert sorted(fields_of(found)) == sorted(required)
    assert all(": got None; takes " in line for line in found)


@pytest.mark.parametrize("name", ["client_lr", "server_lr"])
@pytest.mark.parametrize("value", [0.0, -0.1, float("nan")])
def test_rates_are_above_zero(name: str, value: float) -> None:
    assert fields_of(faults_of(job(**{name: value}))) == [name]


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_momentum_is_a_fraction(value: float) -> None:
    assert fields_of(faults_of(job(server_momentum=value))) == ["server_momentum"]


def test_cohorts_are_read_from_strings() -> None:
    assert job(cohort="full").build()[0].cohort == fl.cohort.full()
    assert job(cohort="10").build()[0].cohort == fl.cohort.cyclic(10)


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        (None, {}),
        ("", {}),
        ("unmask:0.5", {"unmask": 0.5}),
        (" mask_input : 0.1 ,unmask:0,", {"mask_input": 0.1, "unmask": 0.0}),
    ],
)
def test_simulated_dropouts_are_read_from_strings(
    text: str | None, rates: dict[str, float]
) -> None:
    for aggregation in ("ideal", "secure"):
        made = job(aggregation=aggregation, simulate_dropout=text).build()[0].aggregation
        assert not isinstance(made, fl.Plain)
        assert made.simulate_dropout == rates


@pytest.mark.parametrize(
    "text",
    [
        "unmask", "unmask:", "unmask:often", "unmask=0.1", ":", "unmask:0.1,unmask:0.2",
        "lunch:0.1", "unmask:1.5", "unmask:-0.1", "unmask:nan",
    ],
)  # fmt: skip
def test_other_dropout_strings_are_faults(text: str) -> None:
    (line,) = faults_of(job(simulate_dropout=text))
    assert line.startswith("simulate_dropout")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 0), ("eval_every", 0), ("seed", -1), ("batch_size", 0), ("local_epochs", 0),
        ("epsilon", 0.0), ("delta", 2.0), ("clip_norm", -1.0), ("mechanism", "laplace"),
        ("against", "nobody"), ("unit", "patient"), ("corrupt", 1.0), ("dropout", -0.5),
        ("graph", "star"), ("server", "honest"), ("spare_releases", -1), ("report_deltas", (0.0,)),
    ],
)  # fmt: skip
def test_the_parts_faults_are_the_jobs_faults_before_data_are_loaded(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fl.datasets, "load", None)
    (line,) = faults_of(job(**{name: value}))
    assert line.startswith(f"{name}: got ")


def test_data_that_need_more_say_so() -> None:
    with pytest.raises(fl.DataError, match="clients"):
        job(clients=None).build()
    with pytest.raises(fl.DataError, match="data_dir"):
        job(dataset="mnist-writers", clients=None, partition=None).build()


@pytest.mark.parametrize("name", sorted(fl.PRESETS))
def test_a_preset_described_is_the_preset(name: str, tmp_path: Path) -> None:
    preset = fl.PRESETS[name]
    assert from_toml(written(tmp_path / "job.toml", preset.describe())) == preset


@pytest.mark.parametrize("name", sorted(fl.PRESETS))
def test_a_preset_leaves_nothing_to_choose_and_holds_without_noise_too(name: str) -> None:
    preset = fl.PRESETS[name]
    known = "2nn" if preset.model == "2nn" else "logistic"
    stand_in = dataclasses.replace(
        preset, dataset="digits", clients=200, partition="iid", model=known
    )
    for made in (stand_in, dataclasses.replace(stand_in, no_dp=True)):
        plan, model, data = made.build()
        resolved = fl.resolve(plan, data, model=model)
        assert resolved.params is not None


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
NUMBERS = st.floats(allow_nan=False)


@given(
    dataset=TEXTS, out=st.none() | TEXTS, clients=st.none() | st.integers(-(2**62), 2**62),
    epsilon=st.none() | NUMBERS, deltas=st.lists(NUMBERS, max_size=3), no_dp=st.booleans(),
)  # fmt: skip
def test_any_job_described_is_the_job(
    tmp_path_factory: pytest.TempPathFactory,
    dataset: str,
    out: str | None,
    clients: int | None,
    epsilon: float | None,
    deltas: list[float],
    no_dp: bool,
) -> None:
    made = fl.Job(
        dataset=dataset, out=out, clients=clients, epsilon=epsilon, report_deltas=tuple(deltas),
        no_dp=no_dp,
    )  # fmt: skip
    path = written(tmp_path_factory.mktemp("job") / "job.toml", made.describe())
    assert from_toml(path) == made


def test_control_characters_survive_the_description(tmp_path: Path) -> None:
    made = job(out="two\nlines\tand \x1f\x7f")
    assert from_toml(written(tmp_path / "job.toml", made.describe())) == made


def test_unknown_names_are_listed() -> None:
    found = faults_from({"dataset": "digits", "learning_rate": 0.1, "epsilons": 2})
    assert found == (
        "learning_rate: got 0.1; takes no such name",
        "epsilons: got 2; takes no such name",
    )


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("rounds", True, "int"),
        ("rounds", 2.0, "int"),
        ("rounds", "2", "int"),
        ("clients", False, "int"),
        ("epsilon", True, "float | int"),
        ("epsilon", "4", "float | int"),
        ("client_lr", "0.1", "float | int"),
        ("cohort", 5, "str"),
        ("cohort", ["full"], "str"),
        ("no_dp", 1, "bool"),
        ("no_dp", "true", "bool"),
        ("report_deltas", 1e-5, "tuple"),
        ("report_deltas", "1e-5", "tuple"),
        ("simulate_dropout", {"unmask": 0.1}, "str"),
    ],
)
def test_values_of_a_wrong_type_are_faults(name: str, value: object, takes: str) -> None:
    (line,) = faults_from({"dataset": "digits", name: value})
    assert line.startswith(f"{name}: got ")
    assert line.endswith(f"; takes {takes}")


def test_unknown_names_wrong_types_and_what_is_missing_are_one_message() -> None:
    found = faults_from({"speed": 1, "rounds": "many", "seed": True})
    assert fields_of(found) == ["speed", "dataset", "rounds", "seed"]


def test_integers_stand_for_floats_and_lists_for_tuples() -> None:
    made = from_dict({"dataset": "digits", "epsilon": 4, "report_deltas": [1e-5, 1e-6]})
    assert made.epsilon == 4
    assert made.report_deltas == (1e-5, 1e-6)


@pytest.mark.parametrize("text", ["dataset = ", "dataset = digits", "[", "a = 1\na = 2"])
def test_broken_toml_is_a_fault_that_names_the_file(text: str, tmp_path: Path) -> None:
    path = written(tmp_path / "broken.toml", text)
    with pytest.raises(fl.PlanError, match=r"job: got .*broken\.toml: .*; takes a TOML file"):
        from_toml(path)


def test_files_that_are_missing_or_not_text_are_faults(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'dataset = "\xff"')
    for name in ("none", "latin", "."):
        with pytest.raises(fl.PlanError, match="takes a TOML file"):
            from_toml(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "cohort"),
    [
        ("full", fl.cohort.full()), ("4", fl.cohort.cyclic(4)), ("cyclic:4", fl.cohort.cyclic(4)),
        ("fixed:4:5", fl.cohort.fixed(4, 5)), ("separated:2:3", fl.cohort.separated(2, 3)),
        ("poisson:0.25", fl.cohort.poisson(0.25)),
    ],
)  # fmt: skip
def test_cohorts_are_known_by_name(text: str, cohort: fl.cohort.Cohort) -> None:
    plan, _, _ = job(cohort=text).build()
    assert plan.cohort == cohort
    assert str(cohort) in (text, f"cyclic:{text}")


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "-3", "2.5", "all", "²", "1e2", "full ", "fixed:4", "fixed:4:5:6", "poisson",
        "poisson:often", "full:1", "cyclic:1.5", "4:2", "separated:0:2",
    ],
)  # fmt: skip
def test_other_cohort_strings_are_faults(text: str) -> None:
    (line,) = faults_of(job(cohort=text))
    assert line.startswith("cohort: ")


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "fedsgd", "fedadam"])
def test_algorithms_are_known_by_name(name: str) -> None:
    plan, model, data = job(algorithm=name, cohort="4").build()
    assert plan.algorithm.name == name
    resolved = fl.resolve(plan, data, model=model)
    assert resolved.messages.dim == (2 if name == "scaffold" else 1) * 650


def test_the_unit_reaches_the_plan() -> None:
    plan, _, _ = job(unit="record", record_sampling=0.5).build()
    assert isinstance(plan.privacy, fl.Privacy)
    assert (plan.privacy.unit, plan.privacy.record_sampling) == ("record", 0.5)
    (line,) = faults_of(job(unit="record"))
    assert line.startswith("record_sampling: ")
    assert job(client_metrics=True).build()[0].client_metrics
