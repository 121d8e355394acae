"""The same run in one process: what the model and the charges of a deployment must be."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

import fl
from fl import training
from fl.aggregate import Aggregation
from fl.datasets import FederatedDataset
from fl.job import Job
from fl.tree import sha256

Gone = Mapping[int, Mapping[str, Collection[int]]]
"""Round -> stage -> clients that never answer from that stage on."""


class Reference(NamedTuple):
    """What a run in one process gave.

    Attributes:
        model: hash of its parameters, as summary.json has it.
        survivors: by round; () where nothing was released.
    """

    model: str
    survivors: list[tuple[int, ...]]


def reference(
    job: Job, data: FederatedDataset, gone: Gone, monkeypatch: pytest.MonkeyPatch
) -> Reference:
    """Runs a seeded job under `Secure` in this process, with the same clients gone."""

    def leaving(
        masked: Aggregation, client_ids: Sequence[int], seed: int, round_index: int
    ) -> dict[str, tuple[int, ...]]:
        return {stage: tuple(ids) for stage, ids in gone.get(round_index, {}).items()}

    plan, model, built = job.build(data)
    found: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(training, "draw_dropouts", leaving)
        found += fl.rounds(plan, model, built)
    return Reference(sha256(found[-1].params), [r.survivors for r in found])
