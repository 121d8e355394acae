"""docs/sharp_edges.md: every guard exists, and only what nobody can guard has none."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs" / "sharp_edges.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| edge")
]
UNGUARDED = {
    "Means, scales or vocabularies taken from private data",
    "Time to round, and to train",
    "A client that sends what it likes",
}


def test_guards_exist():
    assert len(ROWS) > 25
    for row in ROWS:
        assert len(row) == 4, row[0]
        for name in re.findall(r"`([^`]+)`", row[3]):
            path, _, test = name.partition("::")
            assert (ROOT / path).is_file(), name
            if test:
                text = (ROOT / path).read_text()
                assert re.search(rf"^def {test}\(", text, re.MULTILINE), name


def test_only_what_nobody_can_guard_has_no_guard():
    assert {row[0] for row in ROWS if row[3] == "-"} == UNGUARDED
    assert all("::" in row[3] for row in ROWS if row[0] not in UNGUARDED)
