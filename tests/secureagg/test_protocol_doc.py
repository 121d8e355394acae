import re
from pathlib import Path

import pytest

from secureagg import messages
from secureagg.primitives import Usage
from secureagg.shamir import SHARE_BYTES

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", TEXT, flags=re.MULTILINE))


@pytest.mark.parametrize("member", [*Usage, *messages.Kind], ids=lambda member: member.name)
def test_numbers_in_the_document_are_those_of_the_code(member):
    assert int(ROWS[member.name]) == member


def test_the_document_names_nothing_else():
    assert set(ROWS) == {member.name for member in (*Usage, *messages.Kind)}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"Header, (\d+) bytes", messages.HEADER_BYTES),
        (r"box \((\d+)\)", messages.BOX_BYTES),
        (r"A box hides (\d+) bytes", messages.SHARE_PAIR_BYTES),
        (r"shares \((\d+) each\)", SHARE_BYTES),
        (r"KEYS body \((\d+)\)", messages.KeyBundle.len_bytes(signed=False)),
    ],
)
def test_lengths_in_the_document_are_those_of_the_code(text, number):
    assert {int(found) for found in re.findall(text, TEXT)} == {number}
