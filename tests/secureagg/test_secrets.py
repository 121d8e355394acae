"""No secret is shown: not by the repr of any type, not by any exception, and nothing is logged."""

import ast
import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import _saved, recovery
from tests.secureagg import test_vectors as vectors

HIDDEN = ("secret", "enc_private_key", "mask_private_key", "self_mask_seed")


def ours(value) -> bool:
    return type(value).__module__.partition(".")[0] == "secureagg"


def parts(value, seen) -> Iterator[Any]:
    """A value of this package's types, and all that can be reached from it."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, Mapping):
        inner = list(value.values())
    elif ours(value):
        yield value
        inner = list(vars(value).values()) if hasattr(value, "__dict__") else list(value)
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(value)
    else:
        return
    for each in inner:
        yield from parts(each, seen)


def forms(secret) -> Iterator[str]:
    """How a secret would look in a text: bytes, hexadecimal, limbs, integers."""
    if isinstance(secret, bytes):
        yield secret.hex()
        yield repr(secret)[2:-1]
        yield str(int.from_bytes(secret, "little"))
        yield str(int.from_bytes(secret, "big"))
        if len(secret) == 36:
            yield from (str(v) for v in np.frombuffer(secret, "<u4").tolist() if v > 10**6)
    else:
        yield from (str(v) for v in secret.tolist() if v > 10**6)


def secrets_of(client, key) -> list[Any]:
    """Everything that a client keeps to itself."""
    state, found = client._state, [*(client._inputs or ())]
    if key is not None:
        found.append(key._key.private_bytes_raw())
    for part in (state, getattr(state, "me", None)):
        found += [getattr(part, name) for name in HIDDEN if hasattr(part, name)]
    found += [share for pair in getattr(state, "shares", {}).values() for share in pair or ()]
    return found + list(getattr(state, "opening_keys", {}).values())


def check(text, secrets) -> None:
    for form in secrets:
        assert form not in text


def whole_round(make_play, server) -> Iterator[tuple[Any, set[str]]]:
    """The sessions before each message and at the end; and what must not be seen of them."""
    segments = (secureagg.Segment("x", 5, 62),)
    play = make_play(0, server=server, threshold=4, segments=segments)
    secrets: set[str] = set()
    while play.server.stage is not None:
        for client_id, client in play.clients.items():
            found = secrets_of(client, play.keys[client_id])
            secrets |= {form for secret in found for form in forms(secret)}
        yield play, secrets
        for client_id, message in play.answers(
            but=[5] if play.server.stage == "mask_input" else ()
        ).items():
            play.server.receive(client_id, message)
        yield play, secrets
        play.inbound = play.server.close_stage()
    yield play, secrets


VISITED: set[type] = set()


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_no_repr_of_any_type_shows_a_secret(make_play, server):
    longest: set[str] = set()
    for play, secrets in whole_round(make_play, server):
        longest = secrets
        for value in parts([play.clients, play.server, play.keys], {}):
            VISITED.add(type(value))
            check(f"{value!r} {value} {value:}", secrets)
        if isinstance(play.server._state, recovery.CollectUnmask):
            shares = recovery._flat_shares(play.server._state, play.server._received)
            check(repr(shares), secrets)
    assert len(longest) > 300


PUBLIC = {"Aggregate", "Attestation", "ClientStep", "KeyBundle", "NeighbourShares", "SealedShares"}
"""Types with a repr of all their fields that no session keeps, or that a peer sees."""

FIGURES = {"_packing", "_tails", "cost", "finder", "prediction", "simulate"}
"""Modules whose types hold figures, layouts and results."""


def test_every_type_of_the_package_is_seen_or_public_or_shows_nothing(make_play):
    for server in ("semi_honest", "malicious"):
        for play, _ in whole_round(make_play, server):
            everything = parts([play.clients, play.server, play.keys], {})
            VISITED.update(type(value) for value in everything)
    rest = set()
    for module in pkgutil.iter_modules(secureagg.__path__):
        if module.name in FIGURES or "prediction" in module.name:
            continue
        for value in vars(importlib.import_module(f"secureagg.{module.name}")).values():
            if inspect.isclass(value) and value.__module__ == f"secureagg.{module.name}":
                rest.add(value)
    rest = {value for value in rest - VISITED if not issubclass(value, Exception | int)}
    rest = {value for value in rest if value.__repr__ is not object.__repr__}
    assert {value.__name__.lstrip("_") for value in rest} <= PUBLIC


def texts(error) -> Iterator[str]:
    """All that can be seen of an exception and of those behind it."""
    seen: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        left += [one.__cause__, one.__context__]
        yield "".join(traceback.format_exception(one))
        yield f"{one!r} {one.args!r} {vars(one)!r} {getattr(one, '__notes__', ())}"


def vector_secrets(vector, client) -> set[str]:
    found = [bytes.fromhex(s) for s in vector["session_secrets"].values()]
    found += [bytes.fromhex(s) for s in vector["identity_seeds"].values()]
    found += [s for s in secrets_of(client, None) if isinstance(s, bytes)]
    return {form for secret in found for form in forms(secret)}


def refuse(receive, case, shown) -> None:
    with pytest.raises(secureagg.SecureAggError) as caught:
        receive(bytes.fromhex(case["message"]))
    for text in texts(caught.value):
        check(text, shown)


@pytest.mark.parametrize("name", ["refusals_client", "refusals_sparse"])
def test_no_exception_of_a_client_shows_a_secret(name, caplog):
    """Every refusal of the vectors: its text, arguments, causes and contexts."""
    vector = vectors.load(name)
    client = vectors.parties(vector)[0][vector["client"]]
    client.start()
    for step in vector["honest"]:
        shown = vector_secrets(vector, client)
        for case in vector["cases"]:
            if case["stage"] == step["stage"]:
                refuse(client.receive, case, shown)
        client.receive(bytes.fromhex(step["message"]))
    assert not caplog.records


def test_no_exception_of_a_server_shows_a_secret(caplog):
    vector = vectors.load("refusals_server")
    clients, server = vectors.parties(vector)
    shown = vector_secrets(vector, clients[0])
    for step in vector["honest"]:
        for when in ("before", "after"):
            for case in vector["cases"]:
                if (case["stage"], case["when"]) == (step["stage"], when):
                    refuse(partial(server.receive, case["sender"]), case, shown)
            for i, message in step["messages"].items():
                server.receive(int(i), bytes.fromhex(message))
        server.close_stage()
    assert not caplog.records


@pytest.mark.parametrize("where", range(0, 6000, 97))
def test_no_exception_of_a_damaged_session_shows_a_secret(make_play, where):
    play = make_play(2)
    client = play.clients[0]
    data = client.to_bytes()
    shown = {form for secret in secrets_of(client, None) for form in forms(secret)}
    body = bytearray(data[34:-32])
    body[where % len(body)] ^= 0x85
    saved = _saved.frame(_saved.CLIENT, play.server._round.ctx, bytes(body))
    for broken in (saved, bytes(body), data[:where], saved[:-1]):
        try:
            secureagg.ClientSession.from_bytes(
                broken, play.params, 0, None, dict.fromkeys(range(6), b""), once=lambda _: True
            )
        except secureagg.MisuseError as error:
            for text in texts(error):
                check(text, shown)


def test_misuse_does_not_repeat_inputs(make_play):
    play = make_play(1, segments=(secureagg.Segment("x", 5, 61),))
    secret = np.full(5, (1 << 61) + 123456789)
    fresh = secureagg.ClientSession(
        play.params, 0, None, dict.fromkeys(range(6), b""), once=secureagg.MemoryOnce()
    )
    for bad in (secret, secret.astype(float), secret[:4], {"y": secret}, -secret):
        with pytest.raises(secureagg.MisuseError) as caught:
            fresh.set_inputs(bad)
        for text in texts(caught.value):
            check(text, {"123456789", "2305843009"})


def test_nothing_is_logged_or_printed():
    for path in Path(secureagg.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"logging", "warnings", "pprint"} & set(names)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "breakpoint")
