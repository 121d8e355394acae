"""Makes an environment for each peer: their pins exclude each other, and ours.

    python -m benchmarks.peers.environments [fedjax pfl flower factorizations accounting]
        [--folder build/peers]

FOLDER/NAME/bin/python is then what the benchmarks take. An environment that is there is left alone;
one that was not finished is made again. Some take minutes and gigabytes: torch brings CUDA along.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path("build/peers")
NEEDS = {
    # The last release of FedJAX; jax.tree_map, which it calls, is gone from later ones of JAX.
    "fedjax": (
        "fedjax==0.0.17", "jax==0.4.23", "jaxlib==0.4.23", "numpy<2", "scipy<1.13",
        "dm-haiku==0.0.11", "optax==0.1.8", "chex==0.1.85",
    ),
    "pfl": ("pfl==0.6.0", "torch==2.14.1"),
    "flower": ("flwr[simulation]==1.41.0", "torch==2.14.1"),
    "factorizations": ("jax-privacy==2.0.0", "jax==0.10.2", "numpy==2.4.6"),
    "accounting": ("dp-accounting==0.6.0", "opendp==0.16.0", "cryptography"),
    "opacus": ("opacus==1.6.0", "torch==2.13.0"),
}  # fmt: skip


def make(name: str, folder: Path) -> None:
    """Makes FOLDER/NAME."""
    place = folder / name
    done = place / "done"
    if done.exists():
        print(f"{name}: there")
        return
    if place.exists():
        shutil.rmtree(place)
    inside = str(place / "bin" / "python")
    run = [
        [sys.executable, "-m", "venv", str(place)],
        [inside, "-m", "pip", "install", "--quiet", *NEEDS[name]],
    ]
    for command in run:
        subprocess.run(command, check=True)  # noqa: S603 - this interpreter and its pip
    done.touch()
    print(f"{name}: made")


def main() -> None:
    """Makes the environments asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=[*NEEDS])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    if wrong := [name for name in given.names if name not in NEEDS]:
        parser.error(f"no environment {', '.join(wrong)}, takes some of {', '.join(NEEDS)}")
    for name in given.names:
        make(name, given.folder)


if __name__ == "__main__":
    main()
