import re
from pathlib import Path

import pytest

from secureagg import messages, server_session, session
from secureagg.primitives import SIGNATURE_BYTES, Usage
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
        (r"malicious: (\d+)\)", messages.KeyBundle.len_bytes(signed=True)),
        (r"A box hides (\d+) bytes", messages.SHARE_PAIR_BYTES),
        (r"shares \((\d+) each\)", SHARE_BYTES),
        (r"KEYS body \((\d+);", messages.KeyBundle.len_bytes(signed=False)),
        (r"signature \((\d+)\)", SIGNATURE_BYTES),
    ],
)
def test_lengths_in_the_document_are_those_of_the_code(text, number):
    assert {int(found) for found in re.findall(text, TEXT)} == {number}


def diagram(name) -> list[str]:
    """The two lines that the tables of stages amount to."""
    malicious = name == "malicious"
    steps = session.MALICIOUS_STEPS if malicious else session.CLIENT_STEPS
    client = ["Invited --start--> "]
    client += [f"{state.__name__} --{step.kind.name}--> " for state, step in steps.items()]
    kinds = [
        f"{state.__name__} --{kind.name}--> "
        for state, (stage, kind) in server_session._SERVER_KINDS.items()
        if malicious or stage != "check_consistency"
    ]
    return [name, "client:  " + "".join(client) + "Revealed",
            "server:  " + "".join(kinds) + "Finished"]  # fmt: skip


def test_the_diagram_is_that_of_the_tables():
    block = TEXT.split("```\n")[1].splitlines()
    assert block == [*diagram("semi_honest"), *diagram("malicious")]


def test_tests_that_the_document_names_exist():
    here = Path(__file__).parent
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`(?:, `::(\w+)`)*", TEXT)
    assert len(named) > 12
    for file, *names in named:
        source = (here / file).read_text(encoding="utf-8")
        assert all(f"def {name}(" in source for name in names if name)
    assert set(re.findall(r"`::(\w+)`", TEXT)) <= set(
        re.findall(r"def (\w+)\(", "".join(path.read_text() for path in here.glob("*.py")))
    )
