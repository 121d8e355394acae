"""Federated training whose server learns a noised sum and nothing else.

plan = fl.Plan(rounds=..., cohort=fl.cohort.full(), algorithm=fl.fedavg(...),
               privacy=fl.Privacy(...), aggregation=fl.Secure(...), seed=0)
print(fl.resolve(plan, data).privacy)
for r in fl.rounds(plan, model, data): ...
"""

from fl import cohort, datasets, models, workers
from fl.aggregate import Ideal, Plain, Secure
from fl.algorithms import (
    Algorithm,
    Batching,
    Broadcast,
    ServerState,
    dp_ftrl,
    fedadagrad,
    fedadam,
    fedavg,
    fedavgm,
    fedprox,
    fedsgd,
    fedyogi,
    scaffold,
)
from fl.datasets import FederatedDataset
from fl.errors import (
    ChecksumError,
    DataError,
    FlError,
    LocalTrainingError,
    MissingExtraError,
    MissingFileError,
    PlanError,
    StoreError,
    WorkerError,
)
from fl.job import Job
from fl.models import Model
from fl.plan import Plan, Resolved, resolve
from fl.presets import PRESETS
from fl.privacy import NotPrivate, Privacy
from fl.report import write_report
from fl.results import Round, Run
from fl.runners import Execution
from fl.serve import serve
from fl.statement import Row, Statement
from fl.sweep import Sweep, sweep
from fl.train import rounds, train

__all__ = [
    "PRESETS",
    "Algorithm",
    "Batching",
    "Broadcast",
    "ChecksumError",
    "DataError",
    "Execution",
    "FederatedDataset",
    "FlError",
    "Ideal",
    "Job",
    "LocalTrainingError",
    "MissingExtraError",
    "MissingFileError",
    "Model",
    "NotPrivate",
    "Plain",
    "Plan",
    "PlanError",
    "Privacy",
    "Resolved",
    "Round",
    "Row",
    "Run",
    "Secure",
    "ServerState",
    "Statement",
    "StoreError",
    "Sweep",
    "WorkerError",
    "cohort",
    "datasets",
    "dp_ftrl",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "models",
    "resolve",
    "rounds",
    "scaffold",
    "serve",
    "sweep",
    "train",
    "workers",
    "write_report",
]
