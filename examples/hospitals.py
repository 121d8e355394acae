"""Four hospitals train one model of heart disease; no patient can be told from the result.

    python examples/hospitals.py --data-dir DATA

Four organisations cannot hide among each other, so what is protected is a single patient
(unit="record"): each patient's gradient is clipped, a secret coin decides which patients join a
round, and every hospital adds noise that hides any one of them. The server sees masked sums only,
and one of the four may be on its side (corrupt=0.25).
DATA holds heart-disease/: docs/datasets.md says where its four files come from.
"""

import argparse
from pathlib import Path

import optax

import fl


def main() -> None:
    """Trains, and prints what was planned, what each round gave, and what was spent."""
    parser = argparse.ArgumentParser(description="Record-level privacy across hospitals.")
    parser.add_argument("--data-dir", type=Path, required=True, help="holds heart-disease/")
    parser.add_argument("--quick", action="store_true", help="4 rounds in place of 40")
    arguments = parser.parse_args()

    data = fl.datasets.heart_disease(arguments.data_dir)
    for hospital, size in zip(fl.datasets.HOSPITALS, data.sizes, strict=True):
        print(f"{hospital}: {size} patients")
    model = fl.models.logistic(num_features=data.fields["x"].shape[1], num_classes=2)
    plan = fl.Plan(
        rounds=4 if arguments.quick else 40,
        cohort=fl.cohort.full(),
        algorithm=fl.fedsgd(model.loss, server_optimizer=optax.sgd(0.5, momentum=0.5)),
        privacy=fl.Privacy(
            unit="record", record_sampling=0.2, against="server", epsilon=2.0, delta=1e-5,
            clip_norm=1.0, mechanism="skellam",
        ),
        aggregation=fl.Secure(corrupt=0.25, dropout=0.0, server="malicious"),
        seed=0,
        eval_every=4,
    )  # fmt: skip
    print("Before training:")
    print(fl.resolve(plan, data, model=model).privacy)
    training = fl.rounds(plan, model, data)
    for done in training:
        if done.metrics:
            print(
                f"round {done.index}: accuracy {done.metrics['accuracy']:.1%} on 303 other "
                f"patients, epsilon so far {done.epsilon:.2f}"
            )
    sent = (done.cost.upload_bytes or 0) / data.num_clients
    print(f"Each hospital sent {sent:,.0f} bytes in the last round.")


if __name__ == "__main__":
    main()
