"""Values per second of the exact samplers, encode, clip-and-sum; one core.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_samplers

Random bytes come from AES-128-CTR. Best of several repetitions, wall clock; tables are built
before the clock starts, and their cost is printed beside. OpenDP is measured in the same run
where it is installed: `pip install dp-accounting opendp` in an environment of its own, and run
this script there with the repository on PYTHONPATH (numpy and cryptography suffice).
"""

import functools
import importlib.util
import os
import time
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import dp

VALUES = 1_000_000
REPEATS = 5


def aes_stream() -> dp.RandomBytes:
    """Random bytes at the speed of the cipher, keyed by the operating system."""
    cipher = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(os.urandom(16))).encryptor()
    zeros = bytes(1 << 20)
    return lambda n: cipher.update(zeros[:n] if n <= len(zeros) else bytes(n))


def best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs after a first one."""
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def samplers(rng: dp.RandomBytes) -> None:
    print(f"{'exact sampler':24}{'scale':>10}{'M values/s':>12}{'table s':>9}")
    draws: dict[str, Callable[[float, int], object]] = {
        "discrete gaussian": lambda s, n: dp.discrete_gaussian(rng, s, n),
        "skellam": lambda s, n: dp.skellam(rng, s * s, n),
        "discrete laplace": lambda s, n: dp.discrete_laplace(rng, s, n),
    }
    for name, draw in draws.items():
        for scale in (1.0, 10.0, 100.0, 1000.0, 1e4, 1e5):
            if name == "skellam" and scale > 1e4:
                continue
            start = time.perf_counter()
            draw(scale, 1)
            built = time.perf_counter() - start
            rate = VALUES / best(lambda s=scale, d=draw: d(s, VALUES)) / 1e6  # type: ignore[misc]  # defaults bind the loop's values
            print(f"{name:24}{scale:10g}{rate:12.1f}{built:9.3f}")


def opendp(scale: float) -> None:
    if importlib.util.find_spec("opendp") is None:
        print("OpenDP is not installed")
        return
    prelude = importlib.import_module("opendp.prelude")
    prelude.enable_features("contrib")
    space = prelude.vector_domain(prelude.atom_domain(T="i32")), prelude.l2_distance(T=float)
    mechanism = prelude.m.make_gaussian(*space, scale=scale)
    zeros = [0] * 20_000
    rate = len(zeros) / best(lambda: mechanism(zeros)) / 1e6
    print(f"{'OpenDP vector i32':24}{scale:10g}{rate:12.4f}")


def encode(rng: dp.RandomBytes, dim: int) -> None:
    mechanism = dp.distributed(
        "skellam", dim=dim, clip_norm=1.0, noise_multiplier=1.0, num_clients=100, shares=90
    )
    rotation = dp.Rotation.from_seed(dim, b"public")
    x = np.random.default_rng(0).normal(size=dim)
    bare = best(lambda: mechanism.discretizer.encode(x, rotation, rng))
    noise = best(lambda: mechanism.sample_share(rng))
    whole = best(lambda: mechanism.encode(x, rotation, rng))
    print(f"encode, d={dim}: {whole * 1e3:.1f} ms, without noise {bare * 1e3:.1f}, "
          f"noise {noise * 1e3:.1f}")  # fmt: skip


def coins(rng: dp.RandomBytes, dim: int) -> None:
    rotation, x = dp.Rotation.from_seed(dim, b"public"), np.random.default_rng(0).normal(size=dim)
    for trials in (1, 4, 16, 64):
        mechanism = dp.poisson_binomial(
            dim=dim, clip_norm=1.0, noise_multiplier=1.0, num_clients=100, shares=90, trials=trials
        )
        biases = mechanism.biases(x, rotation)
        tossed = best(functools.partial(dp.binomial, rng, trials, biases))
        whole = best(functools.partial(mechanism.encode, x, rotation, rng))
        print(f"poisson binomial, {trials} coins: {dim / tossed / 1e6:.1f} M values/s, "
              f"encode, d={dim}: {whole * 1e3:.1f} ms")  # fmt: skip


def clip(rows: int, dim: int) -> None:
    batch = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    ours = best(lambda: dp.clip_and_sum(batch, 1.0))

    def textbook() -> object:
        norms = np.linalg.norm(batch, axis=1, keepdims=True)
        return (batch * np.minimum(1.0, 1.0 / norms)).sum(axis=0)

    start = time.perf_counter()
    textbook()
    other = time.perf_counter() - start
    print(f"clip and sum {rows} x {dim} float32: {ours:.3f} s; textbook numpy {other:.2f} s")


def main() -> None:
    rng = aes_stream()
    samplers(rng)
    opendp(10.0)
    encode(rng, 200_000)
    coins(rng, 200_000)
    clip(256, 1_000_000)


if __name__ == "__main__":
    main()
