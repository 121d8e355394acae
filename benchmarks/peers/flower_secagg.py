"""One SecAgg+ round by Flower in one process: its own client mod and server workflow.

    python benchmarks/peers/flower_secagg.py --clients 100 --degree 20 --threshold 11 \
        --length 100000 --drop 0.3 [--repeats 3]

For the interpreter of an environment that has flwr (made for 1.41.0); it imports nothing of this
project. `SecAggPlusWorkflow` talks to a grid, here one that hands each message to
`secaggplus_mod` in the same process, with a copy of its content in place of a wire; copies are not
timed. Nor are training (a client returns a vector that is there already) and the strategy's own
aggregation. Clients that drop out do so after sharing keys. The average that comes out is checked.
The last line printed is JSON: median CPU seconds of all clients together, and of the server.
"""

import argparse
import copy
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.common import parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.server import LegacyContext, SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity

EXAMPLES = 1000  # every client's weight, and the largest
QUANTA = 1 << 22
CLIP = 8.0


class Proxy(ClientProxy):
    """A name and a node id: the workflow only sends messages."""

    def __init__(self, node_id: int) -> None:
        super().__init__(str(node_id))
        self.node_id = node_id

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the workflow sends messages over the grid")

    get_properties = get_parameters = fit = evaluate = reconnect = _unused


class Trained(NumPyClient):
    """A client whose training is over."""

    def __init__(self, vector: np.ndarray[Any, Any]) -> None:
        self.vector = vector

    def fit(self, parameters: Any, config: Any) -> tuple[list[Any], int, dict[str, Any]]:
        """Hands the vector over."""
        return [self.vector], EXAMPLES, {}


class Keep(FedAvg):
    """Everybody takes part; the workflow's result is kept as it is."""

    found: np.ndarray[Any, Any] | None = None

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Keeps the first client's parameters: the workflow has given all of them the average."""
        if failures:
            raise failures[0]
        self.found = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


class Room:
    """The grid: all clients in this process, and their CPU seconds.

    Args:
        answer: what a client does with a message.
        dropped: how many clients are gone from the masked vectors on.
        threshold: neighbours, itself among them, that every client must keep.
        seed: who drops.
    """

    def __init__(
        self, answer: Callable[[Message], Message], dropped: int, threshold: int, seed: int
    ) -> None:
        self.answer, self.dropped, self.threshold = answer, dropped, threshold
        self.generator = np.random.default_rng(seed)
        self.neighbours: dict[int, set[int]] = {}
        self.gone: set[int] = set()
        self.client_seconds = self.copy_seconds = 0.0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Hands over, in place of the wire, a copy of each message and of each reply."""
        replies = []
        for message in messages:
            begin = time.process_time()
            here = message.metadata.dst_node_id
            sent = copy.deepcopy(message)
            self._notice(here, sent.content.config_records[RECORD_KEY_CONFIGS])
            self.copy_seconds += time.process_time() - begin
            if here in self.gone:
                continue
            begin = time.process_time()
            reply = self.answer(sent)
            self.client_seconds += time.process_time() - begin
            replies.append(reply)
        return replies

    def _notice(self, here: int, config: ConfigRecord) -> None:
        """Learns the neighbours from the keys, and drops clients when vectors are asked for."""
        if config[Key.STAGE] == Stage.SHARE_KEYS:
            self.neighbours[here] = {int(name) for name in config if name != Key.STAGE}
        elif config[Key.STAGE] == Stage.COLLECT_MASKED_VECTORS and self.dropped and not self.gone:
            self.gone = self._droppable()

    def _droppable(self) -> set[int]:
        """Random clients, drawn again where the round would be lost."""
        ids = sorted(self.neighbours)
        for _ in range(100_000):
            gone = set(self.generator.choice(ids, self.dropped, replace=False).tolist())
            if all(len(near - gone) >= self.threshold for near in self.neighbours.values()):
                return gone
        raise SystemExit("no dropouts leave a round: threshold too high for the degree")


def one_round(given: argparse.Namespace, seed: int) -> tuple[float, float]:
    """CPU seconds of (all clients, the server)."""
    vector = np.random.default_rng(seed).uniform(-1, 1, given.length).astype(np.float32)
    client = Trained(vector).to_client()
    app = ClientApp(client_fn=lambda _: client, mods=[secaggplus_mod])
    contexts = {i: empty_context(i) for i in range(1, given.clients + 1)}
    room = Room(
        lambda message: app(message, contexts[message.metadata.dst_node_id]),
        round(given.clients * given.drop),
        given.threshold,
        seed,
    )
    strategy, manager = Keep(min_available_clients=given.clients), SimpleClientManager()
    for node_id in contexts:
        manager.register(Proxy(node_id))
    context = LegacyContext(empty_context(0), strategy=strategy, client_manager=manager)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    context.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord([np.zeros(1, np.float32)])
    workflow = SecAggPlusWorkflow(
        num_shares=given.degree + 1,  # one for itself
        reconstruction_threshold=given.threshold,
        max_weight=float(EXAMPLES),
        clipping_range=CLIP,
        quantization_range=QUANTA,
    )
    begin = time.process_time()
    workflow(cast("Any", room), context)  # all of a grid that it calls
    total = time.process_time() - begin
    if strategy.found is None or np.abs(strategy.found - vector).max() > 1e-4:
        raise SystemExit("the round was lost, or its average is wrong")
    return room.client_seconds, total - room.client_seconds - room.copy_seconds


def empty_context(node_id: int) -> Context:
    """What a node keeps before its first message."""
    return Context(run_id=1, node_id=node_id, node_config={}, state=RecordDict(), run_config={})


def main() -> None:
    """Prints the JSON of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--degree", type=int, required=True)
    parser.add_argument("--threshold", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--drop", type=float, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    # messages name the task that makes them: one for everybody here
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    logging.getLogger("flwr").setLevel(logging.ERROR)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = [one_round(given, seed) for seed in range(given.repeats)]
    clients, server = (statistics.median(column) for column in zip(*found, strict=True))
    print(json.dumps({"clients": clients, "server": server}))


if __name__ == "__main__":
    main()
