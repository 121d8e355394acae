"""Private federated training of a model written with Equinox.

    python examples/equinox_model.py

Needs the extras "data" and "models". The module takes one example, as Equinox has it;
`from_equinox` gives init and apply over batches, and `classifier` the loss and metrics that ignore
padding.
"""

import argparse

import equinox as eqx
import jax
import optax

import fl


def perceptron(key: jax.Array) -> eqx.nn.MLP:
    """One hidden layer of 32 units: logits [10] of pixels [64]."""
    return eqx.nn.MLP(in_size=64, out_size=10, width_size=32, depth=1, key=key)


def main() -> None:
    """Trains it on digits and prints accuracy and the privacy statement."""
    parser = argparse.ArgumentParser(description="A model of one's own.")
    parser.add_argument("--quick", action="store_true", help="2 rounds in place of 20")
    rounds = 2 if parser.parse_args().quick else 20

    data = fl.datasets.digits(clients=100, partition="dirichlet:1.0", seed=0)
    model = fl.models.classifier(*fl.models.from_equinox(perceptron))
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
