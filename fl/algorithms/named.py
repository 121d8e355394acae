"""Algorithms by name, for the command line and job files."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import optax

from fl._validate import choice_fault, number_fault
from fl.algorithms.base import Algorithm, Schedule
from fl.algorithms.dp_ftrl import dp_ftrl
from fl.algorithms.fedavg import fedavg
from fl.algorithms.fedprox import fedprox
from fl.algorithms.fedsgd import fedsgd
from fl.algorithms.scaffold import scaffold
from fl.algorithms.server_optimizers import fedadagrad, fedadam, fedavgm, fedyogi
from fl.types import Batch, PyTree

# Federated averaging with this server optimizer, at the defaults of its paper.
_ADAPTIVE: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "fedavgm": fedavgm,
    "fedadagrad": fedadagrad,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
}
ALGORITHMS = ("fedavg", "fedprox", "scaffold", "fedsgd", "dp_ftrl", *_ADAPTIVE)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An algorithm as strings and numbers.

    Attributes:
        name: one of ALGORITHMS.
        client_lr: of the clients' SGD in round 0.
        client_lr_decay: factor on client_lr from one round to the next.
        server_lr: of the server.
        server_momentum: of the server's SGD, where the name does not fix it.
        batch_size: examples per local step, or None for full batches.
        local_epochs: passes over a client's data per round.
        mu: weight of FedProx's proximal term.
        control_scale: of SCAFFOLD's control change in the message.
    """

    name: str
    client_lr: float
    client_lr_decay: float
    server_lr: float
    server_momentum: float
    batch_size: int | None
    local_epochs: int
    mu: float
    control_scale: float

    def faults(self) -> tuple[str, ...]:
        """Returns what is wrong with the values."""
        positive, fraction = "a number above 0", "0 up to below 1"
        found = [
            *choice_fault("algorithm", self.name, ALGORITHMS),
            *number_fault("client_lr", self.client_lr, positive, lambda v: v > 0),
            *number_fault(
                "client_lr_decay", self.client_lr_decay, "above 0, at most 1", lambda v: 0 < v <= 1
            ),
            *number_fault("server_lr", self.server_lr, positive, lambda v: v > 0),
            *number_fault("server_momentum", self.server_momentum, fraction, lambda v: 0 <= v < 1),
            *number_fault("mu", self.mu, "a number, at least 0", lambda v: v >= 0),
            *number_fault("control_scale", self.control_scale, positive, lambda v: v > 0),
        ]
        if self.name in _ADAPTIVE and self.server_momentum:
            takes = f"0.0: {self.name} has its own"
            found += number_fault("server_momentum", self.server_momentum, takes, lambda v: v == 0)
        return tuple(found)

    @property
    def _client_lr(self) -> float | Schedule:
        rate, decay = self.client_lr, self.client_lr_decay
        return rate if decay == 1.0 else lambda round_index: rate * decay**round_index

    def build(
        self, loss: Callable[[PyTree, Batch, jax.Array], jax.Array], *, participation: float
    ) -> Algorithm:
        """Returns the algorithm; `participation` is that of `scaffold`."""
        if self.name in _ADAPTIVE:
            server = _ADAPTIVE[self.name](self.server_lr)
        else:
            server = optax.sgd(self.server_lr, momentum=self.server_momentum or None)
        if self.name == "fedsgd":
            return fedsgd(loss, server_optimizer=server)
        rate = self._client_lr
        if self.name == "scaffold":
            return scaffold(
                loss, client_lr=rate, server_optimizer=server, batch_size=self.batch_size,
                local_epochs=self.local_epochs, participation=participation,
                control_scale=self.control_scale,
            )  # fmt: skip
        client = (lambda t: optax.sgd(rate(t))) if callable(rate) else optax.sgd(rate)
        if self.name == "fedprox":
            return fedprox(
                loss, mu=self.mu, client_optimizer=client, server_optimizer=server,
                batch_size=self.batch_size, local_epochs=self.local_epochs,
            )  # fmt: skip
        if self.name == "dp_ftrl":
            return dp_ftrl(
                loss, client_optimizer=client, learning_rate=self.server_lr,
                momentum=self.server_momentum, batch_size=self.batch_size,
                local_epochs=self.local_epochs,
            )  # fmt: skip
        averaging = fedavg(
            loss, client_optimizer=client, server_optimizer=server,
            batch_size=self.batch_size, local_epochs=self.local_epochs,
        )  # fmt: skip
        return averaging._replace(name=self.name)
