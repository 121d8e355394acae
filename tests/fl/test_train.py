"""The loop: charges before releases, aborts that change nothing, resume, what owners are told."""

import json
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pytest

import fl
from fl import engine as engine_module
from fl import prepare
from fl import round as round_module
from fl.aggregate import Aggregated, aggregate
from fl.secure import SegmentValues
from fl.store import Store
from fl.streams import streams
from fl.train import conclude, start
from fl.training import Training
from fl.types import Purpose
from tests.fl import helpers


def only_round(plan: fl.Plan, data: fl.FederatedDataset) -> fl.Round:
    (finished,) = fl.rounds(plan, helpers.MODEL, data)
    return finished


def take(training: Any) -> fl.Round:
    """The next round, which must be there."""
    finished = training.step()
    assert isinstance(finished, fl.Round)
    return finished


def test_training_learns_and_train_equals_rounds() -> None:
    data = helpers.small_data(num_clients=30, examples=20)
    plan = helpers.plan(rounds=8, aggregation=fl.Plain(), privacy=fl.NotPrivate())
    last = list(fl.rounds(plan, helpers.MODEL, data))[-1]
    run = fl.train(plan, helpers.MODEL, data)
    assert last.metrics["accuracy"] > 0.7
    assert helpers.params_bytes(run.params) == helpers.params_bytes(last.params)
    assert run.metrics == last.metrics
    assert len(run.cost) == 8
    assert run.stopped_early is None


def test_the_plain_mean_is_the_weighted_mean() -> None:
    sizes_mean, uniform_mean = (
        only_round(
            helpers.plan(rounds=1, aggregation=fl.Plain(), privacy=fl.NotPrivate(weights=w)),
            uneven_data(),
        ).params
        for w in ("examples", "uniform")
    )
    assert helpers.params_bytes(sizes_mean) != helpers.params_bytes(uniform_mean)
    for weights, got in [("examples", sizes_mean), ("uniform", uniform_mean)]:
        hidden = helpers.plan(
            rounds=1, privacy=fl.NotPrivate(10.0, weights, max_weight=9), seeded_secrets=True
        )
        through_integers = only_round(hidden, uneven_data())
        for name in ("w", "b"):
            np.testing.assert_allclose(through_integers.params[name], got[name], atol=1e-3)


def uneven_data() -> fl.FederatedDataset:
    rng = np.random.default_rng(5)
    sizes = [1, 9, 9, 0, 1, 9, 1, 1, 0, 1, 1, 9]  # two shapes, hence two compilations
    ids = np.repeat(np.arange(12), sizes)
    y = rng.integers(0, 3, len(ids)).astype(np.int32)
    fields = {"x": (rng.normal(size=(len(ids), 4)) + y[:, None]).astype(np.float32), "y": y}
    return fl.FederatedDataset.from_arrays(
        fields, ids, test=fields, num_clients=12, num_classes=3, name="uneven"
    )


def test_larger_updates_are_scaled_down_and_counted_without_privacy() -> None:
    plan = helpers.plan(rounds=1, privacy=fl.NotPrivate(0.05))
    (r,) = fl.rounds(plan, helpers.MODEL, helpers.small_data())
    assert r.metrics["clipped_clients"] == 12
    norm = np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in r.params.values()))
    assert norm <= 0.05 * (1 + 1e-3)


def test_a_private_plan_divides_by_the_invited() -> None:
    """Noise apart, dropouts shrink the mean: the denominator does not follow the survivors.

    Epsilon 5,000 leaves noise of about a thousandth of the mean. Every client sends the same.
    """
    norms = helpers.released_norms(helpers.privacy(epsilon=5000.0))
    assert [count for count, _ in norms] == [12, 9]
    assert norms[1][1] / norms[0][1] == pytest.approx(9 / 12, abs=0.05)


def test_a_round_below_min_survivors_changes_nothing_but_is_charged() -> None:
    plan = helpers.plan(
        aggregation=helpers.secure(simulate_dropout={"mask_input": 0.6}, beyond=True)
    )
    training = start(plan, helpers.MODEL, helpers.small_data())
    before = helpers.params_bytes(training.state.params)
    for _ in range(3):
        r = take(training)
        assert r.reason is not None
        assert "nothing is released" in r.reason
        assert r.survivors == ()
        assert r.epsilon == 0.0
        assert r.epsilon_worst_case is not None
        assert r.epsilon_worst_case > 0
    assert helpers.params_bytes(training.state.params) == before
    assert training.store.releases() == []
    charged = {(t, a): clients for t, a, clients in training.store.charges()}
    assert charged == {(t, 0): list(range(12)) for t in range(3)}
    assert {row["status"] for row in training.store.rounds()} == {"aborted"}
    assert training.step() is None


def test_clients_gone_before_masking_are_not_charged_later_ones_are() -> None:
    leaving = {"advertise_keys": 0.08, "mask_input": 0.08, "unmask": 0.08}
    plan = helpers.plan(rounds=6, aggregation=helpers.secure(simulate_dropout=leaving))
    training = start(plan, helpers.MODEL, helpers.small_data())
    seen: set[tuple[bool, bool]] = set()
    while (r := training.step()) is not None:
        _, _, charged = training.store.charges()[-1]
        assert set(r.survivors) <= set(charged)
        seen.add((12 - len(charged) > 0, len(charged) - len(r.survivors) > 0))
    assert len(seen) > 1  # early and late leavers both occurred


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_client_with_nan_sends_zero_and_only_its_owner_is_told(bad: float) -> None:
    data = helpers.small_data()
    x = np.array(data.fields["x"], np.float32)
    x[data.client_slice(4)] = bad
    plan = helpers.plan(rounds=2)
    training = start(plan, helpers.MODEL, helpers.small_data(x=x))
    while (r := training.step()) is not None:
        assert r.survivors == tuple(range(12))
        assert np.isfinite(np.asarray(r.params["w"])).all()
    told = training.store._db.execute(
        "select client, round from client_charges where sent_zero"
    ).fetchall()
    assert told == [(4, 0), (4, 1)]
    assert "sent_zero" not in json.dumps(training.store.rounds())


def test_without_privacy_a_client_with_nan_weighs_nothing() -> None:
    data = helpers.small_data()
    x = np.array(data.fields["x"], np.float32)
    x[data.client_slice(4)] = np.nan
    for aggregation in [fl.Plain(), helpers.ideal()]:
        plan = helpers.plan(rounds=1, privacy=fl.NotPrivate(5.0), aggregation=aggregation)
        r = only_round(plan, helpers.small_data(x=x))
        assert np.isfinite(np.asarray(r.params["w"])).all()
        assert np.asarray(r.params["w"]).any()


def test_nobody_with_data_leaves_the_model_alone() -> None:
    data = helpers.small_data(examples=0)
    for aggregation in (fl.Plain(), helpers.ideal()):
        plan = helpers.plan(rounds=1, privacy=fl.NotPrivate(5.0), aggregation=aggregation)
        (r,) = fl.rounds(plan, helpers.MODEL, data)
        assert not np.asarray(r.params["w"]).any()


def test_no_float_and_no_clear_count_leaves_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[SegmentValues] = []

    def spy(aggregation: Any, segments: Any, attempt: Any) -> Aggregated:
        def watched(ids: Any) -> Iterator[tuple[int, SegmentValues]]:
            for client, vectors in attempt.values(ids):
                sent.append(vectors)
                yield client, vectors

        return cast(Aggregated, aggregate(aggregation, segments, attempt._replace(values=watched)))

    monkeypatch.setattr(round_module, "aggregate", spy)
    cases: list[tuple[fl.Privacy | fl.NotPrivate, set[str]]] = [
        (helpers.privacy(), {"update"}),
        (fl.NotPrivate(1.0, "examples", max_weight=5), {"update", "weight", "clipped"}),
    ]
    for privacy, names in cases:
        sent.clear()
        plan = helpers.plan(rounds=1, privacy=privacy, aggregation=helpers.secure())
        list(fl.rounds(plan, helpers.MODEL, helpers.small_data()))
        assert len(sent) == 12
        for segments in sent:
            assert set(segments) == names
            assert all(vector.dtype == np.uint64 for vector in segments.values())


def test_secret_runs_never_repeat_and_seeded_ones_always_do() -> None:
    data = helpers.small_data()
    secret, seeded = (
        [
            helpers.params_bytes(
                fl.train(helpers.plan(rounds=1, seeded_secrets=s), helpers.MODEL, data).params
            )
            for _ in range(2)
        ]
        for s in (False, True)
    )
    assert secret[0] != secret[1]
    assert seeded[0] == seeded[1]


def test_noise_differs_between_rounds_and_clients() -> None:
    """An upper limit on reuse: every stream of a run, secret or seeded, begins differently."""
    for seeded in (False, True):
        plan = helpers.plan(rounds=3, seeded_secrets=seeded)
        beginnings = [
            streams(plan, t, client)(purpose)(32)
            for t in range(3) for client in range(5) for purpose in Purpose
        ]  # fmt: skip
        assert len(set(beginnings)) == len(beginnings)


def test_evaluation_follows_eval_every_and_always_ends_the_run() -> None:
    plan = helpers.plan(rounds=5, eval_every=2)
    evaluated = [
        "accuracy" in r.metrics for r in fl.rounds(plan, helpers.MODEL, helpers.small_data())
    ]
    assert evaluated == [False, True, False, True, True]


def test_a_cyclic_cohort_bounds_releases() -> None:
    plan = helpers.plan(rounds=5, cohort=fl.cohort.cyclic(6))
    training = start(plan, helpers.MODEL, helpers.small_data())
    assert training.resolved.exposure.max_releases == 3
    members = [take(training).survivors for _ in range(5)]
    assert set(members[0]).isdisjoint(members[1])
    assert training.step() is None
    assert training.stopped_early is None


class CrashError(Exception):
    pass


def crash(*args: object, **kwargs: object) -> NoReturn:
    raise CrashError


CRASHES: list[tuple[Any, str]] = [
    (engine_module, "attempt_round"),  # charged, nothing sent
    (Store, "release"),  # summed, not released
    (Store, "note_zeroed"),  # released, owners not told
    (Training, "_apply"),  # released, not stepped
    (Store, "finish_round"),  # stepped, not recorded
]


@pytest.mark.parametrize(("owner", "name"), CRASHES, ids=[name for _, name in CRASHES])
def test_resume_after_a_crash_gives_the_same_model_and_never_undercounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    data = helpers.small_data()
    plan = helpers.plan(rounds=4, seeded_secrets=True, privacy=helpers.privacy(spare_releases=1))
    whole = fl.train(plan, helpers.MODEL, data)
    training = start(plan, helpers.MODEL, data, out=tmp_path)
    training.step()
    training.step()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(CrashError):
            training.step()
    training.store.close()
    resumed = list(fl.rounds(plan, helpers.MODEL, data, out=tmp_path, resume=True))
    assert [r.index for r in resumed] == [2, 3]
    assert helpers.params_bytes(resumed[-1].params) == helpers.params_bytes(whole.params)
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        charges = db.execute("select round, count(*) from client_charges group by round").fetchall()
        releases = db.execute("select round, attempt from releases").fetchall()
    db.close()
    assert dict(charges) == {0: 12, 1: 12, 2: 24, 3: 12}
    assert (2, 1) in releases
    crashed_release = name in ("note_zeroed", "_apply", "finish_round")
    assert ((2, 0) in releases) == crashed_release


def test_without_spare_releases_a_resumed_run_ends_early_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plan = helpers.small_data(), helpers.plan(rounds=3)
    training = start(plan, helpers.MODEL, data, out=tmp_path)
    training.step()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish_round", crash)
        with pytest.raises(CrashError):
            training.step()
    training.store.close()
    resumed = start(plan, helpers.MODEL, data, out=tmp_path, resume=True)
    assert take(resumed).index == 1
    assert resumed.step() is None
    assert resumed.stopped_early is not None
    assert "all 3 releases" in resumed.stopped_early
    row = resumed.statement().rows[0]
    assert row.realised is not None
    assert row.worst_case is not None
    assert row.realised.upper <= row.worst_case.upper
    summary = conclude(resumed, tmp_path)
    assert summary["stopped_early"] == resumed.stopped_early
    assert summary["rounds"] == 2


def test_a_directory_that_holds_a_run_is_refused_and_untouched(tmp_path: Path) -> None:
    data, plan = helpers.small_data(), helpers.plan(rounds=1)
    list(fl.rounds(plan, helpers.MODEL, data, out=tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(fl.StoreError, match="already holds a run"):
        fl.rounds(plan, helpers.MODEL, data, out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resume_refuses_another_plan_or_no_run(tmp_path: Path) -> None:
    data = helpers.small_data()
    list(fl.rounds(helpers.plan(rounds=2), helpers.MODEL, data, out=tmp_path))
    with pytest.raises(fl.StoreError, match="another plan"):
        fl.rounds(helpers.plan(rounds=3), helpers.MODEL, data, out=tmp_path, resume=True)
    with pytest.raises(fl.StoreError, match="holds a run"):
        fl.rounds(helpers.plan(), helpers.MODEL, data, out=tmp_path / "none", resume=True)
    with pytest.raises(fl.StoreError, match="out"):
        fl.rounds(helpers.plan(), helpers.MODEL, data, resume=True)


def test_resume_refuses_another_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = helpers.small_data()
    list(fl.rounds(helpers.plan(rounds=2), helpers.MODEL, data, out=tmp_path))
    monkeypatch.setattr(prepare, "backend", lambda: "gpu: some kind")
    with pytest.raises(fl.StoreError, match="backend"):
        fl.rounds(helpers.plan(rounds=2), helpers.MODEL, data, out=tmp_path, resume=True)


def test_stopping_the_loop_early_still_leaves_a_summary(tmp_path: Path) -> None:
    loop = fl.rounds(helpers.plan(), helpers.MODEL, helpers.small_data(), out=tmp_path)
    next(loop)
    cast(Generator[fl.Round], loop).close()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rounds"] == 1
    assert summary["privacy"]["rows"][0]["epsilon"]["realised"]["upper"] > 0
