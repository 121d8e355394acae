"""What a server makes of answers that are damaged, late, of another member or of nobody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl.engines import wire
from fl.engines.coordinator import Parts
from tests.fl import organisations
from tests.fl.organisations import (
    FIVE,
    SECRET,
    SEMI_HONEST,
    Passing,
    World,
    node_of,
    refusals,
    releases,
)


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[World]:
    found = World(organisations.shared_plan(rounds=2, **SECRET), FIVE, tmp_path)
    yield found
    found.close()


def edited(member: int, change: Any) -> Any:
    """A fault: what arrives of one member's answers in the protocol's stages."""

    def fault(passing: Passing) -> list[tuple[int, Parts]] | None:
        if passing.member != member or passing.stage == "hello":
            return None
        return [(node_of(member), answer) for answer in change(passing)]

    return fault


def flipped(at: int) -> Any:
    def change(passing: Passing) -> list[Parts]:
        control, bulk = passing.answer
        data = bytearray(bulk or control)
        data[at + (0 if bulk else 2)] ^= 1  # behind version and status
        return [(control, bytes(data)) if bulk else (bytes(data), b"")]

    return change


def cut(passing: Passing) -> list[Parts]:
    control, bulk = passing.answer
    return [(control, bulk[:-1]) if bulk else (control[:-1], b"")]


def huge(passing: Passing) -> list[Parts]:
    return [(passing.answer[0], bytes(10**7))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flipped(0), "version 0"),
        (flipped(1), "kind"),
        (flipped(2), "names another client"),
        (flipped(6), "another context"),
        (cut, "bytes"),
        (huge, "takes Limits"),
        (lambda passing: [(b"", b"")], "without version and status"),
        (lambda passing: [(b"\x01\x02no\x07", b"")], "refuses: no?"),
    ],
)
def test_a_damaged_answer_is_refused_by_name_and_the_round_goes_on(
    secret: World, caplog: pytest.LogCaptureFixture, change: Any, said: str
) -> None:
    secret.faults = [edited(2, change)]
    _, rounds = secret.run()
    assert [r.survivors for r in rounds] == [(0, 1, 3, 4)] * 2
    assert said in refusals(caplog)
    assert "member 2 (org2)" in refusals(caplog)


def test_an_answer_of_another_member_is_refused(
    secret: World, caplog: pytest.LogCaptureFixture
) -> None:
    def as_two(passing: Passing) -> list[tuple[int, Parts]] | None:
        if passing.member == 1 and passing.stage != "hello":
            return [(node_of(1), passing.answer), (node_of(2), passing.answer)]
        return None

    secret.faults = [edited(2, lambda passing: []), as_two]
    _, rounds = secret.run()
    assert [r.survivors for r in rounds] == [(0, 1, 3, 4)] * 2
    assert "member 2 (org2) is refused: round 0, message from client 2: names another" in refusals(
        caplog
    )


@pytest.mark.parametrize("stage", SEMI_HONEST[:-1])
def test_what_comes_after_the_barrier_is_discarded(secret: World, stage: str) -> None:
    held: list[tuple[int, Parts]] = []

    def late(passing: Passing) -> list[tuple[int, Parts]] | None:
        if passing.round_index == 0 and (passing.stage, passing.member) == (stage, 2):
            held.append((node_of(2), passing.answer))
            return []
        if held and passing.stage != stage and passing.member == 3:
            return [held.pop(), (node_of(3), passing.answer)]
        return None

    secret.faults = [late]
    _, rounds = secret.run()
    assert [r.survivors for r in rounds] == [(0, 1, 3, 4), (0, 1, 2, 3, 4)]
    assert not held
    assert releases(secret)[0, 0] == (0, 1, 3, 4)


def test_answers_of_an_earlier_round_are_refused(
    secret: World, caplog: pytest.LogCaptureFixture
) -> None:
    kept: dict[str, Parts] = {}

    def replay(passing: Passing) -> list[Parts]:
        return [kept.setdefault(passing.stage, passing.answer)]

    secret.faults = [edited(2, replay)]
    _, rounds = secret.run()
    assert [r.survivors for r in rounds] == [(0, 1, 2, 3, 4), (0, 1, 3, 4)]
    assert "belongs to another context" in refusals(caplog)


def test_nodes_that_nobody_asked_are_not_heard(
    secret: World, caplog: pytest.LogCaptureFixture
) -> None:
    secret.faults = [lambda p: [(77, p.answer), (node_of(p.member), p.answer)]]
    _, rounds = secret.run()
    assert [r.survivors for r in rounds] == [(0, 1, 2, 3, 4)] * 2
    assert "node 77: an answer that nobody asked for" in refusals(caplog)
    assert "an answer of node 77, which was not asked" in refusals(caplog)


def test_a_node_without_a_key_of_the_roster_is_refused(
    secret: World, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = organisations.key_of(9)
    secret.restart(2, identity=stranger, roster=secret.roster | {2: stranger.public_key})
    _, rounds = secret.run()
    assert [r.survivors for r in rounds] == [(0, 1, 3, 4)] * 2
    assert "node 1002 is refused: it does not hold the key that the roster lists for 2" in refusals(
        caplog
    )


def test_a_member_that_is_not_in_the_roster_is_refused(
    secret: World, caplog: pytest.LogCaptureFixture
) -> None:
    claim = wire.parts(wire.presence(9, bytes(64)).to_bytes(), organisations.ANY)
    secret.faults = [
        lambda p: [(node_of(2), claim)] if (p.stage, p.member) == ("hello", 2) else None
    ]
    _, rounds = secret.run()
    assert [r.survivors for r in rounds] == [(0, 1, 3, 4)] * 2
    assert "member 9 is not in the roster" in refusals(caplog)
