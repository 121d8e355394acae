"""What an empty environment has after `pip install .`: three packages, each of use alone.

    build/empty/bin/python -I tests/installed.py

Run by `make package`, without the checkout on the import path (-I). The extras are truly absent
there, so what needs one must name it.
"""

import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ABSENT = ("sklearn", "matplotlib", "jinja2", "pandas", "pyarrow", "flax", "equinox", "flwr")
BLOCK = "import sys\nsys.modules.update(dict.fromkeys({!r}))\n"  # as if they were not installed
DP = """
import dp
relation = dp.NeighboringRelation.ADD_REMOVE
print(dp.epsilon(dp.GaussianEvent(1.0), delta=1e-5, neighboring=relation).upper)
"""
SECUREAGG = """
import numpy, secureagg
segments, server = {"x": (2, 16)}, "malicious"
params = secureagg.choose_params(
    10, segments, corrupt=0.1, dropout=0.1, server=server, rounds=1)
inputs = {i: numpy.array([i, 1]) for i in range(10)}
print(secureagg.run_round(params, inputs).sums["x"].tolist())
"""
FL = """
import numpy, optax, fl
ids = numpy.arange(8).repeat(4)
fields = {"x": numpy.eye(2, dtype="f4")[ids % 2], "y": (ids % 2).astype("i4")}
data = fl.FederatedDataset.from_arrays(fields, ids, test=fields, num_classes=2, name="own")
model = fl.models.logistic(2, 2)
plan = fl.Plan(
    rounds=3, cohort=fl.cohort.full(), seed=0, privacy=fl.NotPrivate(max_norm=4.0),
    algorithm=fl.fedsgd(model.loss, server_optimizer=optax.sgd(1.0)),
    aggregation=fl.Secure(corrupt=0.0, dropout=0.25, server="semi_honest"))
print(fl.train(plan, model, data).metrics["accuracy"])
"""
# What each package must do without, and what it must do.
ALONE = {
    "dp": (("jax", "optax", "cryptography", "tyro", "tqdm", "secureagg", "fl"), DP),
    "secureagg": (("jax", "optax", "tyro", "tqdm", "dp", "fl"), SECUREAGG),
    "fl": (ABSENT, FL),
}
EXTRAS = {
    "data": "import fl; fl.datasets.digits(clients=2, partition='iid', seed=0)",
    "tables": "import fl; fl.datasets.from_csv('none.csv')",
    "models": "import fl; fl.models.from_equinox(lambda key: None)",
    "report": "import fl; import pathlib; fl.write_report(pathlib.Path(), {}, [])",
}


def python(code: str, blocked: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Runs code in a fresh interpreter of this environment, in an empty directory."""
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run(
            [sys.executable, "-I", "-c", BLOCK.format(blocked) + code],
            capture_output=True, text=True, check=False, cwd=empty,
        )  # fmt: skip


def require(met: bool, otherwise: str) -> None:
    """Ends with a message unless it is met; works under -O too."""
    if not met:
        sys.exit(f"error: {otherwise}")


def main() -> None:
    """Checks everything; stops at what is not so."""
    site = Path(sysconfig.get_paths()["purelib"]).resolve()
    present = [name for name in ABSENT if importlib.util.find_spec(name)]
    require(not present, f"not an empty environment: it has {present}")
    for package, (blocked, code) in ALONE.items():
        spec = importlib.util.find_spec(package)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        installed = origin is not None and origin.parent.parent == site
        require(installed, f"{package} is imported from {origin}")
        done = python(code, blocked)
        require(done.returncode == 0, f"{package}: {done.stderr}")
        print(f"{package} works without {', '.join(blocked)}: {done.stdout.strip()}")
    for extra, code in EXTRAS.items():
        said = python(code).stderr.strip().splitlines() or ["no error"]
        require(f"pip install 'private-aggregation[{extra}]'" in said[-1], f"{extra}: {said[-1]}")
        print(said[-1])
    command = Path(sys.executable).with_name("fl")
    listed = subprocess.run([command, "datasets"], capture_output=True, text=True, check=True)
    require("heart-disease" in listed.stdout, "fl datasets does not list heart-disease")
    print("fl datasets: lists what there is")


if __name__ == "__main__":
    main()
