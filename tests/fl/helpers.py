"""Small data and plans that tests share."""

from typing import Any

import jax
import numpy as np
import optax
from numpy.typing import NDArray

import dp
import fl
from fl.statement import statement
from fl.types import PyTree

MODEL = fl.models.logistic(4, 3)
KEY = jax.random.key(0)


def small_data(
    num_clients: int = 12,
    examples: int = 5,
    seed: int = 0,
    x: NDArray[np.float32] | None = None,
) -> fl.FederatedDataset:
    """Clients with equally many examples [4] of three classes; the test set is the same."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(num_clients), examples)
    y = rng.integers(0, 3, len(ids)).astype(np.int32)
    if x is None:
        x = (rng.normal(size=(len(ids), 4)) + y[:, None]).astype(np.float32)
    fields = {"x": x, "y": y}
    return fl.FederatedDataset.from_arrays(
        fields, ids, test=fields, num_clients=num_clients, num_classes=3, name="small"
    )


def algorithm(**overrides: Any) -> fl.Algorithm:
    settings: dict[str, Any] = {
        "client_optimizer": optax.sgd(0.5),
        "server_optimizer": optax.sgd(1.0, momentum=0.5),
        "batch_size": None,
        "local_epochs": 2,
    }
    return fl.fedavg(MODEL.loss, **{**settings, **overrides})


ALGORITHM = algorithm()  # one object, so that its programs are compiled once for all tests


def privacy(**overrides: Any) -> fl.Privacy:
    settings: dict[str, Any] = {
        "unit": "client",
        "against": "server",
        "epsilon": 8.0,
        "delta": 1e-3,
        "clip_norm": 0.5,
        "mechanism": "skellam",
    }
    return fl.Privacy(**{**settings, **overrides})


def ideal(**overrides: Any) -> fl.Ideal:
    settings: dict[str, Any] = {"corrupt": 0.1, "dropout": 0.25}
    return fl.Ideal(**{**settings, **overrides})


def secure(**overrides: Any) -> fl.Secure:
    settings: dict[str, Any] = {"corrupt": 0.1, "dropout": 0.25, "server": "semi_honest"}
    return fl.Secure(**{**settings, **overrides})


def plan(**overrides: Any) -> fl.Plan:
    settings: dict[str, Any] = {
        "rounds": 3,
        "cohort": fl.cohort.full(),
        "algorithm": ALGORITHM,
        "privacy": privacy(),
        "aggregation": ideal(),
        "seed": 7,
    }
    return fl.Plan(**{**settings, **overrides})


def leaves(params: PyTree) -> list[NDArray[Any]]:
    """The leaves of a tree in canonical order."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def params_bytes(params: PyTree) -> bytes:
    """The bytes of a tree of arrays, leaves in canonical order."""
    return b"".join(leaf.tobytes() for leaf in leaves(params))


def flat(params: Any) -> NDArray[np.float64]:
    """The parameters of MODEL as one vector: b[3], then w[4, 3]."""
    return np.concatenate([np.asarray(params["b"]), np.asarray(params["w"]).ravel()])


def rows(resolved: fl.Resolved, ledger: dp.Ledger | None = None) -> dict[str, fl.Row]:
    """The statement's rows by adversary."""
    return {row.adversary: row for row in statement(resolved.exposure, ledger).rows}


def released_norms(privacy: fl.Privacy) -> list[tuple[int, float]]:
    """(survivors, norm of the released mean) of equal updates, with everybody and with dropouts."""
    x = np.ones((60, 4), np.float32)
    data = fl.FederatedDataset.from_arrays(
        {"x": x, "y": np.zeros(60, np.int32)}, np.repeat(np.arange(12), 5), num_classes=3
    )
    found = []
    for rate in (0.0, 0.9):
        private = plan(
            rounds=1, privacy=privacy, seeded_secrets=True,
            aggregation=ideal(simulate_dropout={"mask_input": rate}),
        )  # fmt: skip
        (r,) = fl.rounds(private, MODEL, data)
        found.append((len(r.survivors), float(np.linalg.norm(r.params["b"]))))
    return found


def upper(interval: dp.Interval | None) -> float:
    """The upper end of a figure that there is."""
    assert interval is not None
    return interval.upper


def mechanism_of(resolved: fl.Resolved) -> dp.DistributedMechanism:
    """Of a plan with noise shares."""
    assert isinstance(resolved.exposure.mechanism, dp.DistributedMechanism)
    return resolved.exposure.mechanism
