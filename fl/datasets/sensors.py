"""Sensors: activities by the person who carries the phone, air quality by station.

Constants that scale the columns are public, see `fl.datasets._columns`.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.datasets import _columns, _files
from fl.datasets._columns import Column
from fl.datasets.dataset import FederatedDataset
from fl.errors import DataError

WISDM_FILE = _files.TextFile(
    "wisdm",
    "WISDM_ar_v1.1_transformed.arff",
    "https://raw.githubusercontent.com/shubhomoydas/ad_examples/"
    "4f20369f5ab7c9f67b1e6ee1b079dd1ee3c9ecc3/datasets/FordhamActivity/",
    "b083abfe759dea1b8f5eae01f2bef135bbecb25246c8d1eb52afdbfadd3e883a",
    1203558,
)
ACTIVITIES = ("Walking", "Jogging", "Upstairs", "Downstairs", "Sitting", "Standing")
NUM_USERS = 27  # of 36; the other nine are the test set

_AIR_URL = (
    "https://raw.githubusercontent.com/Peiris94-dev/Beijing-Multi-Site-Air-Quality-Analysis/"
    "0aa46c055fcca7da49ebac9329435ffe674b74c3/"
)
# sha256 and size of PRSA_Data_<station>_20130301-20170228.csv.
_STATIONS = {
    "Aotizhongxin": ("a94fbcfc71708b6ffdc033360163d91efb7f675e496f6b5860929aa96b96351b", 2835916),
    "Changping": ("a2e21402a6d95fb7043f87959e6e3dcbecb957aac356a6f8028a85b047c772e7", 2722295),
    "Dingling": ("3d8dff81f18a80d9f455876a785642bffe1e9b9924ec1e6b7ce8cca790432eeb", 2675856),
    "Dongsi": ("9c0020214425e5ee2a64d42f97a1f632e1d8f6b53ad50edd85a686cc7999f27e", 2636684),
    "Guanyuan": ("59390fee3b032597b387491f5230e7edb90a8558e30217ebd6d9befbe669fbf9", 2695860),
    "Gucheng": ("10ae48801ea55869fee56a48b885fb1127859c130551888d71673f34216ba951", 2654625),
    "Huairou": ("812dcbe848b3ba2c2d25731064797bff803c46eb0c602156a1fa044df136dc26", 2641027),
    "Nongzhanguan": ("572cf87b65ef543cd55d3a711b28474def224a46b0ec3fc8add8aaf13b67a487", 2839705),
    "Shunyi": ("520b59e4ead3b0cfe7f1ed673e30275de8441e999db6f413d5172d2277b8c15a", 2620654),
    "Tiantan": ("0743e34799cf1ee36195b73321b91baa5625276532e7263c588f68cdef3b4daa", 2655061),
    "Wanliu": ("0b1a6d754a07f0def2f55434ddfa3870dcd0063b7f766a6f66b6c11bb05a377a", 2659544),
    "Wanshouxigong": ("ab1d6a356d6997a45f6d657ad47de1e05a4a08d4a7015b38a329a90665ab74d0", 2871076),
}
AIR_FILES = tuple(
    _files.TextFile(
        "beijing-air-quality", f"PRSA_Data_{station}_20130301-20170228.csv", _AIR_URL, digest, size
    )
    for station, (digest, size) in _STATIONS.items()
)
STATIONS = tuple(_STATIONS)
AIR_KEYS = ("station", "month")
_TRAIN_MONTHS = 36  # 2013-03 to 2016-02; the last year is the test set
_WINDS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE",
          "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")  # fmt: skip


def wisdm(data_dir: Path) -> FederatedDataset:
    """WISDM v1.1: which of six activities was it, from ten seconds of a phone's accelerometer?

    36 people carried the phone. Those whose number is a multiple of 4 are the test set, so nobody
    in it is a client; client i is the i-th other person by number. Windows do not overlap.

    The published features: shares of the samples per bin and axis (times 10, minus 1), averages and
    deviations in m/s^2 over 10 and 5, times between peaks in seconds minus 1.5. The average of the
    x axis is left out, it is 0 in the whole file. A missing peak counts as 1.5 s, and a column per
    axis says so: missing peaks go with standing still.
    Source: Kwapisz, Weiss, Moore 2010, SensorKDD; the WISDM Lab asks to be cited and that its
    readme goes with every copy of the data.

    Args:
        data_dir: the folder that holds the file, or that holds `wisdm/` with it.

    Returns:
        "x" float32 [N, 45] and "y" int32 [N] in [0, 6), in the order of `ACTIVITIES`.

    Raises:
        MissingFileError: the file is not there.
        ChecksumError: the file is not the published one.
    """
    lines = _files.read_text(WISDM_FILE, data_dir).splitlines()
    rows = [line.split(",") for line in lines[lines.index("@data") + 1 :] if line]
    cells = list(zip(*rows, strict=True))
    user = np.array(cells[1], np.int64)
    columns = [_columns.numbers(values, "?") for values in cells[2:45]]
    peaks, deviations = columns[33:36], columns[36:42]
    x = _columns.table(
        *(10 * share - 1 for share in columns[:30]),
        *(average / 10 for average in columns[31:33]),
        *(_columns.scaled(peak, 1500, 1000) for peak in peaks),
        *(deviation / 5 for deviation in deviations),
        _columns.scaled(columns[42], 10, 5),
        *map(_columns.missing, peaks),
    )
    y = _columns.codes(cells[45], ACTIVITIES, "class").astype(np.int32)
    held_out = user % 4 == 0
    return FederatedDataset.from_arrays(
        {"x": x[~held_out], "y": y[~held_out]},
        np.unique(user[~held_out], return_inverse=True)[1].astype(np.int64),
        test={"x": x[held_out], "y": y[held_out]},
        num_clients=NUM_USERS,
        num_classes=len(ACTIVITIES),
        name="wisdm",
    )


def beijing_air(data_dir: Path, *, by: str = "station") -> FederatedDataset:
    """Beijing air quality: how much PM2.5 is there, from the other readings of that hour?

    Twelve stations, hourly from March 2013 to February 2017; the last year of every station is the
    test set. Hours without a PM2.5 reading are left out. Features are PM10, SO2, NO2, CO, O3,
    temperature, pressure, dew point, log(1 + rain), wind speed, its direction, the hour and the
    month as sine and cosine. A missing reading counts as the centre, and a column per gas says so.
    Source: Zhang et al. 2017, Proc. R. Soc. A 473:20170457, doi:10.24432/C5RK5G.

    Args:
        data_dir: the folder that holds the files, or that holds `beijing-air-quality/` with them.
        by: "station" for 12 clients in the order of `STATIONS`; "month" for 432, one per station
            and month of training, so that privacy is about what a station saw in a month.

    Returns:
        "x" float32 [N, 21] and "y" float32 [N], PM2.5 in units of 100 micrograms per cubic metre.

    Raises:
        MissingFileError: a file is not there.
        ChecksumError: a file is not the published one.
        DataError: `by` is something else.
    """
    if by not in AIR_KEYS:
        raise DataError("partition", f"natural:{by}", f"natural:KEY with one of {AIR_KEYS}")
    parts = [_station(_files.read_text(file, data_dir)) for file in AIR_FILES]
    x, y, months = (np.concatenate(column) for column in zip(*parts, strict=True))
    stations = np.repeat(np.arange(len(parts)), [len(part[1]) for part in parts])
    held_out = months >= _TRAIN_MONTHS
    ids = stations if by == "station" else stations * _TRAIN_MONTHS + months
    return FederatedDataset.from_arrays(
        {"x": x[~held_out], "y": y[~held_out]},
        ids[~held_out],
        test={"x": x[held_out], "y": y[held_out]},
        num_clients=len(parts) * (1 if by == "station" else _TRAIN_MONTHS),
        name="beijing-air",
    )


def _station(
    text: str,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features [N, 21], PM2.5 [N] and months since March 2013 [N] of the hours that have PM2.5."""
    lines = text.splitlines()
    names = [name.strip('"') for name in lines[0].split(",")]
    numeric = [k for k, name in enumerate(names) if name not in ("wd", "station")]
    body = (line.replace("NA", "nan") for line in lines[1:])
    cells = np.loadtxt(body, delimiter=",", usecols=numeric, ndmin=2)
    columns = dict(zip((names[k] for k in numeric), cells.T, strict=True))

    gases = [columns[name] for name in ("PM10", "SO2", "NO2", "CO", "O3")]
    centres = ((100, 100), (20, 40), (50, 30), (1000, 1000), (50, 50))
    place = names.index("wd")
    winds = [line.split(",")[place].strip('"') for line in lines[1:]]
    wind = _columns.codes(winds, _WINDS, "wd", "NA")
    x = _columns.table(
        *(_columns.scaled(gas, *centre) for gas, centre in zip(gases, centres, strict=True)),
        _columns.scaled(columns["TEMP"], 15, 10),
        _columns.scaled(columns["PRES"], 1010, 10),
        _columns.scaled(columns["DEWP"], 0, 15),
        _columns.scaled(np.log1p(columns["RAIN"]), 0, 1),
        _columns.scaled(columns["WSPM"], 2, 1),
        *(np.where(wind < 0, 0.0, turn) for turn in _turn(wind, len(_WINDS))),
        *_turn(columns["hour"], 24),
        *_turn(columns["month"], 12),
        *map(_columns.missing, gases),
    )
    months = 12 * (columns["year"] - 2013) + columns["month"] - 3
    target = columns["PM2.5"]
    there = ~np.isnan(target)
    y = (target[there] / 100).astype(np.float32)
    return x[there], y, months[there].astype(np.int64)


def _turn(position: npt.NDArray[np.generic], period: int) -> tuple[Column, Column]:
    """Sine and cosine of a position on a circle of `period` positions."""
    angle = position.astype(np.float64) * (2 * np.pi / period)
    return np.sin(angle), np.cos(angle)
