"""Private federated training of a model written with Flax (linen).

    python examples/flax_model.py

Needs the extras "data" and "models". The module is used as it is; `from_flax` gives its init and
apply, and `classifier` the loss and metrics that ignore padding. `fl.models.from_nnx` does the same
for flax.nnx.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import linen

import fl


class Perceptron(linen.Module):
    """One hidden layer of 32 units."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits [B, 10] of pixels [B, 64]."""
        hidden = linen.relu(linen.Dense(32)(x))
        logits: jax.Array = linen.Dense(10)(hidden)
        return logits


def main() -> None:
    """Trains it on digits and prints accuracy and the privacy statement."""
    parser = argparse.ArgumentParser(description="A model of one's own.")
    parser.add_argument("--quick", action="store_true", help="2 rounds in place of 20")
    rounds = 2 if parser.parse_args().quick else 20

    data = fl.datasets.digits(clients=100, partition="dirichlet:1.0", seed=0)
    model = fl.models.classifier(*fl.models.from_flax(Perceptron(), jnp.zeros((1, 64))))
    plan = fl.Plan(
        rounds=rounds,
        cohort=fl.cohort.full(),
        algorithm=fl.fedavg(
            model.loss,
            client_optimizer=optax.sgd(0.5),
            server_optimizer=optax.sgd(1.0, momentum=0.9),
            batch_size=None,
            local_epochs=5,
        ),
        privacy=fl.Privacy(
            unit="client", against="server", epsilon=8.0, delta=1e-3, clip_norm=0.5,
            mechanism="skellam",
        ),
        aggregation=fl.Ideal(corrupt=0.1, dropout=0.1),
        seed=0,
    )  # fmt: skip
    run = fl.train(plan, model, data)
    print(f"accuracy {run.metrics['accuracy']:.1%}")
    print(run.privacy)


if __name__ == "__main__":
    main()
