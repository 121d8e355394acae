"""A trained model leaves as an Orbax checkpoint, with its privacy statement beside it.

    python examples/export_orbax.py OUT

`Run.params` is a plain tree of JAX arrays, so whatever writes trees writes it. The statement goes
along: a model that is passed on without it is one about which nothing can be said any more.
Needs the extra "data", and Orbax: pip install orbax-checkpoint.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

import fl


def main() -> None:
    """Trains, writes OUT/params and OUT/privacy.json, reads the parameters back and compares."""
    parser = argparse.ArgumentParser(description="Export to Orbax.")
    parser.add_argument("out", type=Path, help="a directory that does not exist")
    parser.add_argument("--quick", action="store_true", help="2 rounds in place of 20")
    arguments = parser.parse_args()

    data = fl.datasets.digits(clients=100, partition="dirichlet:1.0", seed=0)
    model = fl.models.logistic(num_features=64, num_classes=10)
    plan = fl.Plan(
        rounds=2 if arguments.quick else 20,
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
    out = arguments.out.resolve()
    out.mkdir(parents=True)
    (out / "privacy.json").write_text(json.dumps(run.privacy.to_dict(), indent=1))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(out / "params", run.params)
        checkpointer.wait_until_finished()
        like = jax.eval_shape(model.init, jax.random.key(0))
        restored = checkpointer.restore(out / "params", like)
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), run.params, restored)
    print(f"accuracy {run.metrics['accuracy']:.1%}")
    print(f"{out / 'params'}: read back, bit for bit the same: {all(jax.tree.leaves(same))}")
    print(f"{out / 'privacy.json'}: {run.privacy.rows[0].worst_case}")


if __name__ == "__main__":
    main()
