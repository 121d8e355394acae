"""Writes factorizations.json: least rms errors of prefix sums, by a tool that knows nothing of us.

    build/peers/factorizations/bin/python tests/dp/vectors/generate_factorizations.py [--rounds N]

Needs jax-privacy, in an environment of its own (`python -m benchmarks.peers.environments
factorizations`); imports nothing of `dp`. Its optimisers are those of the papers' authors, in
double precision:

    dense     Denisov et al. 2022: any strategy, one participation
    banded    Choquette-Choo et al. 2023 (BandMF): every entry of the bands, columns of one norm
    toeplitz  the same with constant diagonals (Choquette-Choo et al. 2023, McKenna 2024)
    blt       McMahan, Xu, Zhang 2024: the best that their search finds with these buffers

A row is the root of the mean squared error over rounds, times the sensitivity of participations
that are `separation` rounds apart, `most` of them. Rows that are there are left alone. Takes most
of an hour.
"""

import argparse
import importlib
import json
import math
import pathlib
import time
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

_peer = "jax_privacy.matrix_factorization"
buffered_toeplitz, dense, toeplitz = (
    importlib.import_module(f"{_peer}.{name}")
    for name in ("buffered_toeplitz", "dense", "toeplitz")
)

PLACE = pathlib.Path(__file__).parent / "factorizations.json"
LARGEST_DENSE = 1024  # rounds
PARTICIPATIONS = (1, 8)


def rms(matrix: jax.Array) -> float:
    """Of a strategy held in full, per unit of sensitivity of one participation."""
    errors = dense.per_query_error(strategy_matrix=matrix)
    return math.sqrt(float(jnp.mean(errors)) * float((matrix**2).sum(axis=0).max()))


def rms_toeplitz(column: jax.Array, rounds: int, separation: int, most: int) -> float:
    error = float(jnp.mean(toeplitz.per_query_error(strategy_coef=column, n=rounds)))
    sensitivity_sq = toeplitz.minsep_sensitivity_squared(
        strategy_coef=column, min_sep=separation, max_participations=most, n=rounds
    )
    return math.sqrt(error * float(sensitivity_sq))


def solve(kind: str, size: int, rounds: int, separation: int, most: int) -> float:
    """The least rms error of a kind with so many bands or buffers."""
    if kind == "dense":
        return rms(dense.optimize(rounds))
    if kind == "banded":  # columns of one participation are orthogonal
        found = dense.optimize(rounds, bands=size, equal_norm=True)
        return rms(found) * math.sqrt(most)
    if kind == "toeplitz":
        column = toeplitz.optimize_banded_toeplitz(rounds, size)
        return rms_toeplitz(column, rounds, separation, most)
    loss = buffered_toeplitz.LossFn.build_min_sep(
        n=rounds, min_sep=separation, max_participations=most, error="mean"
    )
    found, _ = buffered_toeplitz.optimize_loss(loss, num_buffers=size)
    return rms_toeplitz(found.toeplitz_coefs(rounds), rounds, separation, most)


def wanted(rounds: int, most: int) -> list[tuple[str, int]]:
    """(kind, bands or buffers), quick ones first."""
    separation = rounds // most
    bands = sorted({min(size, separation) for size in (4, 16, 64, 256, separation)})
    rows = [("toeplitz", size) for size in bands] + [("blt", size) for size in (2, 4)]
    if rounds <= LARGEST_DENSE:
        rows += [("banded", size) for size in bands if size in (16, 64) or rounds <= 256]
        rows += [("dense", rounds)] if most == 1 else []
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, nargs="+", default=[64, 256, 1024, 4096])
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    found: dict[str, Any] = {"by": f"jax-privacy {metadata.version('jax-privacy')}", "rows": []}
    if PLACE.exists():
        found = json.loads(PLACE.read_text())
    for rounds in parser.parse_args().rounds:
        for most in PARTICIPATIONS:
            separation = rounds // most
            for kind, size in wanted(rounds, most):
                key = {"rounds": rounds, "separation": separation, "most": most,
                       "kind": kind, "size": size}  # fmt: skip
                if any(key.items() <= row.items() for row in found["rows"]):
                    continue
                begin = time.process_time()
                error = solve(kind, size, rounds, separation, most)
                row = {**key, "rms_error": error,
                       "cpu_seconds": round(time.process_time() - begin, 1)}  # fmt: skip
                found["rows"].append(row)
                PLACE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
