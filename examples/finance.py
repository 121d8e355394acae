"""Branches of a bank predict credit default without showing anybody their customers.

    python examples/finance.py --data-dir DATA

500 branches with some 48 customers each send one masked, noised update a round; a branch's whole
book is protected (unit="client") against the server and a twentieth of the branches. The same
model is then trained without privacy: the difference is what privacy costs here.
DATA holds credit-card-default/: docs/datasets.md says where its file comes from.
"""

import argparse
from pathlib import Path

import optax

import fl


def main() -> None:
    """Trains with and without privacy and prints both accuracies, and the statement."""
    parser = argparse.ArgumentParser(description="Credit default over branches.")
    parser.add_argument("--data-dir", type=Path, required=True, help="holds credit-card-default/")
    parser.add_argument("--quick", action="store_true", help="4 rounds in place of 20")
    arguments = parser.parse_args()

    data = fl.datasets.credit_default(arguments.data_dir, clients=500, partition="iid", seed=0)
    model = fl.models.logistic(num_features=data.fields["x"].shape[1], num_classes=2)
    algorithm = fl.fedavg(
        model.loss,
        client_optimizer=optax.sgd(1.0),
        server_optimizer=optax.sgd(1.0, momentum=0.9),
        batch_size=None,
        local_epochs=5,
    )
    private = fl.Privacy(
        unit="client", against="server", epsilon=4.0, delta=1e-3, clip_norm=0.3,
        mechanism="skellam",
    )  # fmt: skip
    # Ideal computes the very sums of the masked protocol, without its cryptography: faster.
    masked = fl.Ideal(corrupt=0.05, dropout=0.1, simulate_dropout={"mask_input": 0.05})
    plans: dict[str, tuple[fl.Privacy | fl.NotPrivate, fl.Ideal | fl.Plain]] = {
        "private": (private, masked),
        "not private": (fl.NotPrivate(), fl.Plain()),
    }
    always = 1 - (data.test or {})["y"].mean()
    print(f"always answering 'no default': {always:.1%}")
    for name, (privacy, aggregation) in plans.items():
        plan = fl.Plan(
            rounds=4 if arguments.quick else 20,
            cohort=fl.cohort.full(),
            algorithm=algorithm,
            privacy=privacy,
            aggregation=aggregation,
            seed=0,
            eval_every=20,
        )
        run = fl.train(plan, model, data)
        print(f"{name}: accuracy {run.metrics['accuracy']:.1%} on 6,046 other customers")
        print(run.privacy)


if __name__ == "__main__":
    main()
