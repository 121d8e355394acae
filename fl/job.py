"""A run as strings and numbers: what TOML files and the command line hold.

A Job builds the composed values of a Plan; anything a Job cannot say is said in Python.
"""

import dataclasses
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl import datasets
from fl._validate import choice_fault, integer_fault
from fl.aggregate import Aggregation, Ideal, Plain, Secure
from fl.algorithms import Batching
from fl.algorithms.named import Recipe
from fl.cohort import Cohort, cyclic, fixed, full, poisson, separated
from fl.datasets import FederatedDataset
from fl.errors import PlanError, fault
from fl.group import Group
from fl.models import MODELS, Model, named
from fl.plan import Plan, settings_faults
from fl.privacy import NotPrivate, Privacy
from fl.runners import Execution
from fl.serve import serve

AGGREGATIONS = ("plain", "ideal", "secure")
COHORTS: dict[str, tuple[Callable[..., Cohort], tuple[type, ...]]] = {
    "full": (full, ()),
    "cyclic": (cyclic, (int,)),
    "fixed": (fixed, (int, int)),
    "separated": (separated, (int, int)),
    "poisson": (poisson, (float,)),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """Private federated training, described by strings and numbers."""

    dataset: str
    """Data set; `python -m fl datasets` lists them."""
    data_dir: str | None = None
    """Directory of the data sets' original files."""
    clients: int | None = None
    """Number of clients, where the data have no natural ones."""
    partition: str | None = None
    """iid | dirichlet:ALPHA | natural: how examples are dealt to clients."""
    model: str = "logistic"
    """logistic | 2nn | cnn | cnn-lax | char-lstm | char-lstm-small |
    linear."""
    rounds: int = 20
    """Rounds of training."""
    cohort: str = "full"
    """full | cyclic:N (or N) | fixed:N:PARTICIPATIONS | separated:N:GAP | poisson:PROBABILITY."""
    algorithm: str = "fedavg"
    """fedavg | fedprox | scaffold | fedsgd | fedavgm | fedadagrad | fedadam | fedyogi | dp_ftrl."""
    batch_size: int | None = None
    """Examples per local step; None for full batches."""
    local_epochs: int = 1
    """Passes over a client's data per round."""
    client_lr: float = 0.1
    """Learning rate of the clients' SGD."""
    client_lr_decay: float = 1.0
    """Factor on client_lr from one round to the next."""
    server_lr: float = 1.0
    """Learning rate of the server's SGD."""
    server_momentum: float = 0.0
    """Momentum of the server's SGD."""
    mu: float = 0.0
    """Weight of the proximal term of fedprox."""
    control_scale: float = 1.0
    """Factor of scaffold's control change in a client's message."""
    aggregation: str = "secure"
    """plain | ideal | secure."""
    server: str | None = None
    """semi_honest | malicious: the server that secure aggregation withstands."""
    graph: str = "sparse"
    """sparse | complete: who masks with whom."""
    corrupt: float | None = None
    """Fraction of every cohort that may collude or add no noise."""
    dropout: float | None = None
    """Fraction of every cohort that may leave."""
    expected_dropout: float | None = None
    """Fraction expected to leave, for the planned figures; None for the same as dropout."""
    simulate_dropout: str | None = None
    """STAGE:RATE,...: clients leave at these stages, drawn from the run seed."""
    mechanism: str | None = None
    """skellam | discrete_gaussian | poisson_binomial (of the clients) | gaussian | tree | banded |
    blt (central)."""
    bands: int | None = None
    """With --mechanism banded: diagonals; None for a client's separation, 64 at most."""
    buffers: int | None = None
    """With --mechanism blt: noise vectors that the server keeps; None for 4."""
    trials: int | None = None
    """With --mechanism poisson_binomial: coins of one client in each coordinate."""
    unit: str = "client"
    """client | record: whose data one unit of privacy is."""
    record_sampling: float | None = None
    """With --unit record: probability with which each record joins a round; 1 for all."""
    against: str | None = None
    """server | participants | outsider: whose worst case the noise is calibrated to."""
    epsilon: float | None = None
    """Target of that worst case."""
    delta: float | None = None
    """Delta of every privacy row."""
    report_deltas: tuple[float, ...] = ()
    """Further deltas to report rows at."""
    clip_norm: float | None = None
    """l2 bound on one unit's update."""
    modulus_bits: int | None = None
    """Bits per coordinate, on the finest grid that they hold; None for a fine grid's need."""
    wrap_probability: float | None = None
    """Probability with which a round's honest sum may wrap, which saves bits; None for never."""
    spare_releases: int = 0
    """Releases a client grants beyond its scheduled ones, for rounds run again after a crash."""
    no_dp: bool = False
    """No clipping and no noise."""
    max_norm: float | None = None
    """With --no-dp under ideal and secure: bound of the integers."""
    weights: str = "uniform"
    """With --no-dp: uniform | examples."""
    max_weight: int | None = None
    """With --no-dp --weights examples under ideal and secure: largest weight."""
    seed: int = 0
    """Run seed: initialisation, local training, cohorts, simulated dropouts. Not secret."""
    eval_every: int = 1
    """Rounds between evaluations on the test set."""
    client_metrics: bool = False
    """Evaluate on the clients' own examples too; outside the guarantee of a private plan."""
    seeded_secrets: bool = False
    """Derive keys, masks and noise from the seed: for debugging, not private."""
    processes: int = 1
    """Worker processes on this machine, each pinned to a core."""
    strategy: str = "auto"
    """auto | scan | steps | vmap | debug: how clients train; debug says where one fails."""
    chunk: int | None = None
    """Clients in flight per process: the knob for memory; None to choose."""
    out: str | None = None
    """Run directory; None for runs/DATASET-NUMBER."""
    tensorboard: bool = False
    """Write every round to OUT/tensorboard as events, for TensorBoard."""

    def build(self, data: FederatedDataset | None = None) -> tuple[Plan, Model, FederatedDataset]:
        """Loads the data and composes plan and model.

        Args:
            data: taken as they are, in place of loading `dataset`, which is then a mere name.

        Raises:
            PlanError: with all faults of the strings and numbers.
            DataError, MissingExtraError: the data set cannot be loaded.
        """
        found = self.faults()
        if data is None:
            found += choice_fault("dataset", self.dataset, datasets.DATASETS)
        if found:
            raise PlanError(tuple(found))
        if data is None:
            data = datasets.load(
                self.dataset,
                data_dir=self.data_dir,
                clients=self.clients,
                partition=self.partition,
                seed=self.seed,
            )
        model = named(self.model, data)
        cohort, _ = _cohort(self.cohort)
        rates, _ = _rates(self.simulate_dropout)
        plan = Plan(
            rounds=self.rounds,
            cohort=cohort,
            algorithm=self._recipe.build(
                model.loss, participation=cohort.count(data.num_clients) / data.num_clients
            ),
            privacy=self._privacy(),
            aggregation=self._aggregation(rates),
            seed=self.seed,
            eval_every=self.eval_every,
            client_metrics=self.client_metrics,
            seeded_secrets=self.seeded_secrets,
        )
        return plan, model, data

    def faults(self) -> list[str]:
        """Returns what is wrong with the strings and numbers, whatever the data are."""
        _, cohort_faults = _cohort(self.cohort)
        rates, rate_faults = _rates(self.simulate_dropout)
        privacy, aggregation = self._privacy(), self._aggregation(rates)
        return [
            *self._faults(),
            *cohort_faults,
            *rate_faults,
            *Batching(self.batch_size, self.local_epochs).faults(),
            *self._recipe.faults(),
            *settings_faults(self.rounds, self.eval_every, self.seed, privacy, aggregation),
        ]

    @property
    def _recipe(self) -> Recipe:
        return Recipe(
            name=self.algorithm,
            client_lr=self.client_lr,
            client_lr_decay=self.client_lr_decay,
            server_lr=self.server_lr,
            server_momentum=self.server_momentum,
            batch_size=self.batch_size,
            local_epochs=self.local_epochs,
            mu=self.mu,
            control_scale=self.control_scale,
        )

    def _faults(self) -> list[str]:
        """What is wrong with what only a Job has; the parts it builds know their own faults."""
        return [
            *choice_fault("model", self.model, MODELS),
            *choice_fault("aggregation", self.aggregation, AGGREGATIONS),
            *integer_fault("processes", self.processes, 1, 256),
            *self.execution.faults(),
        ]

    def _privacy(self) -> Privacy | NotPrivate:
        if self.no_dp:
            return NotPrivate(self.max_norm, self.weights, self.max_weight)
        # What is left at None is a fault of Privacy, which has no defaults.
        required: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("unit", "against", "epsilon", "delta", "clip_norm", "mechanism")
        }
        return Privacy(
            **required,
            spare_releases=self.spare_releases,
            report_deltas=self.report_deltas,
            record_sampling=self.record_sampling,
            bands=self.bands,
            buffers=self.buffers,
            trials=self.trials,
            modulus_bits=self.modulus_bits,
            wrap_probability=self.wrap_probability,
        )

    def _aggregation(self, rates: dict[str, float]) -> Aggregation:
        if self.aggregation == "plain":
            return Plain()
        common: dict[str, Any] = {
            "corrupt": self.corrupt,
            "dropout": self.dropout,
            "expected_dropout": self.expected_dropout,
            "simulate_dropout": rates,
            "graph": self.graph,
        }
        if self.aggregation == "secure":
            return Secure(**common, server=self.server)  # type: ignore[arg-type]  # a fault at None
        return Ideal(**common) if self.server is None else Ideal(**common, server=self.server)

    @property
    def execution(self) -> Execution:
        """How clients train."""
        return Execution(self.strategy, self.chunk)

    def describe(self) -> str:
        """Returns the job as TOML that `from_toml` reads; values left at None are left out."""
        lines = []
        for name, value in dataclasses.asdict(self).items():
            if value is not None:
                lines.append(f"{name} = {_toml(value)}")
        return "\n".join(lines)


def serve_job(job: Job, group: Group) -> None:
    """Runs the part of a process other than 0 in a run made from `job`."""
    plan, model, data = job.build()
    serve(plan, model, data, group=group, execution=job.execution)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def from_toml(path: str | Path) -> Job:
    """Reads a Job.

    Raises:
        PlanError: the file is missing, is not TOML, or holds what a Job does not.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError((fault("job", f"{path}: {error}", "a TOML file"),)) from error
    return from_dict(values)


def from_dict(values: dict[str, Any]) -> Job:
    """Makes a Job from names and values, such as those of a TOML file.

    Raises:
        PlanError: with every unknown name and every value of a wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(Job)}
    found = [fault(name, values[name], "no such name") for name in values if name not in fields]
    if "dataset" not in values:
        found.append(fault("dataset", None, " | ".join(datasets.DATASETS)))
    known = {name: value for name, value in values.items() if name in fields}
    for name, value in known.items():
        if isinstance(value, list):
            known[name] = value = tuple(value)
        takes = _kinds(fields[name].type)
        if not isinstance(value, takes) or (isinstance(value, bool) and bool not in takes):
            names = " | ".join(kind.__name__ for kind in takes if kind is not type(None))
            found.append(fault(name, value, names))
    if found:
        raise PlanError(tuple(found))
    return Job(**known)


def _kinds(annotation: Any) -> tuple[type, ...]:
    """Returns the types that a Job field's annotation admits; integers stand for floats."""
    parts = getattr(annotation, "__args__", None) or (annotation,)
    if getattr(annotation, "__origin__", None) is tuple:
        parts = (tuple,)
    kinds = [part for part in parts if isinstance(part, type)]
    return tuple([*kinds, int] if float in kinds else kinds)


def _cohort(text: str) -> tuple[Cohort, tuple[str, ...]]:
    kind, *numbers = (f"cyclic:{text}" if text.isdecimal() else text).split(":")
    try:
        make, kinds = COHORTS[kind]
        values = [number(part) for number, part in zip(kinds, numbers, strict=True)]
    except (KeyError, ValueError):
        values, make, wrong = [], full, True
    else:
        wrong = any(value <= 0 for value in values)
    takes = "full | cyclic:N | fixed:N:PARTICIPATIONS | separated:N:GAP | poisson:PROBABILITY"
    return (full(), (fault("cohort", text, takes),)) if wrong else (make(*values), ())


def _rates(text: str | None) -> tuple[dict[str, float], tuple[str, ...]]:
    rates: dict[str, float] = {}
    for part in (text or "").replace(" ", "").split(","):
        stage, _, rate = part.partition(":")
        if not part:
            continue
        wrong = stage in rates
        try:
            rates[stage] = float(rate)
        except ValueError:
            wrong = True
        if wrong:
            takes = "STAGE:RATE,STAGE:RATE,... with each stage once"
            return {}, (fault("simulate_dropout", text, takes),)
    return rates, ()
