"""What the timings of training share: data, models and a plan of the shapes of MNIST."""

import numpy as np
import optax

import fl

WORK = {"2nn": 0.528, "cnn": 43.4}  # GFLOP of one client's epoch, forward and backward


def mnist_like(clients: int, examples: int = 600) -> fl.FederatedDataset:
    """Noise with labels; the work is that of MNIST."""
    rng = np.random.default_rng(0)
    x = rng.random((clients * examples, 784), dtype=np.float32)
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    owners = np.repeat(np.arange(clients), examples)
    return fl.FederatedDataset.from_arrays({"x": x, "y": y}, owners, num_classes=10)


def model_of(name: str) -> fl.Model:
    """The models of the rows, for MNIST's shapes."""
    if name == "cnn":
        return fl.models.cnn(784, 10, form="lax")
    return fl.models.two_nn(784, 10) if name == "2nn" else fl.models.logistic(784, 10)


def plan_of(model: fl.Model, rounds: int, **overrides: object) -> fl.Plan:
    """Federated averaging without privacy, evaluated never."""
    algorithm = fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.1), server_optimizer=optax.sgd(1.0),
        batch_size=10, local_epochs=1,
    )  # fmt: skip
    settings: dict[str, object] = {
        "rounds": rounds, "cohort": fl.cohort.full(), "algorithm": algorithm,
        "privacy": fl.NotPrivate(), "aggregation": fl.Plain(), "seed": 0, "eval_every": 10**6,
        **overrides,
    }  # fmt: skip
    return fl.Plan(**settings)  # type: ignore[arg-type]  # checked by the plan
