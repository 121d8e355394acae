"""Every field of the parameters is checked, and bound by their canonical bytes."""

import dataclasses
import math
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg.params import floor_of
from tests.secureagg.helpers import SEGMENTS, choose


def test_rates_are_exact_decimals():
    assert 0.29 * 100 < 29
    assert floor_of(0.29, 100) == 29
    assert floor_of("1/3", 9) == 3
    assert floor_of(Fraction(1, 3), 9) == 3
    assert floor_of(Decimal("0.07"), 100) == 7


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_clients", 1),
        ("num_clients", 2.5),
        ("num_clients", True),
        ("segments", ()),
        ("segments", ("x",)),
        ("segments", SEGMENTS * 2),
        ("degree", 6),
        ("degree", 3),
        ("degree", 0),
        ("threshold", 0),
        ("threshold", 6),
        ("threshold", True),
        ("min_survivors", 0),
        ("min_survivors", 7),
        ("corrupt", -0.1),
        ("corrupt", 1),
        ("corrupt", 0.9),
        ("corrupt", math.nan),
        ("corrupt", "x"),
        ("dropout", 1.0),
        ("dropout", "1/0"),
        ("dropout", "1e-5000"),
        ("rounds", 0),
        ("server", "honest"),
        ("security_bits", -1),
        ("correctness_bits", 257),
        ("session_id", b""),
        ("session_id", "text"),
        ("round_index", 1),
        ("round_index", -1),
        ("attempt", -1),
        ("graph_seed", b""),
    ],
)
def test_every_field_is_checked(make_params, field, value):
    with pytest.raises(secureagg.ParamsError) as caught:
        make_params(**{("n" if field == "num_clients" else field): value})
    assert caught.value.field == field
    assert repr(caught.value.got) == repr(value) or field in ("segments", "num_clients")
    assert caught.value.takes


@pytest.mark.parametrize(
    ("shape", "field"),
    [
        (("", 1, 1), "segments.name"),
        (("x" * 256, 1, 1), "segments.name"),
        (("\ud800", 1, 1), "segments.name"),  # no UTF-8
        (("x", 0, 1), "segments.length"),
        (("x", 1, 0), "segments.modulus_bits"),
        (("x", 1, 63), "segments.modulus_bits"),
    ],
)
def test_segments_are_checked(shape, field):
    with pytest.raises(secureagg.ParamsError) as caught:
        secureagg.Segment(*shape)
    assert caught.value.field == field


@pytest.mark.parametrize("exponent", [b"e-3000000", b"E+3000000", b"e-00001"])
def test_a_rate_of_few_characters_takes_little_memory(make_params, exponent):
    """An exponent of one more digit is ten times as many digits: refused before they are made."""
    data = make_params(corrupt="0.125").to_bytes()
    rate = b"1" + exponent
    changed = data.replace(b"\x03\x001/8", bytes([len(rate), 0]) + rate)
    assert changed != data
    tracemalloc.start()
    try:
        with pytest.raises(secureagg.ParamsError):
            secureagg.Params.from_bytes(changed)
        with pytest.raises(secureagg.ParamsError, match="corrupt"):
            make_params(corrupt=rate.decode())
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_threshold_above_degree_is_refused(make_params):
    with pytest.raises(secureagg.ParamsError) as caught:
        make_params(n=9, degree=4, threshold=5)
    assert caught.value.field == "threshold"


def test_sparse_graph_takes_a_seed(make_params):
    with pytest.raises(secureagg.ParamsError) as caught:
        make_params(n=9, degree=4, graph_seed=None)
    assert caught.value.field == "degree"


@pytest.mark.parametrize("changes", [{"rule": "other"}, {"server": "honest"}, {"rounds": 0}])
def test_choose_params_checks_its_own_arguments(changes):
    with pytest.raises(secureagg.ParamsError) as caught:
        choose(20, 0.1, 0.1, **changes)
    assert caught.value.field == next(iter(changes))


def test_unsound_parameters_are_refused_unless_measuring(make_params):
    unsound = {"n": 100, "degree": 20, "threshold": 3, "corrupt": 0.3}
    with pytest.raises(secureagg.ParamsError) as caught:
        make_params(**unsound, security_bits=40)
    assert caught.value.field == "threshold"
    with pytest.raises(secureagg.ParamsError) as caught:
        make_params(n=100, degree=2, threshold=2, dropout=0.6, security_bits=1)
    assert caught.value.field == "degree"
    measuring = make_params(**unsound, security_bits=0)
    assert measuring.failure.privacy == 1.0
    assert "claims no privacy" in repr(measuring)
    assert "claims no privacy" not in repr(choose(200, 0.1, 0.1))


def test_canonical_bytes_change_with_every_field():
    base = dataclasses.replace(choose(200, 0.1, 0.1, rounds=20), security_bits=10)
    changed: dict[str, Any] = {
        "segments": (secureagg.Segment("y", 10, 20),),
        "threshold": base.threshold - 1,
        "min_survivors": base.min_survivors - 1,
        "degree": 40,
        "corrupt": 0.09,
        "dropout": 0.11,
        "rounds": 19,
        "security_bits": 9,
        "correctness_bits": 29,
        "session_id": b"t",
        "round_index": 1,
        "attempt": 1,
        "graph_seed": b"other",
    }
    variants = [dataclasses.replace(base, **{k: v}) for k, v in changed.items()]
    variants.append(dataclasses.replace(base, num_clients=201))
    assert len({p.to_bytes() for p in [base, *variants]}) == len(variants) + 1
    assert dataclasses.replace(base, corrupt="1/10").to_bytes() == base.to_bytes()


def test_choose_params_conveniences():
    int_like: Any = np.int64(10)
    found = secureagg.choose_params(
        int_like,
        {"a": (3, 8), "b": (1, 62)},
        corrupt=0.1,
        dropout=0.1,
        server="semi_honest",
        rounds=2,
    )
    assert found.segments == (secureagg.Segment("a", 3, 8), secureagg.Segment("b", 1, 62))
    assert type(found.num_clients) is int
    other = dataclasses.replace(found, session_id=b"x")
    assert found.session_id != other.session_id
    assert len(found.session_id) == 16
    assert (found.max_corrupt, found.max_dropped, found.degree) == (1, 1, 9)
    assert (found.round_index, found.attempt) == (0, 0)


def test_sparse_graph_falls_back_to_the_complete_one():
    found = choose(6, "1/3", "1/3")
    assert (found.degree, found.threshold) == (5, 3)


def test_fewer_survivors_than_the_rate_says_are_paid_for_in_privacy():
    """A round that releases at 350 of 1,000 must stay connected with 650 gone, not with 300."""
    params = secureagg.choose_params(
        1000, {"x": (1, 8)}, corrupt=0.05, dropout=0.3, server="semi_honest", rounds=1,
        graph_seed=b"seed",
    )  # fmt: skip
    assert params.failure.disconnected < 2.0**-41
    with pytest.raises(secureagg.ParamsError, match="privacy failure"):
        dataclasses.replace(params, min_survivors=350)
    measured = dataclasses.replace(params, min_survivors=350, security_bits=0)
    assert measured.failure.disconnected > 2.0**-30
