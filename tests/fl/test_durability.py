"""What a run keeps when processes die, meet, or come back with other numbers."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import dp
import fl
from fl.statement import worst_case
from fl.store import FILE, RUN_FILES, Store
from fl.train import start
from tests.fl import helpers
from tests.fl.helpers import params_bytes


class CrashError(Exception):
    """Stands for the end of the process."""


def crash(*args: object, **kwargs: object) -> None:
    raise CrashError


def test_one_process_at_a_time_holds_a_run(tmp_path: Path) -> None:
    data, plan = helpers.small_data(), helpers.plan()
    first = start(plan, helpers.MODEL, data, out=tmp_path)
    first.step()
    with pytest.raises(fl.StoreError, match="another process holds"):
        start(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    with pytest.raises(fl.StoreError, match="already holds a run"):
        start(plan, helpers.MODEL, data, out=tmp_path)
    first.store.close()
    second = start(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    assert second.next_round == 1
    second.store.close()


def test_what_was_released_keeps_its_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, plan = helpers.small_data(), helpers.plan()
    genuine = dp.smallest_parameter
    with monkeypatch.context() as patch:
        patch.setattr(
            dp, "smallest_parameter", lambda f, *, epsilon: genuine(f, epsilon=epsilon) / 2
        )
        cheap = start(plan, helpers.MODEL, data, out=tmp_path)
        cheap.step()
        cheap.store.close()
    with pytest.raises(fl.StoreError, match="another plan"):
        start(plan, helpers.MODEL, data, out=tmp_path, resume=True)


def test_the_release_is_on_record_before_anything_is_unmasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = helpers.small_data()
    plan = helpers.plan(aggregation=helpers.secure(), privacy=helpers.privacy(spare_releases=1))
    training = start(plan, helpers.MODEL, data, out=tmp_path)
    training.step()
    monkeypatch.setattr("secureagg.recovery.close_unmask", crash)
    with pytest.raises(CrashError):
        training.step()
    training.store.close()
    monkeypatch.undo()
    resumed = start(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    assert [key[:2] for key in resumed.store.releases()] == [(0, 0), (1, 0)]
    while resumed.step() is not None:
        pass
    row = resumed.statement().rows[0]
    assert row.worst_case is not None
    assert row.realised is not None
    three = fl.train(helpers.plan(aggregation=helpers.secure()), helpers.MODEL, data)
    uninterrupted = three.privacy.rows[0].realised
    assert uninterrupted is not None
    assert row.realised.upper > row.worst_case.upper * 0.8  # four releases of four, not three
    resumed.store.close()


@pytest.mark.parametrize("spare", [0, 2])
def test_training_ends_before_the_round_that_would_exceed_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    """However often a run crashes after a charge, its figure stays within its target of 8."""
    data = helpers.small_data()
    plan = helpers.plan(rounds=4, privacy=helpers.privacy(spare_releases=spare))
    training, finished = start(plan, helpers.MODEL, data, out=tmp_path), []
    while (after := training.step()) is not None:
        finished.append(after)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "finish_round", crash)
            with contextlib.suppress(CrashError):
                training.step()
        training.store.close()
        training = start(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    assert f"all {4 + spare} releases" in str(training.stopped_early)
    assert len(finished) == (4 + spare) // 2  # every second charge was for a crash
    spent = [after.epsilon_worst_case for after in finished]
    exposure = training.resolved.exposure
    everything = worst_case(exposure, "server", 1e-3, 4 + spare).upper
    one_more = worst_case(exposure, "server", 1e-3, 5 + spare).upper
    assert all(one is not None and one <= everything <= 8.0 < one_more for one in spent)
    assert training._books.so_far()[1] == everything
    training.store.close()


def test_the_store_is_read_with_pandas_in_one_line(tmp_path: Path) -> None:
    """The line of docs/running.md."""
    pandas = pytest.importorskip("pandas", reason="needs the extra 'tables'")
    fl.train(helpers.plan(), helpers.MODEL, helpers.small_data(), out=tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection:
        found = pandas.read_sql("select * from rounds", connection)
    assert found["round"].tolist() == [0, 1, 2]
    assert found["survivors"].tolist() == [12, 12, 12]
    assert found["epsilon_worst_case"].is_monotonic_increasing


def test_attempts_end_where_the_protocols_failure_is_no_longer_covered(tmp_path: Path) -> None:
    """Every early leaver keeps its releases, so attempts need a limit of their own."""
    data = helpers.small_data()
    plan = helpers.plan(rounds=2, privacy=helpers.privacy(spare_releases=1))
    training = start(plan, helpers.MODEL, data, out=tmp_path)
    assert training.resolved.params is not None
    limit = training.resolved.params.rounds
    assert limit == 3
    for attempt in range(limit):  # nobody but client 0 got as far as masking in these
        training.store.charge(0, attempt, [0] if attempt == 0 else [attempt])
    assert training.step() is None
    assert "attempts" in str(training.stopped_early)
    training.store.close()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"privacy": fl.NotPrivate(5.0), "aggregation": fl.Plain()},
        {"privacy": fl.NotPrivate(5.0), "aggregation": helpers.ideal()},
    ],
    ids=["private", "not private, plain", "not private, ideal"],
)
def test_a_seeded_run_resumes_to_the_same_model_without_spare_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    data, plan = helpers.small_data(), helpers.plan(seeded_secrets=True, **changes)
    whole = fl.train(plan, helpers.MODEL, data)
    training = start(plan, helpers.MODEL, data, out=tmp_path)
    training.step()
    monkeypatch.setattr(type(training.store), "finish_round", crash)
    with pytest.raises(CrashError):
        training.step()
    training.store.close()
    monkeypatch.undo()
    *_, last = fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    assert params_bytes(last.params) == params_bytes(whole.params)


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_directory_with_any_file_of_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("kept")
    with pytest.raises(fl.StoreError, match="already holds a run"):
        fl.rounds(helpers.plan(), helpers.MODEL, helpers.small_data(), out=tmp_path)
    assert (tmp_path / name).read_text() == "kept"


def test_directories_that_cannot_be_used_are_typed_errors(tmp_path: Path) -> None:
    data = helpers.small_data()
    blocked = tmp_path / "file"
    blocked.write_text("")
    for out in (blocked, blocked / "below"):
        with pytest.raises(fl.StoreError, match="out"):
            fl.rounds(helpers.plan(), helpers.MODEL, data, out=out)
    for content in (b"no database at all, but long enough" * 10, b""):
        broken = tmp_path / f"broken-{len(content)}"
        broken.mkdir()
        (broken / FILE).write_bytes(content)
        with pytest.raises(fl.StoreError):
            fl.rounds(helpers.plan(), helpers.MODEL, data, out=broken, resume=True)


def test_kill_nine_then_resume_gives_the_uninterrupted_model(tmp_path: Path) -> None:
    """A real process, really killed, three times; the moments are wherever training stands."""
    script = textwrap.dedent(
        """
        import sys, fl
        from tests.fl import helpers
        plan = helpers.plan(rounds=40, seeded_secrets=True)
        for r in fl.rounds(plan, helpers.MODEL, helpers.small_data(), out=sys.argv[1],
                           resume=sys.argv[2] == "resume"):
            print(r.index, flush=True)
        """
    )
    out, root = tmp_path / "run", Path(__file__).parents[2]
    for kill, mode in enumerate(["begin", "resume", "resume"]):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(out), mode],
            cwd=root, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(0.002 * (kill + 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    data, plan = helpers.small_data(), helpers.plan(rounds=40, seeded_secrets=True)
    *_, last = fl.rounds(plan, helpers.MODEL, data, out=out, resume=True)
    whole = fl.train(plan, helpers.MODEL, data)
    assert params_bytes(last.params) == params_bytes(whole.params)
    with sqlite3.connect(out / FILE) as db:
        finished = [r for (r,) in db.execute("select round from rounds order by round")]
        charged = {r for (r,) in db.execute("select distinct round from client_charges")}
    db.close()
    assert finished == list(range(40))
    assert charged == set(range(40))


def test_a_large_checkpoint_is_a_file_beside_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl.store.INLINE_BYTES", 100)
    data, plan = helpers.small_data(), helpers.plan(rounds=4, seeded_secrets=True)
    whole = fl.train(plan, helpers.MODEL, data)
    training = start(plan, helpers.MODEL, data, out=tmp_path)
    training.step()
    training.step()
    training.close()
    (file,) = tmp_path.glob("checkpoint-*.npz")
    assert file.name == "checkpoint-1.npz"
    kept = file.read_bytes()
    for broken in (None, kept[:-1], kept[:200] + b"?" + kept[201:]):
        file.unlink()
        if broken is not None:
            file.write_bytes(broken)
        with pytest.raises(fl.StoreError, match="checkpoint"):
            fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True)
        file.touch()
    file.write_bytes(kept)
    (tmp_path / "checkpoint-2.npz").write_bytes(b"written, but never named by the store")
    *_, last = fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    assert params_bytes(last.params) == params_bytes(whole.params)
    assert [path.name for path in tmp_path.glob("checkpoint-*.npz")] == ["checkpoint-3.npz"]


def test_pandas_reads_a_store_in_one_line(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    fl.train(helpers.plan(rounds=3), helpers.MODEL, helpers.small_data(), out=tmp_path)
    with sqlite3.connect(tmp_path / FILE) as db:
        table = pandas.read_sql("select * from rounds", db)
    db.close()
    assert table["round"].tolist() == [0, 1, 2]
    assert set(table["status"]) == {"released"}
    assert (table["epsilon"].diff().dropna() > 0).all()
