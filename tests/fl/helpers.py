"""Small data and plans that tests share."""

import numpy as np
import optax

import fl

MODEL = fl.models.logistic(4, 3)


def small_data(num_clients=12, examples=5, seed=0, x=None):
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(num_clients), examples)
    y = rng.integers(0, 3, len(ids)).astype(np.int32)
    if x is None:
        x = (rng.normal(size=(len(ids), 4)) + y[:, None]).astype(np.float32)
    fields = {"x": x, "y": y}
    return fl.FederatedDataset.from_arrays(
        fields, ids, test=fields, num_clients=num_clients, num_classes=3, name="small"
    )


def algorithm(**overrides):
    settings = {
        "client_optimizer": optax.sgd(0.5),
        "server_optimizer": optax.sgd(1.0, momentum=0.5),
        "batch_size": None,
        "local_epochs": 2,
    }
    return fl.fedavg(MODEL.loss, **{**settings, **overrides})


ALGORITHM = algorithm()  # one object, so that its programs are compiled once for all tests


def privacy(**overrides):
    settings = {
        "unit": "client",
        "against": "server",
        "epsilon": 8.0,
        "delta": 1e-3,
        "clip_norm": 0.5,
        "mechanism": "skellam",
    }
    return fl.Privacy(**{**settings, **overrides})


def ideal(**overrides):
    return fl.Ideal(**{"corrupt": 0.1, "dropout": 0.25, **overrides})


def secure(**overrides):
    settings = {"corrupt": 0.1, "dropout": 0.25, "server": "semi_honest"}
    return fl.Secure(**{**settings, **overrides})


def plan(**overrides):
    settings = {
        "rounds": 3,
        "cohort": fl.cohort.full(),
        "algorithm": ALGORITHM,
        "privacy": privacy(),
        "aggregation": ideal(),
        "seed": 7,
    }
    return fl.Plan(**{**settings, **overrides})
