"""The hand-written lists of promises are complete, real and documented."""

import inspect
from types import ModuleType

import pytest

import dp
import fl
import secureagg

PACKAGES = (secureagg, dp, fl)
PROMISED = {
    secureagg: {
        "Segment", "Params", "choose_params", "STAGES", "run_round", "ClientSession",
        "ServerSession", "outcome", "MemoryOnce",
    },
    dp: {
        "GaussianEvent", "DiscreteGaussianEvent", "DiscreteGaussianSumEvent", "SkellamEvent",
        "SelfComposedEvent", "ComposedEvent", "epsilon", "delta", "calibrate", "Interval",
        "NeighboringRelation", "discrete_gaussian", "skellam", "clip_l2", "Ledger", "audit_one_run",
    },
    fl: {
        "Model", "FederatedDataset", "Algorithm", "fedavg", "cohort", "Privacy", "NotPrivate",
        "Plain", "Ideal", "Secure", "Plan", "resolve", "rounds", "train", "Job",
    },
}  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_what_the_design_promises_is_there(package: ModuleType) -> None:
    assert PROMISED[package] <= set(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_every_promise_exists_once_and_in_order(package: ModuleType) -> None:
    names = list(package.__all__)
    assert len(names) == len(set(names))
    assert all(hasattr(package, name) for name in names)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_nothing_public_is_missing_from_the_list(package: ModuleType) -> None:
    own = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert own <= set(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.__name__)
def test_every_public_function_and_class_says_what_it_does(package: ModuleType) -> None:
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
            assert inspect.getdoc(value), name
