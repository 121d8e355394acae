"""The command line: one function for each command.

    python -m fl train --preset digits-demo
    python -m fl train --dataset mnist-writers --data-dir DATA
    python -m fl train --job job.toml --epsilon 2
    python -m fl train --preset digits-demo --seeds 5   five runs, means with 95 % intervals
    python -m fl resume RUN       continue a run that was interrupted [--processes N]
    python -m fl report RUN       write report.html again
    python -m fl datasets         list the data sets; --plot NAME draws who holds which labels
    python -m fl privacy --job job.toml   the privacy statement, without training [--plan FILE]
    python -m fl audit RUN|JOB.toml   attack the plan with canaries: what leaks at least
    python -m fl keygen | roster | deploy | client   across organisations: docs/deployment.md

Several hosts: the same command on each with --coordinator ADDRESS:PORT --hosts N --host K, K = 0 on
the one that keeps the run.

Every value of a Job is a flag; flags win over the job file or the preset. Without --job or
--preset, the data set's own preset gives the values.
"""

import argparse
import dataclasses
import functools
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import tyro
from tqdm import tqdm

import dp
from fl import datasets, workers
from fl.audit.canaries import DIRECTIONS
from fl.audit.command import audit_target
from fl.console import audit_table, cost_table, metrics_text, privacy_table, round_line, round_note
from fl.datasets import FederatedDataset
from fl.engines import commands
from fl.errors import FlError, MissingExtraError, PlanError, fault
from fl.group import Group
from fl.job import Job, from_dict, from_toml, serve_job
from fl.models import Model
from fl.plan import Plan, resolve
from fl.presets import PRESETS, preset_of
from fl.report import write_report
from fl.store import Store, next_run_directory
from fl.summary import read_summary
from fl.sweep import sweep
from fl.train import conclude, start
from fl.training import Training


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 2 for what the caller can mend."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words.pop(0) if words else "--help"
    known: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "resume": _resume,
        "report": _report,
        "datasets": _datasets,
        "privacy": _privacy,
        "audit": _audit,
        "keygen": commands.keygen,
        "roster": commands.roster,
        "client": commands.client,
        "deploy": lambda rest: commands.deploy(rest, _job),
    }
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if command not in known:
        print(f"error: {fault('command', command, ' | '.join(known))}", file=sys.stderr)
        return 2
    workers.use_one_thread()
    try:
        known[command](words)
    except (FlError, dp.DpError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; `python -m fl resume` continues the run", file=sys.stderr)
        return 130
    return 0


def _job(words: list[str], command: str) -> Job:
    """Reads a Job: flags over a job file, or over a preset."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--job", "--preset", "--dataset"):
        parser.add_argument(flag)
    chosen, rest = parser.parse_known_args(words)
    if chosen.job is not None and chosen.preset is not None:
        raise PlanError((fault("preset", chosen.preset, "nothing beside --job"),))
    if chosen.job is not None:
        default = from_toml(chosen.job)
    else:
        helping = "-h" in rest or "--help" in rest
        default = _preset(chosen.preset, chosen.dataset, any_will_do=helping)
    if chosen.dataset is not None:
        default = dataclasses.replace(default, dataset=chosen.dataset)
    default, rest = _switches(default, rest)
    return tyro.cli(
        Job,
        prog=f"python -m fl {command}",
        description="Also: --job FILE.toml or --preset NAME for the values not given here.",
        default=default,
        args=rest,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
    )


def _switches(default: Job, words: list[str]) -> tuple[Job, list[str]]:
    """Lets a switch be given that is on already, and --epsilon end a preset's --no-dp.

    tyro knows no switch for what is on; and a target that is asked for must not go unheard.
    """
    names = {word: word.partition("=")[0].replace("_", "-") for word in words}
    if "--epsilon" in names.values() and "--no-dp" not in names.values():
        default = dataclasses.replace(default, no_dp=False)
    on = {f"--{name.replace('_', '-')}" for name, value in vars(default).items() if value is True}
    return default, [word for word in words if names[word] not in on]


def _preset(preset: str | None, dataset: str | None, *, any_will_do: bool) -> Job:
    if preset is not None and preset not in PRESETS:
        raise PlanError((fault("preset", preset, " | ".join(PRESETS)),))
    name = preset or preset_of(dataset or "") or (next(iter(PRESETS)) if any_will_do else None)
    if name is None:
        takes = " | ".join(datasets.DATASETS)
        raise PlanError((fault("dataset", dataset, f"{takes}; or give --preset or --job FILE"),))
    print(f"Preset {name}; it was tuned on the test data.")
    return PRESETS[name]


def _train(words: list[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--coordinator")
    for flag in ("--seeds", "--hosts", "--host"):
        parser.add_argument(flag, type=int)
    chosen, rest = parser.parse_known_args(words)
    job = _job(rest, "train")
    alone = chosen.coordinator is None and chosen.hosts is None and chosen.host is None
    joined = None if alone else _host(job, chosen)  # before JAX runs anything
    if joined is not None and joined.index > 0:
        serve_job(job, joined)
        return
    print(job.describe() + "\n")
    plan, model, data = job.build()
    with _group(job, joined, chosen.seeds) as group:
        if chosen.seeds is not None:
            _sweep(job, chosen.seeds, plan, model, data)
            return
        resolved = resolve(plan, data, model=model)
        print(privacy_table(resolved.privacy, assumptions=True) + "\n")
        out = Path(job.out) if job.out else next_run_directory(Path("runs"), job.dataset)
        training = start(
            plan, model, data, out=out, job=dataclasses.asdict(job), execution=job.execution,
            group=group, tensorboard=job.tensorboard,
        )  # fmt: skip
        _run(training, out)


def _group(job: Job, joined: Group | None, seeds: int | None) -> AbstractContextManager[Group]:
    if seeds is not None and (job.processes > 1 or joined is not None):
        raise PlanError((fault("processes", job.processes, "1, and one host, with --seeds"),))
    if joined is not None:
        return nullcontext(joined)
    return workers.local(job.processes, functools.partial(serve_job, job))


def _host(job: Job, chosen: argparse.Namespace) -> Group:
    given = (chosen.coordinator, chosen.hosts, chosen.host)
    if None in given or not 0 <= chosen.host < chosen.hosts:
        takes = "all three of --coordinator ADDRESS:PORT, --hosts N and --host K, K from 0 below N"
        raise PlanError((fault("hosts", given, takes),))
    if job.processes != 1:
        raise PlanError((fault("processes", job.processes, "1 on several hosts"),))
    return workers.hosts(*given)


def _sweep(job: Job, count: int, plan: Plan, model: Model, data: FederatedDataset) -> None:
    """Runs seeds job.seed, job.seed + 1, ... over the same partition of the data."""
    if count < 2:
        raise PlanError((fault("seeds", count, "at least 2 runs"),))
    out = Path(job.out) if job.out else next_run_directory(Path("runs"), job.dataset)
    seeds = range(job.seed, job.seed + count)
    found = sweep(plan, model, data, seeds=seeds, out=out, tensorboard=job.tensorboard)
    path = out / "sweep.json"
    path.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
    print(privacy_table(found.privacy, assumptions=True))
    print(f"\n{found}\nruns and sweep.json in {out}")


def _resume(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m fl resume")
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--processes", type=int, help="as many as the run had unless given")
    chosen = parser.parse_args(words)
    out: Path = chosen.run
    store = Store.open(out)
    values = store.meta().get("job")
    store.close()
    if values is None:
        raise PlanError((fault("job", None, "a run that the command line began"),))
    job = from_dict({k: v for k, v in values.items() if v is not None})
    if chosen.processes is not None:
        job = dataclasses.replace(job, processes=chosen.processes)
    plan, model, data = job.build()
    with workers.local(job.processes, functools.partial(serve_job, job)) as group:
        training = start(
            plan, model, data, out=out, resume=True, execution=job.execution, group=group,
            tensorboard=job.tensorboard,
        )  # fmt: skip
        _run(training, out)


def _run(training: Training, out: Path) -> None:
    try:
        _rounds(training)
    except KeyboardInterrupt:
        conclude(training, out)  # what happened so far is on record
        raise
    except BaseException:
        training.store.close()
        raise
    summary = conclude(training, out)
    _write_report(out)
    print("\n" + cost_table(summary))
    print(privacy_table(training.statement(), assumptions=False))
    if training.stopped_early:
        print(f"\nstopped early: {training.stopped_early}")
    shown = metrics_text(summary["metrics"], digits=2) or "not evaluated"
    print(f"\n{shown} after {summary['rounds']} rounds; run in {out}")


def _rounds(training: Training) -> None:
    quiet = not sys.stderr.isatty()
    width = shutil.get_terminal_size().columns
    with tqdm(
        total=training.resolved.plan.rounds,
        initial=training.next_round,
        unit="round",
        disable=None,
        ncols=width,
    ) as bar:
        while (finished := training.step()) is not None:
            note = round_note(finished)
            bar.set_postfix_str(note)
            bar.update()
            if finished.reason is not None or (quiet and (finished.index + 1) % 10 == 0):
                bar.write(round_line(finished.index, finished.reason or note))


def _write_report(out: Path) -> None:
    store = Store.open(out)
    rows = store.rounds()
    store.close()
    try:
        print(f"report: {write_report(out, read_summary(out), rows)}")
    except MissingExtraError as error:
        print(f"no report.html: {error}")


def _report(words: list[str]) -> None:
    _write_report(_directory(words, "report"))


def _directory(words: list[str], command: str) -> Path:
    parser = argparse.ArgumentParser(prog=f"python -m fl {command}")
    parser.add_argument("run", type=Path, help="run directory")
    run: Path = parser.parse_args(words).run
    return run


def _datasets(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m fl datasets")
    parser.add_argument("--plot", metavar="NAME", choices=datasets.DATASETS, help="draw one set")
    parser.add_argument("--data-dir", help="with --plot: where original files lie")
    parser.add_argument("--clients", type=int, help="with --plot: artificial clients")
    parser.add_argument("--partition", help="with --plot: how examples are dealt to clients")
    parser.add_argument("--seed", type=int, default=0, help="with --plot: decides the clients")
    parser.add_argument("--out", type=Path, help="with --plot: picture; NAME-labels.svg")
    asked = parser.parse_args(words)
    if asked.plot is not None:
        data = datasets.load(
            asked.plot,
            data_dir=asked.data_dir,
            clients=asked.clients,
            partition=asked.partition,
            seed=asked.seed,
        )
        print(datasets.plot_labels(data, asked.out or Path(f"{asked.plot}-labels.svg")))
        return
    for description in datasets.describe():
        print(f"{description.name}\n  {description.summary}\n  needs {description.needs}")


def _privacy(words: list[str]) -> None:
    if any(word.partition("=")[0] == "--plan" for word in words):
        commands.privacy(words)
        return
    plan, model, data = _job(words, "privacy").build()
    print(privacy_table(resolve(plan, data, model=model).privacy, assumptions=True))


def _audit(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m fl audit")
    parser.add_argument("target", type=Path, help="run directory or job file (TOML)")
    parser.add_argument("--canaries", type=int, default=100, help="clients added to the plan's")
    parser.add_argument("--guesses", type=int, help="canaries guessed; all unless given")
    parser.add_argument(
        "--significance", type=float, default=0.05, help="chance that one bound is too high"
    )
    parser.add_argument("--directions", choices=DIRECTIONS, default=DIRECTIONS[0])
    parser.add_argument("--out", type=Path, help="with a job file: directory of the run attacked")
    asked = parser.parse_args(words)
    found = audit_target(
        asked.target, canaries=asked.canaries, guesses=asked.guesses,
        significance=asked.significance, directions=asked.directions, out=asked.out,
    )  # fmt: skip
    _write_report(found.out)
    print(audit_table(found.audit, found.probe))


if __name__ == "__main__":
    sys.exit(main())
