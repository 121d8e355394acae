"""First lesson: three devices train one model, and the server never sees one device's update.

    python examples/first_lesson.py

Every tutorial of federated learning has these steps: devices train on their own data, send what
they changed, and a server averages it. Here the averaging is done right: changes become integers,
the integers are masked, and only their sum can be unmasked. In the second round device 2 leaves
half way. Needs the extra "data".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import dp
import fl
import secureagg
from secureagg.messages import HEADER_BYTES, Kind

SCALE = 2**20  # steps per 1.0: updates are rounded to whole steps
BITS = 32  # of a word: sums are taken mod 2^32
DATA = fl.datasets.digits(clients=3, partition="dirichlet:1.0", seed=0)
DEVICES = [{**DATA.client(i), "mask": np.ones(DATA.sizes[i])} for i in range(3)]
TEST = jax.tree.map(jnp.asarray, {**(DATA.test or {}), "mask": np.ones(360)})
MODEL = fl.models.logistic(num_features=64, num_classes=10)
GRADIENT = jax.jit(jax.grad(MODEL.loss))


def train_locally(params: fl.types.PyTree, device: int) -> np.ndarray:
    """Twenty steps of gradient descent on one device's data; returns the change, flat."""
    now = params
    for _ in range(20):
        gradient = GRADIENT(now, DEVICES[device], jax.random.key(0))
        now = jax.tree.map(lambda p, g: p - 0.5 * g, now, gradient)
    return np.asarray(ravel_pytree(now)[0] - ravel_pytree(params)[0])


def aggregate(updates: list[np.ndarray], leaving: list[int]) -> tuple[np.ndarray, int]:
    """The sum of the updates of the devices that stay, and how many they are."""
    integers = [np.rint(update * SCALE).astype(np.int64) for update in updates]

    def on_the_wire(device: int, message: bytes) -> list[tuple[int, bytes]]:
        if message[1] == Kind.MASKED_VECTOR:
            seen = np.frombuffer(message, "<u4", offset=HEADER_BYTES)
            print(f"  device {device} holds {integers[device][:3]}, the server sees {seen[:3]}")
        return [(device, message)]

    params = secureagg.choose_params(
        3, {"update": (len(updates[0]), BITS)},
        corrupt=0.0, dropout=0.34, server="semi_honest", rounds=2,
    )  # fmt: skip
    residues = {device: values % 2**BITS for device, values in enumerate(integers)}
    dropouts = {"mask_input": leaving}
    result = secureagg.run_round(params, residues, dropouts=dropouts, wire=on_the_wire)
    total = dp.unwrap(result.sums["update"], BITS)  # residues mod 2^32 with their signs
    print(f"  the server learns {total[:3]}, the sum of devices {result.survivors}")
    return total / SCALE, len(result.survivors)


def main() -> None:
    """Trains two rounds and compares with the average that no server should be able to take."""
    flat, unravel = ravel_pytree(MODEL.init(jax.random.key(0)))
    for round_index, leaving in enumerate([[], [2]]):
        print(f"round {round_index}, the first 3 of {len(flat)} numbers:")
        updates = [train_locally(unravel(flat), device) for device in range(3)]
        total, count = aggregate(updates, leaving)
        in_the_open = sum(update for i, update in enumerate(updates) if i not in leaving)
        print(f"  off the sum in the open by at most {np.abs(total - in_the_open).max():.0e}")
        flat = flat + jnp.asarray(total / count)
        right, of = MODEL.metrics(unravel(flat), TEST)["accuracy"]
        print(f"  accuracy of the new global model: {float(right / of):.1%}")
    print("A sum still tells something about its parts: noise is the subject of hospitals.py.")


if __name__ == "__main__":
    main()
