"""WISDM, Beijing air, Shakespeare: rows and windows by hand, no leaks, real files."""

import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl import datasets
from fl.datasets import FederatedDataset, sensors, text
from fl.errors import ChecksumError, DataError, MissingFileError
from tests.fl.originals import DATA_DIR, needs


def window(user: int, activity: str, peak: str = "2500") -> str:
    bins = ",".join(["0.25"] * 30)
    return f"1,{user},{bins},0,9,-5,{peak},1500,500,5,10,0,5,10,0,15,{activity}\r\n"


def test_a_window_by_hand_and_who_is_for_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "@relation r\r\n@attribute class\r\n\r\n@data\r\n"
    users = [
        (33, "Walking", "2500"),
        (4, "Sitting", "?"),
        (9, "Jogging", "?"),
        (36, "Jogging", "1"),
    ]
    content = head + "".join(window(*row) for row in users)
    (tmp_path / sensors.WISDM_FILE.name).write_bytes(content.encode())
    digest = hashlib.sha256(content.encode()).hexdigest()
    file = dataclasses.replace(sensors.WISDM_FILE, sha256=digest, size=len(content))
    monkeypatch.setattr(sensors, "WISDM_FILE", file)
    data = datasets.wisdm(tmp_path)
    assert data.sizes[:2].tolist() == [1, 1]  # user 9 comes before user 33
    assert [data.client(i)["y"].tolist() for i in (0, 1)] == [[1], [0]]
    assert data.test is not None
    assert data.test["y"].tolist() == [4, 1]
    rest = [0.9, -0.5, 1.0, 0, -1, 1, 2, 0, 1, 2, 0, 1, 0, 0, 0]
    np.testing.assert_allclose(data.client(1)["x"][0], [1.5] * 30 + rest, rtol=1e-6)
    assert data.client(0)["x"][0, [32, 42, 43, 44]].tolist() == [0, 1, 0, 0]


@needs("wisdm")
def test_wisdm_by_person() -> None:
    data = datasets.load("wisdm", data_dir=DATA_DIR, clients=None, partition=None, seed=0)
    assert data.test is not None
    assert (data.num_clients, data.num_examples, len(data.test["y"])) == (27, 4_075, 1_343)
    counts = np.bincount(data.fields["y"]) + np.bincount(data.test["y"])
    assert counts.tolist() == [2_081, 1_625, 632, 528, 306, 246]
    assert data.sizes[:4].tolist() == [152, 118, 179, 146]  # users 1, 2, 3, 5
    flags = [part["x"][:, 42:].sum(axis=0) for part in (data.fields, data.test)]
    assert (flags[0] + flags[1]).tolist() == [381, 131, 103]


AIR_HEAD = (
    '"No","year","month","day","hour","PM2.5","PM10","SO2","NO2","CO","O3","TEMP","PRES","DEWP",'
    '"RAIN","wd","WSPM","station"\n'
)


def test_an_hour_by_hand() -> None:
    rows = (
        '1,2013,3,1,6,150,200,60,80,2000,100,25,1020,15,0,"E",3,"A"\n'
        '2,2014,2,1,0,50,NA,NA,NA,NA,NA,NA,NA,NA,NA,NA,NA,"A"\n'
        '3,2014,3,1,0,NA,200,60,80,2000,100,25,1020,15,0,"E",3,"A"\n'
    )
    x, y, months = sensors._station(AIR_HEAD + rows)
    assert y.tolist() == [1.5, 0.5]  # the hour without PM2.5 is left out
    assert months.tolist() == [0, 11]
    turn = 2 * np.pi
    march = [np.sin(turn / 4), np.cos(turn / 4)]
    first = [1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 1, 0, *march, *[0] * 5]
    np.testing.assert_allclose(x[0], first, atol=1e-6)
    february = [np.sin(turn / 6), np.cos(turn / 6)]
    np.testing.assert_allclose(x[1], [*[0] * 12, 0, 1, *february, *[1] * 5], atol=1e-6)


def test_a_wind_of_no_direction_is_refused() -> None:
    row = '1,2013,3,1,6,150,200,60,80,2000,100,25,1020,15,0,"X",3,"A"\n'
    with pytest.raises(DataError, match="wd: got the value 'X'"):
        sensors._station(AIR_HEAD + row)


def test_stations_and_their_months_are_clients_and_the_last_year_is_for_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = "200,60,80,2000,100,25,1020,15,0,N,3,S"
    files = []
    for station, file in enumerate(sensors.AIR_FILES):
        hours = ("2013,3,1,0", "2016,2,29,23", "2016,3,1,0", "2017,2,28,23")
        rows = [f"{k},{hour},{100 * station},{rest}\n" for k, hour in enumerate(hours)]
        content = AIR_HEAD + "".join(rows[: 2 if station == 3 else 4])
        (tmp_path / file.name).write_text(content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        files.append(dataclasses.replace(file, sha256=digest, size=len(content)))
    monkeypatch.setattr(sensors, "AIR_FILES", tuple(files))
    stations, months = (datasets.beijing_air(tmp_path, by=by) for by in ("station", "month"))
    assert stations.sizes.tolist() == [2] * 12
    assert [stations.client(i)["y"].tolist() for i in (0, 11)] == [[0, 0], [11, 11]]
    assert np.flatnonzero(months.sizes).tolist() == [36 * i + k for i in range(12) for k in (0, 35)]
    assert months.num_clients == 432
    for data in (stations, months):
        assert data.test is not None
        assert data.test["y"].tolist() == [i for i in range(12) for _ in range(2) if i != 3]


@pytest.mark.slow
@needs("beijing-air-quality")
def test_beijing_air_by_month() -> None:
    months = datasets.load(
        "beijing-air", data_dir=DATA_DIR, clients=432, partition="natural:month", seed=0
    )
    assert months.test is not None
    assert (months.num_clients, months.num_classes) == (432, None)
    assert months.num_examples + len(months.test["y"]) == 420_768 - 8_739  # hours without PM2.5
    assert months.sizes.max() == 24 * 31
    means = [float(np.asarray(months.client(i)["y"], float).mean()) for i in range(432)]
    assert 0.5 < np.mean(means[:36]) < 0.9
    # The two columns before the flags are the month; 36 clients go from March to February.
    for k in (0, 11, 35, 36 * 7 + 20):
        mine, angle = months.client(k)["x"], 2 * np.pi * (k % 12 + 3) / 12
        expected = np.tile([np.sin(angle), np.cos(angle)], (len(mine), 1))
        np.testing.assert_allclose(np.asarray(mine[:, 14:16], float), expected, atol=1e-6)


@pytest.mark.parametrize("by", ["hour", "", "natural"])
def test_other_clients_of_the_air_are_refused(by: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="partition"):
        datasets.beijing_air(tmp_path, by=by)


def test_symbols_are_a_fixed_alphabet() -> None:
    assert text.NUM_SYMBOLS == len(text.ALPHABET) + 2 == len(set(text.ALPHABET)) + 2
    found = text.symbols("\nAz\u00e9\u20ac")
    assert found.tolist() == [
        2, 2 + text.ALPHABET.index("A"), 2 + text.ALPHABET.index("z"), 1,
        2 + text.ALPHABET.index("?"),
    ]  # fmt: skip


@given(st.integers(0, 400))
def test_windows_hold_every_character_once_and_the_one_that_follows(length: int) -> None:
    sequence = (np.arange(length) % 70 + 2).astype(np.uint8)
    windows = text._windows(sequence)
    assert windows.shape == (-(-max(0, length - 1) // 80), 2, 80)
    x, y = windows[:, 0].ravel(), windows[:, 1].ravel()
    kept = max(0, length - 1)
    assert x[:kept].tolist() == sequence[:-1].tolist()
    assert y[:kept].tolist() == sequence[1:].tolist()
    assert not x[kept:].any()
    assert not y[kept:].any()


PLAY = """<?xml version="1.0"?><PLAY><TITLE>A Play</TITLE><SPEECH><SPEAKER>ANN</SPEAKER>
<LINE>One  <STAGEDIR>Aside</STAGEDIR> two.</LINE><LINE>Three.</LINE></SPEECH>
<SPEECH><SPEAKER/><LINE>Prologue.</LINE></SPEECH>
<SPEECH><SPEAKER>BOB</SPEAKER><SPEAKER>ANN</SPEAKER><LINE>Both.</LINE></SPEECH></PLAY>"""


def test_speeches_of_a_play() -> None:
    assert list(text.speeches(PLAY.encode())) == [
        ("ANN", "One Aside two.\nThree."), ("", "Prologue."), ("BOB / ANN", "Both."),
    ]  # fmt: skip


def plays(folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    """Two small plays in the place of the 37."""
    many = "".join(
        f"<SPEECH><SPEAKER>EVE</SPEAKER><LINE>{'x' * 50}{k}</LINE></SPEECH>" for k in range(10)
    )
    contents = {"b.xml": PLAY.encode(), "a.xml": f"<PLAY>{many}</PLAY>".encode()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(text, "PLAYS", digests)
    if packed:
        with tarfile.open(folder / text.ARCHIVE, "w:gz") as archive:
            for name, content in {**contents, "other.txt": b"no play"}.items():
                entry = tarfile.TarInfo(f"plays/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    else:
        for name, content in contents.items():
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
def test_roles_are_clients_and_late_speeches_are_for_test(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(tmp_path, monkeypatch, packed)
    data = datasets.shakespeare(tmp_path)
    # Eve's first 8 speeches are 8 * 51 + 7 characters, 415, of which the first follows none.
    assert data.sizes.tolist() == [6, 1, 1]
    assert data.fields["x"].dtype == data.fields["y"].dtype == np.uint8
    assert data.test is not None
    assert data.test["x"].shape == (2, 80)  # two speeches and a line end, 103 characters

    def read(windows: Any) -> str:
        return "".join(text.ALPHABET[s - 2] for s in np.ravel(windows).tolist() if s)

    eve = "\n".join("x" * 50 + str(k) for k in range(10))
    assert read(data.client(0)["x"]) == eve[: 8 * 52 - 2]
    assert read(data.client(0)["y"]) == eve[1 : 8 * 52 - 1]
    assert read(data.test["y"]) == eve[8 * 52 + 1 :]
    assert read(data.client(1)["y"]) == "ne Aside two.\nThree."
    assert read(data.client(2)["x"]) == "Both"


def test_a_play_that_is_missing_or_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(tmp_path, monkeypatch, packed=False)
    (tmp_path / "b.xml").write_bytes(PLAY.encode() + b" ")
    with pytest.raises(ChecksumError, match=r"b\.xml: got sha256"):
        datasets.shakespeare(tmp_path)
    (tmp_path / "b.xml").unlink()
    with pytest.raises(MissingFileError, match=r"shakespeare/b\.xml: got no such file"):
        datasets.shakespeare(tmp_path)
    (tmp_path / text.ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(DataError, match="takes a tar of the plays"):
        datasets.shakespeare(tmp_path)


@pytest.fixture(scope="module")
def roles() -> FederatedDataset:
    return datasets.load("shakespeare", data_dir=DATA_DIR, clients=1394, partition=None, seed=0)


@needs("shakespeare")
def test_shakespeare_by_role(roles: FederatedDataset) -> None:
    assert roles.test is not None
    assert (roles.num_clients, roles.num_examples, len(roles.test["x"])) == (1_394, 44_447, 10_580)
    assert roles.num_classes == text.NUM_SYMBOLS == 80
    assert [roles.sizes.min(), np.median(roles.sizes), roles.sizes.max()] == [1, 9, 619]
    for part in (roles.fields, roles.test):
        assert not (part["y"] == text.UNKNOWN).any()  # the alphabet holds every character
        # Within a window, what follows is the next character.
        assert np.array_equal(part["x"][:, 1:], part["y"][:, :-1] * (part["x"][:, 1:] != 0))


@needs("shakespeare")
def test_a_role_says_what_another_reading_of_the_plays_says(roles: FederatedDataset) -> None:
    """speeches.jsonl was made from the XML by other code, with its own rules for white space."""
    said: dict[tuple[str, str], list[str]] = {}
    with gzip.open(DATA_DIR / "shakespeare" / "speeches.jsonl.gz", "rt") as stream:
        for row in map(json.loads, stream):
            if row["speaker"]:
                said.setdefault((f"{row['play']}.xml", row["speaker"]), []).append(row["text"])
    assert len(said) == roles.num_clients
    order = sorted(said)
    for client in (0, 500, 1393):
        speeches = said[order[client]]
        training = "\n".join(speeches[: len(speeches) - len(speeches) // 5])
        symbols = roles.client(client)["x"]
        assert "".join(text.ALPHABET[s - 2] for s in symbols.ravel().tolist() if s) == training[:-1]
