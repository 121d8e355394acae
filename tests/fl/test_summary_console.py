"""What readers see of a run: summary.json, printed tables, and the facts that identify a plan."""

import dataclasses
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dp
import fl
from fl.console import cost_table, privacy_table, round_line, round_note, table
from fl.figures import lower_text, upper_text
from fl.results import Cost
from fl.summary import fingerprint, read_summary, run_facts, summarize, versions, write_summary
from tests.fl import helpers

DATA = helpers.small_data()
EXECUTION: dict[str, int | str] = {"strategy": "scan", "chunk": 4, "threads": 1}
STATE = helpers.ALGORITHM.init(helpers.MODEL.init(helpers.KEY))


def resolved(**overrides: Any) -> fl.Resolved:
    return fl.resolve(helpers.plan(**overrides), DATA)


def fingerprint_of(data: fl.FederatedDataset = DATA, **overrides: Any) -> str:
    return fingerprint(fl.resolve(helpers.plan(**overrides), data), data, STATE, EXECUTION)


def row(**overrides: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "seconds": {"train": 1.0, "encode": 2.0, "protocol": 3.0, "decode": 4.0},
        "invited": 10,
        "upload_bytes": 1000,
        "cost": None,
    }
    return {**values, **overrides}


def cost(scale: float, stages: Sequence[str] = ("mask_input", "unmask")) -> dict[str, Any]:
    return {
        "client_seconds": {stage: 0.02 * scale for stage in stages},
        "server_seconds": {stage: 0.5 * scale for stage in stages},
        "upload_bytes": {stage: 200 * scale for stage in stages},
        "download_bytes": {stages[0]: 50 * scale},
    }


def summary_of(rows: Sequence[dict[str, Any]], **overrides: Any) -> dict[str, Any]:
    plan = resolved()
    settings: dict[str, Any] = {
        "model_sha256": "c0ffee",
        "metrics": {"accuracy": 0.75, "loss": 1.5},
        "stopped_early": None,
        "job": None,
    }
    return summarize(
        run_facts(plan, DATA, EXECUTION), rows, plan.privacy, **{**settings, **overrides}
    )


def test_a_round_is_named_once() -> None:
    assert round_line(1, "released") == "round 1: released"
    assert round_line(1, "client 3: at fault") == "round 1: client 3: at fault"
    for named in ("round 1: 2 clients, needs 3", "round 1, message from client 2: 3 bytes"):
        assert round_line(1, named) == named


def test_the_summary_names_what_is_promised() -> None:
    found = summary_of([row()], job={"dataset": "digits"}, stopped_early="why")
    assert set(found) >= {
        "dataset", "num_clients", "rounds", "accuracy", "model_sha256", "seconds_per_round",
        "upload_bytes_per_client_round", "privacy", "versions",
    }  # fmt: skip
    assert (found["dataset"], found["num_clients"], found["rounds"]) == ("small", 12, 1)
    assert (found["accuracy"], found["model_sha256"]) == (0.75, "c0ffee")
    assert (found["job"], found["stopped_early"]) == ({"dataset": "digits"}, "why")
    assert found["details"]["parameters"] == 15
    assert found["details"]["min_survivors"] == 9
    assert found["details"]["seed"] == 7


def test_seconds_are_medians_and_the_total_is_that_of_whole_rounds() -> None:
    parts = ("train", "encode", "protocol", "decode")
    rounds = [(1, 10, 0, 0), (2, 2, 0, 0), (9, 1, 0, 1)]
    rows = [row(seconds=dict(zip(parts, seconds, strict=True))) for seconds in rounds]
    assert summary_of(rows)["seconds_per_round"] == {
        "train": 2, "encode": 2, "protocol": 0, "decode": 0, "total": 11,
    }  # fmt: skip


def test_upload_is_per_invited_client_and_the_median_over_rounds_that_sent() -> None:
    rows = [row(upload_bytes=b, invited=n) for b, n in [(1000, 10), (900, 3), (None, 10), (0, 1)]]
    assert summary_of(rows)["upload_bytes_per_client_round"] == 100
    assert summary_of([row(upload_bytes=None)])["upload_bytes_per_client_round"] is None


def test_costs_by_stage_are_medians_and_only_clients_are_divided() -> None:
    rows = [row(cost=cost(scale)) for scale in (1, 2, 50)] + [row()]
    found = summary_of(rows)["cost_by_stage"]
    assert list(found) == ["mask_input", "unmask"]
    assert found["mask_input"] == pytest.approx(
        {"client_seconds": 0.004, "upload_bytes": 40, "download_bytes": 10, "server_seconds": 1.0}
    )
    assert found["unmask"]["download_bytes"] == 0
    assert summary_of([row()])["cost_by_stage"] == {}


def test_a_run_without_rounds_has_a_summary_too() -> None:
    found = summary_of([], metrics={})
    assert (found["rounds"], found["accuracy"]) == (0, None)
    assert set(found["seconds_per_round"].values()) == {None}
    assert found["upload_bytes_per_client_round"] is None


def test_facts_say_what_was_asked_for() -> None:
    private = run_facts(resolved(aggregation=helpers.secure()), DATA, EXECUTION)
    assert (private["mechanism"], private["against"]) == ("skellam", "server")
    assert (private["aggregation"], private["invited"]) == ("secure", 12)
    assert private["noise_multiplier"] > 0
    assert list(private["segments"]) == ["update"]
    assert private["graph"]["degree"] <= 11
    opened = run_facts(resolved(privacy=fl.NotPrivate(), aggregation=fl.Plain()), DATA, EXECUTION)
    assert (opened["mechanism"], opened["against"]) == ("none", None)
    assert opened["noise_multiplier"] is opened["segments"] is opened["graph"] is None
    assert json.loads(json.dumps([private, opened])) == [
        json.loads(json.dumps(facts)) for facts in (private, opened)
    ]


def test_versions_are_those_installed() -> None:
    assert versions()["numpy"] == np.__version__
    assert versions()["jax"] == jax.__version__
    assert set(versions()) == {"python", "numpy", "jax", "jaxlib", "optax", "cryptography"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = summary_of([row(cost=cost(1))], job={"report_deltas": [1e-5], "out": None})
    path = write_summary(tmp_path, found)
    assert path == tmp_path / "summary.json"
    assert read_summary(tmp_path) == json.loads(path.read_text(encoding="utf-8"))
    assert read_summary(tmp_path)["privacy"] == found["privacy"]
    with pytest.raises(fl.StoreError, match=r"summary\.json"):
        read_summary(tmp_path / "none")


def test_a_fingerprint_repeats_though_sessions_are_fresh() -> None:
    assert fingerprint_of() == fingerprint_of()
    masked = helpers.secure()
    assert fingerprint_of(aggregation=masked) == fingerprint_of(aggregation=masked)


DECISIVE: list[dict[str, Any]] = [
    {"rounds": 4},
    {"seed": 8},
    {"cohort": fl.cohort.cyclic(6)},
    {"algorithm": helpers.algorithm(local_epochs=1)},
    {"algorithm": helpers.algorithm(batch_size=3)},
    {"privacy": helpers.privacy(epsilon=7.9)},
    {"privacy": helpers.privacy(delta=2e-3)},
    {"privacy": helpers.privacy(clip_norm=0.6)},
    {"privacy": helpers.privacy(mechanism="discrete_gaussian")},
    {"privacy": helpers.privacy(spare_releases=1)},
    {"privacy": fl.NotPrivate(1.0)},
    {"aggregation": helpers.secure()},
    {"aggregation": helpers.ideal(dropout=0.2)},
    {"aggregation": helpers.ideal(corrupt=0.2)},
    {"aggregation": helpers.ideal(simulate_dropout={"unmask": 0.1})},
    {"seeded_secrets": True},
]


@pytest.mark.parametrize("overrides", DECISIVE, ids=range(len(DECISIVE)))
def test_every_choice_that_decides_a_run_is_in_its_fingerprint(overrides: dict[str, Any]) -> None:
    assert fingerprint_of(**overrides) != fingerprint_of()


def test_other_clients_are_other_runs() -> None:
    assert fingerprint_of(helpers.small_data(13)) != fingerprint_of()
    assert fingerprint_of(helpers.small_data(12, examples=6)) != fingerprint_of()
    named = dataclasses.replace(DATA, name="other")
    assert fingerprint_of(named) != fingerprint_of()


def test_another_server_state_is_another_run() -> None:
    plain = helpers.algorithm(server_optimizer=optax.sgd(1.0))  # keeps no momentum
    state = plain.init(helpers.MODEL.init(helpers.KEY))
    for name in EXECUTION:
        other = {**EXECUTION, name: 2}
        assert fingerprint(resolved(), DATA, STATE, other) != fingerprint(
            resolved(), DATA, STATE, EXECUTION
        )
    assert fingerprint(resolved(), DATA, state, EXECUTION) != fingerprint(
        resolved(), DATA, STATE, EXECUTION
    )


@given(st.floats(0, 1e15))
def test_printed_bounds_still_hold_and_are_close(value: float) -> None:
    upper, lower = Decimal(upper_text(value)), Decimal(lower_text(value))
    exact = Decimal(repr(value))
    assert lower <= exact <= upper
    assert upper - lower <= (Decimal("0.01") if value >= 1 else Decimal("0.0101") * exact)


@pytest.mark.parametrize(
    ("value", "upper", "lower"),
    [
        (3.66, "3.66", "3.66"), (3.661, "3.67", "3.66"), (0.12345, "0.124", "0.123"),
        (0.9999, "1.000", "0.999"), (0.0, "0.00", "0.00"), (12.0, "12.00", "12.00"),
        (0.00098765, "0.000988", "0.000987"),
    ],
)  # fmt: skip
def test_bounds_are_rounded_outwards(value: float, upper: str, lower: str) -> None:
    assert (upper_text(value), lower_text(value)) == (upper, lower)


def test_an_unbounded_epsilon_is_printed_as_such() -> None:
    assert upper_text(math.inf) == "inf"


def statement_row(adversary: str, **overrides: Any) -> fl.Row:
    figure = dp.Interval(0.0, 3.98501)
    settings: dict[str, Any] = {
        "adversary": adversary,
        "relation": "zero_out",
        "delta": 1e-3,
        "planned": dp.Interval(0.0, 1.25),
        "realised": None,
        "worst_case": figure,
        "reason": None,
        "c": 4,
        "min_survivors": 30,
        "max_releases": 3,
    }
    return fl.Row(**{**settings, **overrides})


STATEMENT = fl.Statement(
    "client",
    (
        statement_row("server", planned=None, worst_case=None, reason="nothing is proven"),
        statement_row("participants"),
        statement_row("outsider", delta=1.25e-7, realised=dp.Interval(0.0, 0.5)),
    ),
    ("everybody behaves",),
)


def test_the_privacy_table_has_a_line_per_row_and_says_why_there_is_no_figure() -> None:
    text = privacy_table(STATEMENT, assumptions=True)
    title, header, rule, *body = text.splitlines()
    assert title == "epsilon"
    assert header.split("  ")[0] == "adversary"
    assert set(rule) == {"-"}
    server, participants, outsider, *notes = body
    assert server.split() == ["server", "0.001", "-", "-", "-", "zero_out", "4", "30", "3"]
    assert participants.split() == [
        "participants", "0.001", "<=", "1.25", "-", "<=", "3.99", "zero_out", "4", "30", "3",
    ]  # fmt: skip
    assert outsider.split()[1:6] == ["1.25e-07", "<=", "1.25", "<=", "0.500"]
    assert notes == ["* server: nothing is proven", "* everybody behaves"]
    assert "everybody" not in privacy_table(STATEMENT, assumptions=False)
    assert "nothing is proven" in privacy_table(STATEMENT, assumptions=False)


def test_the_statement_as_text_never_rounds_a_bound_down() -> None:
    server, participants, outsider = str(STATEMENT).splitlines()
    assert server == "server: no figure: nothing is proven"
    assert "worst case <= 3.99 " in participants
    assert "at delta 1.25e-07 " in outsider


def test_without_privacy_the_table_has_no_delta() -> None:
    text = privacy_table(resolved(privacy=fl.NotPrivate(1.0)).privacy, assumptions=True)
    for line in text.splitlines()[3:6]:
        assert line.split()[1:5] == ["-", "-", "-", "-"]
    assert "no noise is added" in text


def test_columns_are_aligned() -> None:
    lines = table(("name", "n"), [("a", "1"), ("longer", "1000")]).splitlines()
    assert lines == ["name       n", "-" * 12, "a          1", "longer  1000"]


def test_the_cost_table_shows_stages_where_there_are_some() -> None:
    masked = cost_table(summary_of([row(cost=cost(1))]))
    assert "mask_input           2.00            20               5         500.00" in masked
    opened = cost_table(summary_of([row(upload_bytes=123_450)]))
    assert "upload per client and round: 12,345 bytes" in opened
    silent = cost_table(summary_of([row(upload_bytes=None)]))
    assert "upload" not in silent
    for text in (masked, opened, silent):
        assert "train 1.000, encode 2.000, protocol 3.000, decode 4.000, total 10.000" in text


def finished(**overrides: Any) -> fl.Round:
    settings: dict[str, Any] = {
        "index": 3,
        "params": {},
        "metrics": {"accuracy": 0.925},
        "survivors": (1, 2, 5),
        "epsilon": 1.2345,
        "epsilon_worst_case": 2.0,
        "cost": Cost({}, None, None),
        "reason": None,
    }
    return fl.Round(**{**settings, **overrides})


def test_notes_on_a_round_leave_out_what_there_is_not() -> None:
    assert round_note(finished()) == "accuracy 92.5%, epsilon <= 1.24, 3 clients"
    assert round_note(finished(metrics={})) == "epsilon <= 1.24, 3 clients"
    bare = finished(metrics={}, epsilon=None, survivors=())
    assert round_note(bare) == "0 clients"
