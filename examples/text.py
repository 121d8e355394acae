"""The next character of Shakespeare, learned from 1,394 roles, each of them a client.

    python examples/text.py --data-dir DATA

A character LSTM of 818,000 parameters, as in McMahan et al. 2017. Ten roles take part in a round.
Their updates are masked and no noise is added: a private model of this size takes many more clients
than there are roles (the statement says "not private"). After training the model writes on.
DATA holds shakespeare/: docs/datasets.md says where it comes from.
"""

import argparse
import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

import fl


def write(model: fl.Model, params: fl.types.PyTree, opening: str, count: int) -> str:
    """Continues `opening` (at most 80 - count characters) by the likeliest characters."""
    written = list(fl.datasets.text.symbols(opening))
    for _ in range(count):
        window = np.zeros((1, 80), np.int32)
        window[0, : len(written)] = written
        logits = model.apply(params, jnp.asarray(window))[0, len(written) - 1]
        written.append(int(logits[2:].argmax()) + 2)  # 0 is padding, 1 an unknown character
    return "".join(fl.datasets.ALPHABET[symbol - 2] for symbol in written)


def main() -> None:
    """Trains, prints the accuracy of next characters, and lets the model write."""
    parser = argparse.ArgumentParser(description="Next characters, roles as clients.")
    parser.add_argument("--data-dir", type=Path, required=True, help="holds shakespeare/")
    parser.add_argument("--quick", action="store_true", help="2 rounds, a small model, few tests")
    arguments = parser.parse_args()

    data = fl.datasets.shakespeare(arguments.data_dir)
    print(f"{data.num_clients} roles with {len(data.fields['x']):,} windows of 80 characters")
    if arguments.quick:
        few = {name: windows[:200] for name, windows in (data.test or {}).items()}
        data = dataclasses.replace(data, test=few)
    hidden = 16 if arguments.quick else 256
    model = fl.models.char_lstm(fl.datasets.text.NUM_SYMBOLS, hidden=hidden)
    plan = fl.Plan(
        rounds=2 if arguments.quick else 30,
        cohort=fl.cohort.cyclic(3 if arguments.quick else 10),
        algorithm=fl.fedavg(
            model.loss,
            client_optimizer=optax.sgd(3.0),
            server_optimizer=optax.sgd(1.0),
            batch_size=4,
            local_epochs=1,
        ),
        privacy=fl.NotPrivate(max_norm=20.0),
        aggregation=fl.Secure(corrupt=0.0, dropout=0.1, server="semi_honest"),
        seed=0,
        eval_every=10,
    )
    for done in fl.rounds(plan, model, data):
        if "accuracy" in done.metrics:  # every tenth round, and the last
            print(f"round {done.index}: {done.metrics['accuracy']:.1%} of next characters right")
    print("It writes:", repr(write(model, done.params, "To be, or not to be", 20)))


if __name__ == "__main__":
    main()
