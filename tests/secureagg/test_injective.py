"""Encodings are injective: two different values never have the same bytes.

Where the package has a decoder, decode(encode(x)) == x, and encode(decode(b)) == b for whatever
bytes it accepts. What is only hashed or signed (parameters, roster, labels) is read back here, by
a decoder written from docs/protocol.md: a left inverse is what injective means.
"""

import dataclasses
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import secureagg
from secureagg import client, context, masking, messages, sharing
from secureagg._codec import pack_flags, u16, u32, unpack_flags
from secureagg.messages import KeyBundle, Kind, NeighbourShares, SealedShares, UnmaskShares
from secureagg.primitives import Usage, label
from secureagg.shamir import LIMBS, PRIME


class Reading:
    """Takes fields off the front, as the document names them."""

    def __init__(self, data) -> None:
        self.data = data

    def take(self, size) -> bytes:
        assert len(self.data) >= size
        found, self.data = self.data[:size], self.data[size:]
        return bytes(found)

    def number(self, size) -> int:
        return int.from_bytes(self.take(size), "little")

    def prefixed(self) -> bytes:
        return self.take(self.number(2))


def read_params(data) -> dict[str, Any]:
    r = Reading(data)
    assert r.number(1) == 1
    found: dict[str, Any] = {"num_clients": r.number(4)}
    found["segments"] = tuple(
        (r.prefixed().decode(), r.number(4), r.number(1)) for _ in range(r.number(2))
    )
    found |= {name: r.number(4) for name in ("degree", "threshold", "min_survivors")}
    found |= {name: Fraction(r.prefixed().decode()) for name in ("corrupt", "dropout")}
    found |= {"rounds": r.number(4), "server": r.prefixed().decode()}
    found |= {name: r.number(2) for name in ("security_bits", "correctness_bits")}
    found["session_id"] = r.prefixed()
    found |= {name: r.number(8) for name in ("round_index", "attempt")}
    found["graph_seed"] = r.prefixed() or None
    assert not r.data
    return found


def read_label(data) -> tuple[int, list[bytes]]:
    r = Reading(data)
    assert r.take(11) == b"secureagg/1"
    usage, fields = r.number(1), []
    while r.data:
        fields.append(r.prefixed())
    return usage, fields


def meaning(params) -> dict[str, Any]:
    found = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    found["segments"] = tuple(dataclasses.astuple(s) for s in params.segments)
    return found | {name: Fraction(str(found[name])) for name in ("corrupt", "dropout")}


NAMES = st.text(st.sampled_from("ab\x00\u00e9\u4e2d"), min_size=1, max_size=3)
IDS = st.integers(0, 2**32 - 1)
KEYS = st.sampled_from([bytes([i]) * 32 for i in range(4)]) | st.binary(min_size=32, max_size=32)
SHARES = st.lists(st.sampled_from([0, 1, PRIME - 1]) | st.integers(0, PRIME - 1),
                  min_size=LIMBS, max_size=LIMBS)  # fmt: skip


@st.composite
def params(draw) -> secureagg.Params:
    n = draw(st.integers(2, 300))
    degree = draw(st.sampled_from([n - 1, *range(2, n - 1, 2)][:6]))
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    rounds = draw(st.integers(1, 2**32 - 1))
    return secureagg.Params(
        num_clients=n,
        segments=tuple(
            secureagg.Segment(name, draw(st.integers(1, 2**32 - 1)), draw(st.integers(1, 62)))
            for name in names
        ),
        degree=degree,
        threshold=draw(st.integers(1, degree)),
        min_survivors=draw(st.integers(1, n)),
        corrupt=draw(st.sampled_from([0, "0", "0.0", Fraction(0), "1e-9"])),
        dropout=draw(st.sampled_from([0, 0.1, "1/10", "0.10", "3/7", Fraction(1, 10)])),
        rounds=rounds,
        server=draw(st.sampled_from(["semi_honest", "malicious"])),
        security_bits=0,
        correctness_bits=draw(st.integers(0, 256)),
        session_id=draw(st.binary(min_size=1, max_size=3) | st.binary(min_size=255, max_size=255)),
        round_index=draw(st.integers(0, rounds - 1)),
        attempt=draw(st.integers(0, 2**32 - 1)),
        graph_seed=draw(st.binary(min_size=1, max_size=3)) if degree < n - 1 else None,
    )


@given(params())
def test_parameters_can_be_read_back(one):
    assert read_params(one.to_bytes()) == meaning(one)


def neighbours(one) -> list[secureagg.Params]:
    """Values that a careless encoding would give the same bytes: borders moved by one."""
    change: Any = dataclasses.replace
    a, length, bits = dataclasses.astuple(one.segments[0])
    segment = secureagg.Segment
    return [
        change(one, segments=(segment(a + "b", length, bits), *one.segments[1:])),
        change(one, segments=(segment(a, length ^ 1 or 2, bits), *one.segments[1:])),
        change(one, segments=(segment(a, length, bits % 62 + 1), *one.segments[1:])),
        change(one, segments=(*one.segments, segment("last", 1, 1))),
        change(one, segments=tuple(reversed((*one.segments, segment("last", 1, 1))))),
        change(one, session_id=one.session_id[:254] + b"\0"),
        change(one, session_id=b"\0" + one.session_id[:254]),
        change(one, graph_seed=(one.graph_seed or b"") + b"\0"),
        change(one, graph_seed=one.session_id[:255]),
        change(one, attempt=one.attempt ^ 1),
        change(one, correctness_bits=one.correctness_bits ^ 1),
        change(one, min_survivors=one.min_survivors % one.num_clients + 1),
        change(one, server="malicious" if one.server == "semi_honest" else "semi_honest"),
    ]


@given(params())
def test_parameters_next_to_each_other_differ(one):
    near = [one, *neighbours(one)]
    for a, b in itertools.combinations(near, 2):
        assert (a.to_bytes() == b.to_bytes()) == (meaning(a) == meaning(b))


@given(params(), params())
def test_parameters_have_the_same_bytes_only_if_they_mean_the_same(one, two):
    assert (one.to_bytes() == two.to_bytes()) == (meaning(one) == meaning(two))


@given(st.dictionaries(IDS, st.binary(max_size=40), min_size=1, max_size=5))
def test_rosters_can_be_read_back(roster):
    r = Reading(context.roster_to_bytes(roster))
    found = {}
    while r.data:
        client_id = r.number(4)
        assert client_id not in found
        found[client_id] = r.prefixed()
    assert found == roster


@given(st.data())
def test_contexts_differ_where_parameters_or_rosters_do(make_params, data):
    def drawn() -> tuple[Any, ...]:
        ids = data.draw(st.sets(st.integers(0, 6), min_size=4, max_size=4))
        changes = data.draw(
            st.fixed_dictionaries(
                {"attempt": st.integers(0, 1), "session_id": st.sampled_from([b"a", b"b"])}
            )
        )
        return make_params(n=4, **changes), frozenset(ids)

    one, two = drawn(), drawn()
    ctx = [context.open_round(p, dict.fromkeys(ids, b"")).ctx for p, ids in (one, two)]
    assert (ctx[0] == ctx[1]) == (one == two)


@given(st.sampled_from(Usage), st.lists(st.binary(max_size=5) | KEYS, max_size=5))
def test_labels_can_be_read_back(usage, fields):
    assert read_label(label(usage, *fields)) == (usage, fields)


def test_fields_of_a_label_that_are_too_long_are_no_label():
    with pytest.raises(OverflowError):
        label(Usage.CONTEXT, bytes(1 << 16))


@given(KEYS, IDS, IDS, st.fixed_dictionaries({0: KEYS, 1: KEYS}), st.integers(0, 254))
def test_infos_and_associated_data_can_be_read_back(ctx, one, other, two_keys, segment):
    assume(one != other)
    keys = {one: two_keys[0], other: two_keys[1]}
    low, high = sorted(keys)
    info = masking.pairwise_mask_info(ctx, one, other, keys) + u16(segment)
    fields = [ctx, u32(low), u32(high), keys[low], keys[high]]
    assert (*read_label(info[:-2]), info[-2:]) == (Usage.PAIRWISE_MASK, fields, u16(segment))
    assert info[:-2] == masking.pairwise_mask_info(ctx, other, one, keys)
    info = masking.self_mask_info(ctx, one) + u16(segment)
    assert (*read_label(info[:-2]), info[-2:]) == (Usage.SELF_MASK, [ctx, u32(one)], u16(segment))
    data = sharing._box_data(ctx, one, other)
    assert read_label(data) == (Usage.BOX_DATA, [ctx, u32(one), u32(other)])
    assert data != sharing._box_data(ctx, other, one)


@given(KEYS, IDS, IDS, st.sampled_from(messages.ShareKind), SHARES)
def test_a_commitment_to_a_share_hashes_a_label(ctx, dealer, holder, kind, limbs):
    share = np.array(limbs, dtype="<u4").tobytes()
    want = label(Usage.SHARE_COMMITMENT, ctx, u32(dealer), u32(holder), bytes([kind]), share)
    made = sharing.share_commitment(ctx, dealer, holder, kind, share)
    assert made == secureagg.primitives.sha256(want)
    seed = share[:32]
    want = label(Usage.SELF_SEED_COMMITMENT, ctx, u32(dealer), seed)
    assert client.self_seed_commitment(ctx, dealer, seed) == secureagg.primitives.sha256(want)


@given(st.data(), st.integers(3, 20))
def test_what_is_signed_can_be_read_back(make_play, data, n):
    round_ = make_play(n=n, threshold=1).server._round
    client_id, keys = data.draw(IDS), data.draw(st.binary(min_size=96, max_size=96))
    usage, fields = read_label(context.keys_to_sign(round_, client_id, keys))
    assert (usage, fields) == (Usage.SIGNED_KEYS, [b"\1", round_.ctx, u32(client_id), keys])
    drawn = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    one, two = (np.array(data.draw(drawn), dtype=np.uint8) for _ in range(2))
    signed = [context.sets_to_sign(round_, statuses) for statuses in (one, two)]
    assert (signed[0] == signed[1]) == (one.tolist() == two.tolist())


@given(KEYS, IDS, st.sampled_from(["start", "mask", "sign", "unmask"]))
def test_keys_of_once_can_be_read_back(ctx, client_id, step):
    key = secureagg.once_key(ctx, client_id, step)
    assert (key[:32], key[32:36], key[36:].decode()) == (ctx, u32(client_id), step)


def array_of(limbs) -> np.ndarray:
    return np.array(limbs, dtype=np.uint32).reshape(-1, LIMBS)


BUNDLE = st.builds(KeyBundle, KEYS, KEYS, KEYS)
SIGNED = st.builds(KeyBundle, KEYS, KEYS, KEYS, st.binary(min_size=64, max_size=64))
SEALED = st.builds(SealedShares, st.binary(min_size=90, max_size=90), KEYS, KEYS)
N = 11  # clients; not a multiple of 8


@st.composite
def neighbour_shares(draw) -> NeighbourShares:
    flags = draw(st.lists(st.booleans(), min_size=N, max_size=N))
    return NeighbourShares(np.array(flags), draw(st.dictionaries(IDS, SEALED, max_size=3)))


@st.composite
def unmask_shares(draw) -> UnmaskShares:
    rows = draw(st.lists(st.none() | SHARES, min_size=3, max_size=3))
    held = np.array([row is not None for row in rows])
    return UnmaskShares(held, array_of([row or [0] * LIMBS for row in rows]))


def share_pair(pair) -> bytes:
    return messages.share_pair_to_bytes(*(array_of(limbs).tobytes() for limbs in pair))


class Shape:
    """Two segments, with padding in both."""

    segments = (secureagg.Segment("a", 3, 5), secureagg.Segment("b", 2, 33))


def vector_of(values) -> bytes:
    return masking.pack_vector(
        Shape(), (np.array(values[:3], dtype="<u2"), np.array(values[3:], dtype="<u8"))
    )


RESIDUES = st.tuples(*[st.integers(0, 31)] * 3, *[st.integers(0, 2**33 - 1)] * 2)
TYPES: dict[str, tuple[Any, Any, Any]] = {
    "bundle": (BUNDLE, KeyBundle.to_bytes, lambda b: KeyBundle.from_bytes(b, signed=False)),
    "signed bundle": (SIGNED, KeyBundle.to_bytes, lambda b: KeyBundle.from_bytes(b, signed=True)),
    "neighbours' bundles": (
        st.dictionaries(IDS, SIGNED, max_size=3),
        messages.bundles_to_bytes,
        lambda b: messages.bundles_from_bytes(b, limit=3, signed=True),
    ),
    "boxes": (
        st.dictionaries(IDS, SEALED, max_size=3),
        messages.boxes_to_bytes,
        lambda b: messages.boxes_from_bytes(b, limit=3),
    ),
    "raw boxes": (
        st.dictionaries(IDS, st.binary(min_size=154, max_size=154), max_size=3),
        messages.raw_boxes_to_bytes,
        lambda b: messages.raw_boxes_from_bytes(b, limit=3),
    ),
    "neighbours' boxes": (
        neighbour_shares(),
        NeighbourShares.to_bytes,
        lambda b: NeighbourShares.from_bytes(b, num_clients=N, limit=3),
    ),
    "shares in a box": (
        st.tuples(SHARES, SHARES),
        share_pair,
        lambda b: tuple(
            np.frombuffer(s, dtype="<u4").tolist()
            for s in messages.share_pair_from_bytes(bytes(b))
        ),
    ),
    "masked vector": (
        RESIDUES,
        vector_of,
        lambda b: tuple(int(v) for w in masking.unpack_vector(Shape(), b) for v in w),
    ),
    "statuses": (
        st.lists(st.integers(0, 3), min_size=N, max_size=N),
        lambda x: messages.statuses_to_bytes(np.array(x, dtype=np.uint8)),
        lambda b: messages.statuses_from_bytes(b, num_clients=N).tolist(),
    ),
    "signature": (
        st.binary(min_size=64, max_size=64), bytes, messages.signature_from_bytes,
    ),
    "quorum": (
        st.dictionaries(IDS, st.binary(min_size=64, max_size=64), max_size=3),
        messages.quorum_to_bytes,
        lambda b: messages.quorum_from_bytes(b, limit=3),
    ),
    "unmask shares": (
        unmask_shares(), UnmaskShares.to_bytes, lambda b: UnmaskShares.from_bytes(b, m=3)
    ),
    "flags": (
        st.lists(st.booleans(), min_size=N, max_size=N),
        lambda x: pack_flags(np.array(x)),
        lambda b: unpack_flags(b, N).tolist(),
    ),
}  # fmt: skip


def plain(value) -> Any:
    """A value that == compares by content."""
    if isinstance(value, NeighbourShares):
        return value.shared.tolist(), dict(value.boxes)
    if isinstance(value, UnmaskShares):
        return value.held.tolist(), value.shares.tolist()
    return value


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_messages_can_be_read_back_and_have_one_encoding(name, data):
    values, encode, decode = TYPES[name]
    one, two = data.draw(values), data.draw(values)
    assert plain(decode(memoryview(encode(one)))) == plain(one)
    assert (encode(one) == encode(two)) == (plain(one) == plain(two))
    raw = bytearray(encode(one))
    how = data.draw(st.sampled_from(["flip", "swap", "cut", "more"]))
    if how == "flip" and raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "swap":
        at = data.draw(st.integers(0, len(raw)))
        raw = raw[at:] + raw[:at]
    elif how == "cut":
        del raw[data.draw(st.integers(0, len(raw))) :]
    else:
        raw += data.draw(st.binary(min_size=1, max_size=200))
    try:
        accepted = decode(memoryview(bytes(raw)))
    except ValueError:
        return
    assert encode(accepted) == bytes(raw)


@given(st.sampled_from(Kind), IDS, KEYS, st.binary(max_size=20))
def test_headers_can_be_read_back(kind, client_id, ctx, body):
    message = messages.header(kind, client_id, ctx) + body
    found, rest = messages.open_header(message, client_id, ctx)
    assert (found, bytes(rest)) == (kind, body)
    assert Reading(message[2:]).number(4) == client_id
