"""An organisation's own examples, where a run's data set is nowhere in one place.

Training knows clients as ranges of rows. Here the rows of everybody else are zeros that nobody
reads: the operating system gives them no memory.
"""

from pathlib import Path

import numpy as np

from fl import datasets
from fl.datasets import FederatedDataset
from fl.engines.deployment import Deployment
from fl.errors import DataError

FILE = "own.npz"


def own_data(plan: Deployment, members: int, data_dir: Path | str | None) -> FederatedDataset:
    """Returns the data set as one party sees it.

    Args:
        plan: its plan.
        members: how many the roster lists.
        data_dir: holds own.npz, as `fl.datasets.to_npz` writes a data set of one client: the
            member's examples, at the server none, and the test set where there is one ("test/x").
            Without that file, the folder of the original files of a public data set.

    Returns:
        `members` clients with the sizes that the plan lists; only this member's rows are not zero.

    Raises:
        DataError: the file holds other than one client, or not as many examples as the plan says;
            or as `fl.datasets.load`.
    """
    job = plan.job
    if data_dir is None or not (Path(data_dir) / FILE).is_file():
        data = datasets.load(
            job.dataset, data_dir=data_dir, clients=job.clients, partition=None, seed=job.seed
        )
        _check_sizes(plan, members, data)
        return data
    path = Path(data_dir) / FILE
    own = datasets.from_npz(path, name=job.dataset, num_classes=plan.classes)
    records = plan.records
    if records is None:
        takes = "in the plan, the number of examples of each member"
        raise DataError("records", None, takes)
    expected = 0 if plan.member is None else records[plan.member]
    if own.num_clients != 1 or own.num_examples != expected:
        got = f"{own.num_clients} clients with {own.num_examples} examples"
        takes = f"one client with {expected} examples, as the plan says"
        raise DataError(str(path), got, takes)
    return _placed(own, records, plan.member)


def _check_sizes(plan: Deployment, members: int, data: FederatedDataset) -> None:
    if data.num_clients != members:
        takes = f"{members} clients, as the roster has members"
        raise DataError("dataset", f"{data.num_clients} clients", takes)
    if plan.records is not None and tuple(data.sizes.tolist()) != plan.records:
        takes = f"{list(plan.records)}, as the plan says"
        raise DataError("records", data.sizes.tolist(), takes)


def _placed(
    own: FederatedDataset, records: tuple[int, ...], member: int | None
) -> FederatedDataset:
    offsets = np.concatenate([[0], np.cumsum(records)]).astype(np.int64)
    fields = {}
    for name, rows in own.fields.items():
        whole = np.zeros((int(offsets[-1]), *rows.shape[1:]), rows.dtype)
        if member is not None:
            whole[offsets[member] : offsets[member + 1]] = rows
        fields[name] = whole
    return FederatedDataset(
        name=own.name, fields=fields, offsets=offsets, test=own.test, num_classes=own.num_classes
    )
