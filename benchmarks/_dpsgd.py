"""The rows of benchmarks/simulation_speed.py where records are hidden: DP-SGD, beside Opacus."""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fl
from benchmarks._results import Row
from benchmarks._script import ask_peer, beside_us, versions_text
from benchmarks._timing import cpu_seconds
from benchmarks._training import mnist_like, model_of, plan_of
from fl.records import record_messages, records_at_once
from fl.tree import raveler
from fl.types import PyTree

RECORDS, CLIP, RATE = 64, 1.0, 0.1
_EPSILON = 8.0
_CNN_LAYERS, _CNN_CHANNELS, _CNN_FLAT = ("conv1", "conv2", "dense", "out"), 64, 3136


def row(name: str, given: argparse.Namespace) -> Row:
    """Steps of ours, Opacus' right after them, and ours once more."""
    made = fl.models.cnn(784, 10, form="im2col") if name == "cnn" else model_of(name)
    data, start = mnist_like(1, RECORDS), made.init(jax.random.key(0))
    model, steps = replace(made, init=lambda _: start), given.repeats + 2
    plan = plan_of(
        model, steps, aggregation=fl.Plain(),
        algorithm=fl.fedsgd(model.loss, server_optimizer=optax.sgd(RATE)),
        privacy=fl.Privacy(
            unit="record", record_sampling=1.0, against="outsider", epsilon=_EPSILON, delta=1e-5,
            clip_norm=CLIP, mechanism="gaussian",
        ),
    )  # fmt: skip
    noise = fl.resolve(plan, data, model=model).noise_multiplier or 0.0
    taken, trained = step_seconds(plan, model, data)
    runs, peers = [taken], {}
    if beside_us(given, ("opacus",)):
        peers = beside_opacus(name, data, start, steps, noise, given.folder)
        runs.append(step_seconds(plan, model, data)[0])
    alone = Alone(plan.algorithm, data)
    return {
        "cpu_seconds": statistics.mean(runs), "runs": runs, "records": RECORDS, "steps": steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(start)), "noise_multiplier": noise,
        "gradients_seconds": cpu_seconds(lambda: alone.sum(start), repeats=given.repeats),
        "first_loss": alone.loss(model, start), "noised_loss": alone.loss(model, trained),
        "loss": alone.loss(model, alone.descend(start, steps)), "peers": peers,
    }  # fmt: skip


def step_seconds(plan: fl.Plan, model: fl.Model, data: fl.FederatedDataset) -> tuple[float, PyTree]:
    """Median CPU seconds of a round after the first, and the parameters after the last."""
    marks, trained = [], None
    for finished in fl.rounds(plan, model, data):
        marks.append(time.process_time())
        trained = finished.params
    return statistics.median(np.diff(marks[:-1]).tolist()), trained


@dataclass(frozen=True)
class Alone:
    """Gradients of the batch clipped one by one and summed as floats, without any noise.

    Attributes:
        algorithm: whose messages they are.
        data: one client with the batch.
    """

    algorithm: fl.Algorithm
    data: fl.FederatedDataset

    def sum(self, params: PyTree) -> jax.Array:
        """f32[d]."""
        sent = self.algorithm.broadcast(self.algorithm.init(params))
        key = jax.random.key(0)  # of dropout layers, which the models have not
        dim = sum(leaf.size for leaf in jax.tree.leaves(params))
        total, width = jnp.zeros(dim), records_at_once(dim)
        for start in range(0, RECORDS, width):
            records = {
                name: field[start : start + width] for name, field in self.data.fields.items()
            }
            ids = np.arange(start, start + len(records["y"]), dtype=np.uint32)
            total += record_messages(self.algorithm, CLIP, sent, records, ids, key).sum(axis=0)
        return total.block_until_ready()

    def descend(self, params: PyTree, steps: int) -> PyTree:
        """The parameters after so many steps."""
        unravel = raveler(params).unravel
        for _ in range(steps):
            step = unravel(RATE * self.sum(params) / RECORDS)
            params = jax.tree.map(jnp.subtract, params, step)
        return params

    def loss(self, model: fl.Model, params: PyTree) -> float:
        """Of the batch."""
        batch = jax.tree.map(
            jnp.asarray, {**self.data.fields, "mask": np.ones(RECORDS, np.float32)}
        )
        return float(model.loss(params, batch, jax.random.key(0)))


def beside_opacus(
    name: str, data: fl.FederatedDataset, params: PyTree, steps: int, noise: float, folder: Path
) -> Row:
    """The same steps by Opacus, from the same weights."""
    with tempfile.TemporaryDirectory() as place:
        start = Path(place) / "start.npz"
        weights = {f"w{number}": array for number, array in enumerate(torch_weights(name, params))}
        np.savez(start, **{**data.fields, **weights}, allow_pickle=False)
        asked = {
            "model": name, "start": start, "clip": CLIP, "noise": noise, "rate": RATE,
            "steps": steps,
        }  # fmt: skip
        found = ask_peer(folder, "opacus", "opacus_step.py", asked)
    used = found.pop("versions")
    return {f"opacus, {kind}": {**one, "versions": used} for kind, one in found.items()}


def torch_weights(name: str, params: PyTree) -> list[np.ndarray]:
    """Weights and biases, layer by layer, as torch lays them out: outputs and channels first."""
    layers = [params[key] for key in _CNN_LAYERS] if name == "cnn" else params
    found = []
    for layer in layers:
        weight = np.asarray(layer["w"])
        if weight.ndim == 2 and weight.shape[0] == _CNN_FLAT:  # its pixels are in front here
            weight = weight.reshape(-1, _CNN_CHANNELS, weight.shape[1]).swapaxes(0, 1)
            weight = weight.reshape(_CNN_FLAT, -1)
        outputs_first = weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight.T
        found += [np.ascontiguousarray(outputs_first), np.asarray(layer["b"])]
    return found


def text(name: str, found: Row) -> str:
    """Ours, and Opacus with the losses after the same steps."""
    cpu, alone = found["cpu_seconds"], found["gradients_seconds"]
    lines = [
        f"{name}: {cpu:.4f} CPU s per step of {found['records']} records, gradients alone"
        f" {alone:.4f}; loss {found['first_loss']:.4f}, after {found['steps']} steps"
        f" {found['loss']:.4f} without noise, {found['noised_loss']:.4f} with"
    ]
    for peer, one in found["peers"].items():
        lines.append(
            f"  {peer}: {one['cpu_seconds']:.4f} CPU s per step, {one['cpu_seconds'] / cpu:.3g}x"
            f" ours, {one['cpu_seconds'] / alone:.3g}x our gradients alone; loss"
            f" {one['loss']:.4f} without noise, {one['noised_loss']:.4f} with"
            f" ({versions_text(one)})"
        )
    return "\n".join(lines)
