"""Values per second of the exact samplers, encode, clip-and-sum; one core.

    python -m benchmarks.samplers [--peers opendp [--folder build/peers]] [--show]

Random bytes come from AES-128-CTR. Medians of CPU time; tables are built before the clock starts,
and their cost is printed beside. `--peers opendp` measures OpenDP's noise right before the same
draws by ours, on the same core (peers/opendp_gaussian.py, in an environment of
peers/environments.py). Finished rows are written to results/samplers.json, over older ones;
`--show` prints those.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import dp
from benchmarks._results import Results, Row
from benchmarks._script import ask_peer, beside_us, options_of, pin, take_peers
from benchmarks._timing import cpu_seconds

VALUES = 1_000_000


def aes_stream() -> dp.RandomBytes:
    """Random bytes at the speed of the cipher, keyed by the operating system."""
    cipher = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(os.urandom(16))).encryptor()
    zeros = bytes(1 << 20)
    return lambda n: cipher.update(zeros[:n] if n <= len(zeros) else bytes(n))


def samplers(rng: dp.RandomBytes) -> Iterator[tuple[str, Row]]:
    """Integer noise by law and scale."""
    draws: dict[str, Callable[[float, int], object]] = {
        "discrete gaussian": lambda s, n: dp.discrete_gaussian(rng, s, n),
        "skellam": lambda s, n: dp.skellam(rng, s * s, n),
        "discrete laplace": lambda s, n: dp.discrete_laplace(rng, s, n),
    }
    for name, draw in draws.items():
        for scale in (1.0, 10.0, 100.0, 1000.0, 1e4, 1e5):
            if name == "skellam" and scale > 1e4:
                continue
            start = time.process_time()
            draw(scale, 1)
            built = time.process_time() - start
            rate = VALUES / cpu_seconds(functools.partial(draw, scale, VALUES)) / 1e6
            yield f"{name}, scale {scale:g}", {"rate": rate, "table_seconds": built}


def opendp(rng: dp.RandomBytes, scale: float, folder: Path) -> Iterator[tuple[str, Row]]:
    """Discrete Gaussian noise of OpenDP, and the same draws by ours right after it."""
    asked = {"scale": scale, "values": 20_000, "repeats": 5}
    theirs = ask_peer(folder, "opendp", "opendp_gaussian.py", asked)
    ours = VALUES / cpu_seconds(lambda: dp.discrete_gaussian(rng, scale, VALUES)) / 1e6
    yield f"OpenDP vector i32, scale {scale:g}", {**theirs, "ours": ours}


def encode(rng: dp.RandomBytes, dim: int) -> Iterator[tuple[str, Row]]:
    """One client's vector: rotated, rounded, noised; and the parts."""
    mechanism = dp.distributed(
        "skellam", dim=dim, clip_norm=1.0, noise_multiplier=1.0, num_clients=100, shares=90
    )
    rotation = dp.Rotation.from_seed(dim, b"public")
    x = np.random.default_rng(0).normal(size=dim)
    yield (
        f"encode, d={dim}",
        {
            "ms": 1e3 * cpu_seconds(lambda: mechanism.encode(x, rotation, rng)),
            "without_noise_ms": 1e3
            * cpu_seconds(lambda: mechanism.discretizer.encode(x, rotation, rng)),
            "noise_ms": 1e3 * cpu_seconds(lambda: mechanism.sample_share(rng)),
        },
    )


def coins(rng: dp.RandomBytes, dim: int) -> Iterator[tuple[str, Row]]:
    """One client's Poisson binomial vector, by coins in each coordinate."""
    rotation, x = dp.Rotation.from_seed(dim, b"public"), np.random.default_rng(0).normal(size=dim)
    for trials in (1, 4, 16, 64):
        mechanism = dp.poisson_binomial(
            dim=dim, clip_norm=1.0, noise_multiplier=1.0, num_clients=100, shares=90, trials=trials
        )
        biases = mechanism.biases(x, rotation)
        tossed = cpu_seconds(functools.partial(dp.binomial, rng, trials, biases))
        whole = cpu_seconds(functools.partial(mechanism.encode, x, rotation, rng))
        yield f"poisson binomial, {trials} coins, d={dim}", {
            "rate": dim / tossed / 1e6, "encode_ms": 1e3 * whole,
        }  # fmt: skip


def clip(rows: int, dim: int) -> Iterator[tuple[str, Row]]:
    """A batch of vectors clipped and summed, beside three lines of numpy."""
    batch = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    ours = cpu_seconds(lambda: dp.clip_and_sum(batch, 1.0))

    def textbook() -> object:
        norms = np.linalg.norm(batch, axis=1, keepdims=True)
        return (batch * np.minimum(1.0, 1.0 / norms)).sum(axis=0)

    other = cpu_seconds(textbook, repeats=1)
    yield f"clip and sum {rows} x {dim} float32", {"seconds": ours, "textbook_seconds": other}


def text(name: str, row: Row) -> str:
    """One line."""
    if "ours" in row:
        return (
            f"{name}: {row['rate']:.4g} M values/s, ours beside it {row['ours']:.4g}:"
            f" {row['ours'] / row['rate']:.0f} times as many"
        )
    if "rate" in row:
        built = f", table {row['table_seconds']:.3f} s" if "table_seconds" in row else ""
        whole = f", encode {row['encode_ms']:.1f} ms" if "encode_ms" in row else ""
        return f"{name}: {row['rate']:.4g} M values/s{built}{whole}"
    if "ms" in row:
        return (
            f"{name}: {row['ms']:.1f} ms, without noise {row['without_noise_ms']:.1f}, noise"
            f" {row['noise_ms']:.1f}"
        )
    return f"{name}: {row['seconds']:.3f} s; textbook numpy {row['textbook_seconds']:.2f} s"


def table(rows: Mapping[str, Row]) -> str:
    """One line per row."""
    return "\n".join(text(name, row) for name, row in rows.items())


def main() -> None:
    """Measures all rows, or prints what is there."""
    parser = options_of(__doc__)
    take_peers(parser)
    given = parser.parse_args()
    results = Results("samplers")
    if given.show:
        print(table(results.rows()))
        return
    pin()
    rng = aes_stream()
    rows = chain(
        samplers(rng),
        opendp(rng, 10.0, given.folder) if beside_us(given, ("opendp",)) else (),
        encode(rng, 200_000), coins(rng, 200_000), clip(256, 1_000_000),
    )  # fmt: skip
    for name, row in rows:
        results.add(name, row)
        print(text(name, row), flush=True)


if __name__ == "__main__":
    main()
