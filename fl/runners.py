"""How a cohort is trained on one worker, a chunk of clients at a time.

On a CPU a vmapped cohort holds every client's weights at once and falls out of cache, two to three
times slower for dense models; convolutions are an order of magnitude slower inside a compiled loop
than outside. So dense models run in a compiled loop over clients ("scan"), models with
convolutions one compiled step at a time ("steps"), and an accelerator takes a chunk of clients
side by side ("vmap"). "debug" runs step by step and says where a client fails.

Memory is chunk x (examples + parameters), whatever the size of the cohort: results are handed on
chunk by chunk.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from numpy.typing import NDArray

from fl import programs
from fl._validate import choice_fault, integer_fault
from fl.algorithms.base import Algorithm
from fl.client import Steps, Update, bucket_of, buckets, local_steps, steps_shape
from fl.datasets.dataset import FederatedDataset
from fl.errors import LocalTrainingError, PlanError, fault
from fl.types import Purpose, PyTree

STRATEGIES = ("auto", "scan", "steps", "vmap", "debug")
_ONE_BY_ONE = ("steps", "debug")
# Where a chunk is chosen: a compiled call costs some 0.1 ms, so small clients share one.
_SCAN_BYTES, _SCAN_CHUNK = 2**21, 16
_VMAP_BYTES, _VMAP_CHUNK = 2**30, 64
# To an accelerator a chunk's examples take longer to copy than to train on.
_RESIDENT_BYTES = 2**31

StateOf = Callable[[int], PyTree]


class Trained(NamedTuple):
    """The messages of a chunk of clients; rows belong to `client_ids`.

    Attributes:
        client_ids: int64[K], ascending.
        vectors: f32[K, d].
        finite: bool[K]; a client that is not finite has the zero vector.
        clipped: bool[K]; whose message was longer than the bound.
        metrics: name -> (sum f32[K], count f32[K]), for their owners.
        states: what the clients keep, [K, ...].
    """

    client_ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    finite: NDArray[np.bool_]
    clipped: NDArray[np.bool_]
    metrics: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    states: PyTree


@dataclass(frozen=True)
class Execution:
    """How, not what: models agree between strategies and chunks to float tolerance.

    Attributes:
        strategy: "scan", "steps", "vmap", "debug" (see the module), or "auto": chosen from model
            and backend.
        chunk: clients in flight, the one knob for memory; None to choose. "steps" and "debug"
            take one client at a time.
    """

    strategy: str = "auto"
    chunk: int | None = None

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values."""
        found = choice_fault("strategy", self.strategy, STRATEGIES)
        if self.chunk is not None:
            found += integer_fault("chunk", self.chunk, 1, 2**20)
            if not found and self.strategy in _ONE_BY_ONE and self.chunk != 1:
                found += (fault("chunk", self.chunk, f"1 with the strategy {self.strategy}"),)
        return found


@dataclass(frozen=True)
class Runner:
    """Trains clients by one strategy.

    Attributes:
        algorithm: the algorithm.
        data: the clients' examples.
        seed: the run seed.
        max_norm: bound on a message's l2 norm, or None.
        strategy: one of STRATEGIES but "auto".
        chunk: clients in flight.
        resident: "vmap" only: all clients' examples stay on the device, not a chunk's at a time.
    """

    algorithm: Algorithm
    data: FederatedDataset
    seed: int
    max_norm: float | None
    strategy: str
    chunk: int
    resident: bool = False

    def train(
        self, broadcast: PyTree, round_index: int, client_ids: Sequence[int], state_of: StateOf
    ) -> Iterator[Trained]:
        """Trains the given clients from `broadcast`, each once, chunk by chunk.

        Args:
            broadcast: what the server sent.
            round_index: from 0.
            client_ids: ids in any order; what a client sends does not depend on the others.
            state_of: client id -> what it kept from its last round.

        Raises:
            LocalTrainingError: a client failed, where the strategy is "debug".
        """
        ids = np.sort(np.asarray(client_ids, dtype=np.int64))
        padded = bucket_of(self.data.sizes[ids], self._buckets)
        run = self._one_by_one if self.strategy in _ONE_BY_ONE else self._together
        for bucket in np.unique(padded).tolist():
            members = ids[padded == bucket]
            for start in range(0, len(members), self.chunk):
                chosen = members[start : start + self.chunk]
                update = run(broadcast, round_index, chosen, bucket, state_of)
                yield _trained(chosen, update)

    @functools.cached_property
    def _buckets(self) -> tuple[int, ...]:
        return buckets(self.data.sizes)

    def _steps(self, client: int, bucket: int, round_index: int) -> Steps:
        size = int(self.data.sizes[client])
        return local_steps(size, bucket, self.algorithm.batching, self.seed, round_index, client)

    def _together(
        self,
        broadcast: PyTree,
        round_index: int,
        ids: NDArray[np.int64],
        bucket: int,
        state_of: StateOf,
    ) -> Update:
        shape = (self.chunk, *steps_shape(bucket, self.algorithm.batching))
        index, mask = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32)
        count = np.zeros(self.chunk, dtype=np.int32)
        labels = np.zeros((self.chunk, 3), dtype=np.uint32)
        for k, client in enumerate(ids.tolist()):
            steps = self._steps(client, bucket, round_index)
            index[k], mask[k], count[k] = steps.index, steps.mask, steps.count
            labels[k] = (Purpose.TRAINING, round_index, client)
        states = [state_of(client) for client in ids.tolist()]
        states += states[:1] * (self.chunk - len(ids))
        chunk = {
            "index": index, "mask": mask, "count": count, "labels": labels,
            "state": jax.tree.map(lambda *leaves: np.stack(leaves), *states),
        }  # fmt: skip
        common = (self.algorithm, self.max_norm, broadcast, programs.seed_words(self.seed))
        update: Update
        if self.strategy == "scan":
            chunk["examples"] = self._examples(ids, bucket)
            update = programs.scan_chunk(*common, chunk, np.int32(len(ids)))
            return update
        if self.resident:
            starts, examples = self.data.offsets[ids], self._on_device
        else:
            starts = np.arange(len(ids)) * bucket
            examples = {
                name: field.reshape(-1, *field.shape[2:])
                for name, field in self._examples(ids, bucket).items()
            }
        index[: len(ids)] += starts[:, None, None].astype(np.int32)
        update = programs.vmap_chunk(*common, chunk, examples)
        return update

    @functools.cached_property
    def _on_device(self) -> dict[str, Any]:
        """All examples, where chunks are trained."""
        found: dict[str, Any] = jax.device_put(dict(self.data.fields))
        return found

    def _examples(self, ids: NDArray[np.int64], bucket: int) -> dict[str, NDArray[Any]]:
        """Fields [chunk, bucket, ...]; a single client without padding is not copied."""
        if self.chunk == 1 and int(self.data.sizes[ids[0]]) == bucket:
            return {name: field[None] for name, field in self.data.client(int(ids[0])).items()}
        found = {
            name: np.zeros((self.chunk, bucket, *field.shape[1:]), dtype=field.dtype)
            for name, field in self.data.fields.items()
        }
        for k, client in enumerate(ids.tolist()):
            for name, field in self.data.client(client).items():
                found[name][k, : len(field)] = field
        return found

    def _one_by_one(
        self,
        broadcast: PyTree,
        round_index: int,
        ids: NDArray[np.int64],
        bucket: int,
        state_of: StateOf,
    ) -> Update:
        client = int(ids[0])
        steps, examples = self._steps(client, bucket, round_index), self.data.client(client)
        before = state_of(client)
        labels = np.array([Purpose.TRAINING, round_index, client], dtype=np.uint32)
        check = _Watch(client, self.strategy == "debug")
        with check("client_init", broadcast=broadcast, client_state=before):
            state, key = programs.begin_client(
                self.algorithm, broadcast, before, programs.seed_words(self.seed), labels
            )
            check.result(state)
        for s in range(steps.count):
            batch = {name: field[steps.index[s]] for name, field in examples.items()}
            batch["mask"] = steps.mask[s]
            with check(f"client_step {s}", state=state, batch=batch):
                state = programs.step_client(self.algorithm, state, batch, key, np.uint32(s))
                check.result(state)
        with check("client_final", state=state):
            update = programs.end_client(self.algorithm, self.max_norm, before, state)
            check.result(update)
        row: Update = jax.tree.map(lambda leaf: np.asarray(leaf)[None], update)
        return row


class _Watch:
    """Names the stage, the client and the inputs of whatever fails inside; inert unless asked.

    A donated input is gone once its step has run, so inputs are copied first.
    """

    def __init__(self, client: int, watching: bool) -> None:
        self._client, self._watching = client, watching
        self._stage = ""
        self._inputs: dict[str, Any] = {}

    def __call__(self, stage: str, **inputs: PyTree) -> "_Watch":
        if self._watching:
            self._stage, self._inputs = stage, jax.tree.map(np.array, inputs)
        return self

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._watching and isinstance(error, Exception):
            if isinstance(error, LocalTrainingError):
                return
            raise LocalTrainingError(self._stage, self._client, str(error), self._inputs) from error

    def result(self, tree: PyTree) -> None:
        """Takes what the stage gave.

        Raises:
            LocalTrainingError: a number in it is not finite.
        """
        if not self._watching:
            return
        bad = [
            jax.tree_util.keystr(path)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all()
        ]
        if isinstance(tree, Update) and not tree.finite:
            bad.append(".vector")
        if bad:
            what = f"gave numbers that are not finite in {', '.join(bad)}"
            raise LocalTrainingError(self._stage, self._client, what, self._inputs)


def _trained(ids: NDArray[np.int64], update: Update) -> Trained:
    rows: Any = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], update)
    return Trained(ids, rows.vector, rows.finite, rows.clipped, rows.metrics, rows.state)


def runner_for(
    execution: Execution,
    algorithm: Algorithm,
    data: FederatedDataset,
    seed: int,
    max_norm: float | None,
    broadcast: PyTree,
    client_state: PyTree,
) -> Runner:
    """Chooses strategy and chunk; compiles nothing.

    Args:
        execution: what was asked for.
        algorithm: the algorithm.
        data: the clients' examples.
        seed: the run seed.
        max_norm: bound on a message's l2 norm, or None.
        broadcast: what a server sends, arrays or jax.ShapeDtypeStruct.
        client_state: what a client keeps, likewise.

    Raises:
        PlanError: `execution` has faults.
    """
    if found := execution.faults():
        raise PlanError(found)
    strategy = execution.strategy
    if strategy == "auto":
        strategy = _strategy(algorithm, data, broadcast, client_state)
    largest = buckets(data.sizes)[-1]
    one = largest * sum(field[:1].nbytes for field in data.fields.values())
    one += sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(broadcast))
    room, most = (_VMAP_BYTES, _VMAP_CHUNK) if strategy == "vmap" else (_SCAN_BYTES, _SCAN_CHUNK)
    chunk = execution.chunk or max(1, min(most, room // max(one, 1)))
    if strategy in _ONE_BY_ONE:
        chunk = 1
    held = sum(field.nbytes for field in data.fields.values())
    resident = strategy == "vmap" and jax.default_backend() != "cpu" and held <= _RESIDENT_BYTES
    return Runner(algorithm, data, seed, max_norm, strategy, chunk, resident)


def _strategy(
    algorithm: Algorithm, data: FederatedDataset, broadcast: PyTree, client_state: PyTree
) -> str:
    if jax.default_backend() != "cpu":
        return "vmap"
    _, size = steps_shape(buckets(data.sizes)[-1], algorithm.batching)
    batch = {
        name: np.zeros((size, *field.shape[1:]), field.dtype) for name, field in data.fields.items()
    }
    batch["mask"] = np.zeros(size, np.float32)

    def one_step(broadcast: PyTree, client_state: PyTree, batch: Any, key: jax.Array) -> Any:
        state = algorithm.client_init(broadcast, client_state, key)
        return algorithm.client_step(state, batch, key)

    traced = jax.make_jaxpr(one_step)(
        broadcast, client_state, batch, jax.eval_shape(lambda: jax.random.key(0))
    )
    return "steps" if _convolves(traced.jaxpr) else "scan"


def _convolves(jaxpr: Any) -> bool:
    """Whether a convolution of `jax.lax` is anywhere in a traced function."""
    return any(
        eqn.primitive.name == "conv_general_dilated"
        or any(_convolves(inner) for inner in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )
