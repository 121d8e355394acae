"""Every file of examples/ runs, and prints what its reader is told to expect.

The cheap ones run with --quick in every test run, and all but one in full among the slow tests. The
lines that must be found are looked for in order.
"""

import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fl.originals import DATA_DIR

EXAMPLES = Path(__file__).parents[1] / "examples"


class Example(NamedTuple):
    """What one file takes, and what it must print.

    Attributes:
        lines: patterns of lines, in order of appearance.
        folder: of the data directory that it reads, or None.
        module: that it needs beside the extra `data`, or None.
        more: further arguments; "OUT" stands for a new directory.
        quick: whether it knows --quick.
        cheap: whether it then takes a few seconds.
        long: whether it takes many minutes without.
        accuracy: that the full run must reach in its last figure, in per cent.
    """

    lines: tuple[str, ...]
    folder: str | None = None
    module: str | None = None
    more: tuple[str, ...] = ()
    quick: bool = True
    cheap: bool = False
    long: bool = False
    accuracy: float = 0.0


NO_FIGURE = r"server: no figure: no noise is added"
FIGURE = r"server: epsilon planned <= {0}, .*worst case <= {0} at delta"
CASES = {
    "first_lesson": Example(
        (
            r"device 2 holds \[.*\], the server sees",
            r"the sum of devices \(0, 1, 2\)",
            r"by at most \de-0[67]",
            r"the sum of devices \(0, 1\)",
        ),
        quick=False,
        cheap=True,
        accuracy=80,
    ),
    "histograms": Example(
        ("server: semi_honest", "equal to the sum", "server: malicious", "equal to the sum"),
        cheap=True,
    ),
    "accounting": Example(
        (
            r"1\.82\d+ <= epsilon <= 1\.82\d+ at delta 1e-05",
            r"bounds the same run by 2\.10",
            r"noise multiplier of 0\.959",
            "90 survivors: epsilon <= 5.440",
            r"refused: client 0, .* all 2 releases",
        ),
        quick=False,
        cheap=True,
    ),
    "auditing": Example(
        (
            "300 canaries joined 100 clients",
            r"^server: \d+ right, so epsilon is at least \d\.\d+ .* at most 8\.00",
            "the claim stands",
            "^outsider:",
            "the claim stands",
        ),
    ),
    "hospitals": Example(
        ("va: 134 patients", FIGURE.format("2.00"), r"epsilon so far (1\.9|2\.0)"),
        folder="heart-disease",
        cheap=True,
        accuracy=70,
    ),
    "finance": Example(
        ("no default': 78.5%", "^private: accuracy", FIGURE.format("4.00"), NO_FIGURE),
        folder="credit-card-default",
        accuracy=79,
    ),
    "iot": Example(
        ("27 clients with 64 to 229", FIGURE.format("8.00"), r"round 0: 2\d of 27 sent"),
        folder="wisdm",
    ),
    "iot air": Example(
        ("12 clients with", NO_FIGURE, r"round 0: 1\d of 12 sent, mae 0\.\d+"),
        folder="beijing-air-quality",
        more=("--task", "air"),
    ),
    "text": Example(
        ("1394 roles with 44,447", "of next characters right", "It writes: 'To be, or not to be"),
        folder="shakespeare",
        long=True,
    ),
    "flax_model": Example(
        (r"accuracy \d", FIGURE.format("8.00")), module="flax", accuracy=80
    ),
    "equinox_model": Example(
        (r"accuracy \d", FIGURE.format("8.00")), module="equinox", accuracy=80
    ),
    "export_orbax": Example(
        ("read back, bit for bit the same: True", r"privacy\.json"),
        module="orbax",
        more=("OUT",),
        accuracy=80,
    ),
}  # fmt: skip


def run(name: str, tmp_path: Path, *, quick: bool, capsys, monkeypatch) -> str:
    """Runs an example in this process, as `python examples/NAME.py` would; returns what it says."""
    case = CASES[name]
    if case.module and find_spec(case.module) is None:
        pytest.skip(f"needs {case.module}")
    words = [str(tmp_path / "out") if word == "OUT" else word for word in case.more]
    if case.folder is not None:
        if not (DATA_DIR / case.folder).is_dir():
            pytest.skip(f"needs the files of {case.folder}: FL_DATA_DIR")
        words += ["--data-dir", str(DATA_DIR)]
    path = EXAMPLES / f"{name.split()[0]}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *words, *(["--quick"] if quick else [])])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    said: str = capsys.readouterr().out
    lines = said.splitlines()
    for pattern in case.lines:
        found = next((i for i, line in enumerate(lines) if re.search(pattern, line)), None)
        assert found is not None, f"{pattern!r} is not, or not in this order, in:\n{said}"
        lines = lines[found + 1 :]
    return said


def test_no_example_is_forgotten() -> None:
    assert {name.split()[0] for name in CASES} == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_a_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert f"python examples/{path.name}" in text.partition('"""\n\n')[0]  # says how it is run


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.cheap])
def test_example(name: str, tmp_path: Path, capsys, monkeypatch) -> None:
    run(name, tmp_path, quick=CASES[name].quick, capsys=capsys, monkeypatch=monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_example_in_full(name: str, tmp_path: Path, capsys, monkeypatch) -> None:
    said = run(name, tmp_path, quick=CASES[name].long, capsys=capsys, monkeypatch=monkeypatch)
    if floor := CASES[name].accuracy:
        assert float(re.findall(r"accuracy.* (\d+\.\d)%", said)[-1]) > floor
