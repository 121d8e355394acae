"""Events for TensorBoard: the figures of the store, and nothing that a plan keeps to itself."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fl
from fl import __main__ as command
from fl.store import Store
from fl.tensorboard import scalars
from fl.train import start
from tests.fl import helpers

pytest.importorskip("tensorboardX", reason="needs the extra 'tensorboard'")

Scalars = dict[str, dict[int, float]]  # tag -> step -> value


def events(path: Path) -> Iterator[Any]:
    """The records of one file: length and data, each with a checksum that is skipped."""
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def files(out: Path) -> list[Path]:
    return sorted((out / "tensorboard").iterdir())


def read(path: Path) -> Scalars:
    found: Scalars = {}
    first, *rest = events(path)
    assert first.file_version == "brain.Event:2"
    for event in rest:
        for value in event.summary.value:
            steps = found.setdefault(value.tag, {})
            assert event.step not in steps
            steps[event.step] = value.simple_value
    return found


def stored(out: Path) -> list[dict[str, Any]]:
    store = Store.open(out)
    rows = store.rounds()
    store.close()
    return rows


def test_the_events_are_the_rows_of_the_store(tmp_path: Path) -> None:
    plan = helpers.plan(rounds=4, eval_every=2)
    fl.train(plan, helpers.MODEL, helpers.small_data(), out=tmp_path, tensorboard=True)
    rows = stored(tmp_path)
    (path,) = files(tmp_path)
    found = read(path)
    evaluated = {row["round"]: row["metrics"]["accuracy"] for row in rows if row["metrics"]}
    assert list(evaluated) == [1, 3]
    assert found["metrics/accuracy"] == pytest.approx(evaluated)
    for tag, values in {
        "privacy/epsilon_worst_case": [row["epsilon_worst_case"] for row in rows],
        "round/survivors": [row["survivors"] for row in rows],
        "seconds/train": [row["seconds"]["train"] for row in rows],
        "seconds/protocol": [row["seconds"]["protocol"] for row in rows],
    }.items():
        assert found[tag] == pytest.approx(dict(enumerate(values)), rel=1e-6), tag
    assert all("clients" not in tag for tag in found)


def test_uploads_are_events_where_bytes_are_sent(tmp_path: Path) -> None:
    plan = helpers.plan(rounds=2, aggregation=helpers.secure())
    fl.train(plan, helpers.MODEL, helpers.small_data(), out=tmp_path, tensorboard=True)
    uploaded = {row["round"]: row["upload_bytes"] for row in stored(tmp_path)}
    assert uploaded[1] > 0
    assert read(files(tmp_path)[0])["round/upload_bytes"] == uploaded


@pytest.mark.parametrize(
    ("privacy", "prefix"),
    [(helpers.privacy(), "clients_outside_the_guarantee"), (fl.NotPrivate(1.0), "clients")],
)
def test_figures_over_clients_say_what_protects_them(
    tmp_path: Path, privacy: fl.Privacy | fl.NotPrivate, prefix: str
) -> None:
    plan = helpers.plan(rounds=1, privacy=privacy, client_metrics=True)
    fl.train(plan, helpers.MODEL, helpers.small_data(), out=tmp_path, tensorboard=True)
    (row,) = stored(tmp_path)
    found = read(files(tmp_path)[0])
    of_clients = {tag: value for tag, value in found.items() if tag.startswith("clients")}
    assert of_clients == {
        f"{prefix}/{name}": {0: np.float32(value)} for name, value in row["client_metrics"].items()
    }
    assert of_clients


def test_secret_cohorts_show_neither_who_took_part_nor_how_long_it_took(tmp_path: Path) -> None:
    plan = helpers.plan(
        rounds=3,
        cohort=fl.cohort.poisson(0.5),
        privacy=helpers.privacy(against="outsider", mechanism="gaussian"),
        aggregation=fl.Plain(),
    )
    fl.train(plan, helpers.MODEL, helpers.small_data(200, 1), out=tmp_path, tensorboard=True)
    (path,) = files(tmp_path)
    assert {tag.split("/")[0] for tag in read(path)} == {"metrics", "privacy"}
    assert len({event.wall_time for event in events(path)}) == 1


def test_a_resumed_run_writes_a_file_that_is_whole_by_itself(tmp_path: Path) -> None:
    """A crash after a commit and before its event leaves no gap."""
    data, plan = helpers.small_data(), helpers.plan(rounds=3)
    training = start(plan, helpers.MODEL, data, out=tmp_path, tensorboard=True)
    training.step()
    training.close()
    list(fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True, tensorboard=True))
    first, second = files(tmp_path)
    rows = stored(tmp_path)
    assert list(read(first)["round/survivors"]) == [0]
    assert read(second)["metrics/loss"] == pytest.approx(
        {row["round"]: row["metrics"]["loss"] for row in rows}
    )
    kinds = [event.WhichOneof("what") for event in events(second)]
    assert kinds == ["file_version", "session_log", "summary", "summary", "summary"]
    assert [event.step for event in events(second)] == [0, 0, 0, 1, 2]


def test_numbers_that_are_not_finite_have_no_event() -> None:
    row = {
        "metrics": {"loss": None, "accuracy": float("nan"), "mae": 1.0},
        "client_metrics": None,
        "epsilon_worst_case": None,
        "seconds": {"train": 0.5},
        "survivors": 3,
        "upload_bytes": None,
    }
    found = scalars(row, private=False, secret_cohort=False)
    assert found == {"metrics/mae": 1.0, "seconds/train": 0.5, "round/survivors": 3.0}


def test_without_the_extra_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    out = tmp_path / "run"
    with pytest.raises(fl.MissingExtraError, match=r"private-aggregation\[tensorboard\]"):
        fl.rounds(helpers.plan(), helpers.MODEL, helpers.small_data(), out=out, tensorboard=True)
    assert not out.exists()


def test_a_run_that_keeps_nothing_has_no_events() -> None:
    with pytest.raises(fl.StoreError, match=r"tensorboard: got a run that keeps nothing; takes"):
        fl.rounds(helpers.plan(), helpers.MODEL, helpers.small_data(), tensorboard=True)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(fl.StoreError, match=r"tensorboard: got .*; takes a directory"):
        list(
            fl.rounds(
                helpers.plan(rounds=1), helpers.MODEL, helpers.small_data(), out=tmp_path,
                tensorboard=True,
            )
        )  # fmt: skip


def test_every_run_of_a_sweep_has_its_own_events(tmp_path: Path) -> None:
    plan, data = helpers.plan(rounds=1), helpers.small_data()
    fl.sweep(plan, helpers.MODEL, data, seeds=[3, 4], out=tmp_path, tensorboard=True)
    (three,), (four,) = files(tmp_path / "seed-3"), files(tmp_path / "seed-4")
    assert read(three)["metrics/loss"] != read(four)["metrics/loss"]


def test_the_command_line_writes_events_and_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_write_report", lambda out: None)  # it takes seconds
    words = [
        "train", "--preset", "digits-demo", "--rounds", "1", "--clients", "10",
        "--partition", "iid", "--aggregation", "plain", "--no-dp", "--tensorboard",
    ]  # fmt: skip
    assert command.main([*words, "--out", str(tmp_path)]) == 0
    assert command.main(["resume", str(tmp_path)]) == 0
    first, second = files(tmp_path)
    assert read(first) == read(second)
    assert "metrics/accuracy" in read(first)
