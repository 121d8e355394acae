"""Special functions against frozen values of arbitrary-precision arithmetic.

vectors/special.json comes from vectors/generate_special.py; its arguments are exact doubles.
"""

# Helpers are untyped like the tests.
# mypy: allow-untyped-calls

import json
import pathlib

import mpmath
import numpy as np
import pytest

from dp import _special

VECTORS = json.loads((pathlib.Path(__file__).parent / "vectors" / "special.json").read_text())
FUNCTIONS = VECTORS["functions"]
# Largest relative error over the table; the module promises 1e-13.
LIMITS = {
    "erfcx": 2e-15,
    "erfc": 2e-15,
    "erf_small": 2e-15,
    "ndtr": 3e-15,
    "log_ndtr": 3e-15,
    "ndtri": 3e-15,
    "stirling_error": 1e-14,
    "deviance": 5e-15,
    "betainc": 1e-13,
    "binom_tail": 1e-13,
}


def relative(got, text):
    wanted = mpmath.mpf(text)
    return float(abs((mpmath.mpf(float(got)) - wanted) / wanted)) if wanted else abs(float(got))


@pytest.mark.parametrize("name", LIMITS)
def test_values_are_within_their_relative_error(name):
    *arguments, wanted = zip(*FUNCTIONS[name], strict=True)
    got = getattr(_special, name)(*(np.array(column) for column in arguments))
    with mpmath.workdps(40):
        errors = [relative(g, w) for g, w in zip(got, wanted, strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] < LIMITS[name], FUNCTIONS[name][worst]


def test_log_bessel():
    with mpmath.workdps(40):
        for x in {row[1] for row in FUNCTIONS["log_bessel_i"]}:
            wanted = {int(k): w for k, at, w in FUNCTIONS["log_bessel_i"] if at == x}
            got = _special.log_bessel_i(max(wanted), x)
            for k, text in wanted.items():
                near_zero = k >= 1 and abs(mpmath.mpf(text)) < 1  # log I_k crosses 0
                error = abs(mpmath.mpf(got[k]) - mpmath.mpf(text))
                assert error < 1e-14 if near_zero else relative(got[k], text) < 1e-14


def test_every_table_is_read_and_reaches_its_ends():
    assert set(FUNCTIONS) == {*LIMITS, "log_bessel_i"}
    assert min(row[0] for row in FUNCTIONS["ndtri"]) == 1e-300
    assert max(row[1] for row in FUNCTIONS["binom_tail"]) == 1e6


def test_shapes_are_kept():
    grid = np.full((2, 3), 0.25)
    for function in (
        _special.erfc, _special.erfcx, _special.log_ndtr, _special.ndtri,
    ):  # fmt: skip
        assert function(grid).shape == (2, 3)
    assert _special.betainc(grid, 2.0, np.full(3, 0.5)).shape == (2, 3)
    assert _special.binom_tail(np.arange(3), 5, 0.5).shape == (3,)


def test_ends():
    np.testing.assert_array_equal(_special.betainc(2.0, 3.0, [0.0, 1.0]), [0.0, 1.0])
    np.testing.assert_array_equal(_special.binom_tail([0, 7], 6, 0.3), [1.0, 0.0])
    np.testing.assert_array_equal(_special.log_ndtr([-np.inf, np.inf]), [-np.inf, 0.0])
    assert _special.betainc(1.0, 1e6, 1e-300) == pytest.approx(1e-294, rel=1e-13)
