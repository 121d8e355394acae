"""Errors name the field, what it got and what it takes, and survive a trip between processes."""

import pickle

import pytest

from fl import errors

EVERY = [
    errors.PlanError(("rounds: got 0; takes at least 1", "seed: got -1; takes 0 or more")),
    errors.DataError("clients", 0, "at least 1"),
    errors.ChecksumError("a.gz", "sha256 00", "sha256 ff"),
    errors.MissingFileError("a.gz", "no such file", "a download"),
    errors.MissingExtraError("report.html", "report"),
    errors.StoreError("out", "a run", "an empty folder"),
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: errors.FlError):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_plan_lists_all_faults_one_per_line():
    assert str(EVERY[0]).splitlines() == [
        "rounds: got 0; takes at least 1",
        "seed: got -1; takes 0 or more",
    ]


def test_messages_name_field_got_and_takes():
    assert errors.fault("alpha", float("nan"), "a number") == "alpha: got nan; takes a number"
    assert str(EVERY[1]) == "clients: got 0; takes at least 1"
    assert str(EVERY[5]) == "out: got a run; takes an empty folder"
    assert "pip install 'private-aggregation[report]'" in str(EVERY[4])


def test_file_errors_are_data_errors():
    for kind in (errors.ChecksumError, errors.MissingFileError):
        assert issubclass(kind, errors.DataError)
    assert not issubclass(errors.MissingExtraError, errors.DataError)
