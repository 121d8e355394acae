"""Auditing a training run: an attack on the whole pipeline stands beside the guarantee.

    python examples/auditing.py

Canaries, clients made by the auditor, join the run, each present by a secret coin. Then every
adversary of the privacy statement looks at what it sees (the server: the noised sums, and all that
the other clients put in) and guesses the coins. Many right guesses prove that much leaks: a lower
bound on epsilon. It stays below the claim as long as the claim and the code are right; a bound of 0
proves nothing. `python -m fl audit` attacks a finished run's plan or a job. Needs the extra "data".
"""

import argparse

import optax

import fl
from fl.audit import audit


def main() -> None:
    """Audits one plan and prints, for each adversary, what leaks at least and at most."""
    parser = argparse.ArgumentParser(description="Attack a run with canaries.")
    parser.add_argument("--quick", action="store_true", help="2 rounds in place of 10")
    rounds = 2 if parser.parse_args().quick else 10

    data = fl.datasets.digits(clients=100, partition="dirichlet:1.0", seed=0)
    model = fl.models.logistic(num_features=64, num_classes=10)
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
        eval_every=10,
    )  # fmt: skip
    found = audit(plan, model, data, canaries=300, significance=0.05)
    print(f"{found.canaries} canaries joined 100 clients; coins to guess: {found.guesses}")
    for row in found.rows:
        print(
            f"{row.adversary}: {row.correct} right, so epsilon is at least {row.lower:.2f} "
            f"(95 % confidence); claimed is at most {row.claimed:.2f}"
        )
        print("  the claim is refuted: a bug" if row.refuted else "  the claim stands")


if __name__ == "__main__":
    main()
