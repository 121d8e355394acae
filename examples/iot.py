"""Phones that tell walking from sitting, and stations that predict air pollution.

    python examples/iot.py --data-dir DATA
    python examples/iot.py --data-dir DATA --task air

Devices are natural clients: 27 people with a phone (WISDM), tested on nine people who were not in
training; or 12 stations around Beijing, tested on the last year (PM2.5 in 100 ug/m3). So few hide
each other badly: noise for epsilon 8 costs the 27 a good part of their accuracy, and the 12 are
summed without noise here. The server sees masked sums alone, but the statement says "not private".
DATA holds wisdm/ and beijing-air-quality/: docs/datasets.md says where they come from.
"""

import argparse
from pathlib import Path

import optax

import fl


def settings(
    task: str, data_dir: Path
) -> tuple[fl.FederatedDataset, fl.Model, fl.Privacy | fl.NotPrivate]:
    """Data, model and privacy of one task."""
    if task == "air":
        air = fl.datasets.beijing_air(data_dir, by="station")
        return air, fl.models.linear(air.fields["x"].shape[1]), fl.NotPrivate(max_norm=4.0)
    people = fl.datasets.wisdm(data_dir)
    model = fl.models.logistic(people.fields["x"].shape[1], len(fl.datasets.ACTIVITIES))
    privacy = fl.Privacy(
        unit="client", against="server", epsilon=8.0, delta=1e-3, clip_norm=0.3,
        mechanism="skellam",
    )  # fmt: skip
    return people, model, privacy


def main() -> None:
    """Trains with masked sums; prints figures on the test set and the privacy statement."""
    parser = argparse.ArgumentParser(description="Sensors as clients.")
    parser.add_argument("--data-dir", type=Path, required=True, help="holds wisdm/ or the other")
    parser.add_argument("--task", choices=("activity", "air"), default="activity")
    parser.add_argument("--quick", action="store_true", help="3 rounds in place of 20")
    arguments = parser.parse_args()

    data, model, privacy = settings(arguments.task, arguments.data_dir)
    print(f"{data.num_clients} clients with {data.sizes.min()} to {data.sizes.max()} examples")
    plan = fl.Plan(
        rounds=3 if arguments.quick else 20,
        cohort=fl.cohort.full(),
        algorithm=fl.fedavg(
            model.loss,
            client_optimizer=optax.sgd(1.0 if arguments.task == "activity" else 0.1),
            server_optimizer=optax.sgd(1.0, momentum=0.5),
            batch_size=None,
            local_epochs=5,
        ),
        privacy=privacy,
        # one device in ten loses its connection before it sends; two more are planned for
        aggregation=fl.Secure(
            corrupt=0.05, dropout=0.2, server="semi_honest", simulate_dropout={"mask_input": 0.1}
        ),
        seed=0,
    )
    print("Before training:")
    print(fl.resolve(plan, data, model=model).privacy)
    for done in fl.rounds(plan, model, data):
        figures = ", ".join(f"{name} {value:.3f}" for name, value in done.metrics.items())
        print(f"round {done.index}: {len(done.survivors)} of {data.num_clients} sent, {figures}")


if __name__ == "__main__":
    main()
