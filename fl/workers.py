"""The processes of a run: N on one machine over pipes, or one per host through jax.distributed.

On a CPU one pinned single-threaded process per core is twice as fast as threads or forced host
devices: small matrices do not split well. Both ways give a `Group`; what runs on it is the same.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import jax
import numpy as np
from jax.experimental import multihost_utils

from fl.errors import WorkerError
from fl.group import Group, alone

SINGLE_THREAD = "--xla_cpu_multi_thread_eigen=false"
_FRAMES = (2**12, 2**20)  # bytes; programs are compiled per length, so there are two


def use_one_thread() -> None:
    """Has XLA and BLAS use one thread, here and in processes started from here.

    Call it before JAX runs anything. Settings that are there already are left alone.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SINGLE_THREAD}".strip()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@contextmanager
def local(processes: int, serve: Callable[[Group], None]) -> Iterator[Group]:
    """Starts N - 1 processes on this machine; this one is process 0.

    Args:
        processes: N. Each is pinned to a core of its own as far as there are cores.
        serve: what the others do, such as a `functools.partial` of a function at the top of a
            module: they are spawned, so it must survive pickling.

    Raises:
        WorkerError: from `exchange`: a process is gone.
    """
    if processes == 1:
        yield alone()
        return
    context, cores = get_context("spawn"), _cores()
    children: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for index in range(1, processes):
            ours, theirs = context.Pipe()
            core = cores[index % len(cores)] if cores else None
            child = context.Process(
                target=_child, args=(index, processes, theirs, core, serve), daemon=True
            )
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)
        with _pinned(cores[:1]):
            yield Group(0, processes, lambda payload: _gather(payload, pipes, children))
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join(timeout=10)
            if child.is_alive():
                child.terminate()


def _gather(payload: bytes, pipes: list[Connection], children: list[SpawnProcess]) -> list[bytes]:
    parts = [payload]
    for index, pipe in enumerate(pipes, start=1):
        try:
            parts.append(pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerError(index, _ended(children[index - 1])) from error
    for index, pipe in enumerate(pipes, start=1):
        try:
            pipe.send_bytes(payload)
        except OSError as error:
            raise WorkerError(index, _ended(children[index - 1])) from error
    return parts


def _ended(child: SpawnProcess) -> str:
    child.join(timeout=60)  # its pipe is closed, so it is on its way; a busy machine takes a while
    return f"ended with exit code {child.exitcode}; its own message is above"


def _child(
    index: int, size: int, pipe: Connection, core: int | None, serve: Callable[[Group], None]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # process 0 ends the run
    if core is not None:
        os.sched_setaffinity(0, {core})

    def exchange(payload: bytes) -> list[bytes]:
        pipe.send_bytes(payload)
        return [pipe.recv_bytes()]

    try:
        serve(Group(index, size, exchange))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # process 0 is gone, and has said why


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def _pinned(core: list[int]) -> Iterator[None]:
    if not core:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(core))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def hosts(coordinator: str, processes: int, index: int) -> Group:
    """Joins the other hosts of a run through jax.distributed; each calls it once, first thing.

    Bytes travel as uint8 arrays padded to one length for all; nothing wider than 32 bits enters
    JAX. The hosts trust each other and the network between them: they are one server.

    Args:
        coordinator: "address:port" of process 0.
        processes: N.
        index: this process, from 0.

    Returns:
        The group. Process 0 goes on with `rounds` or `train`, the others with `serve`.
    """
    jax.config.update(  # type: ignore[no-untyped-call]  # jax leaves it untyped
        "jax_cpu_collectives_implementation", "gloo"
    )
    jax.distributed.initialize(coordinator, processes, index)
    return Group(index, processes, _allgather)


def _allgather(payload: bytes) -> list[bytes]:
    lengths = np.asarray(
        multihost_utils.process_allgather(np.array([len(payload)], dtype=np.uint32))
    ).reshape(-1)
    longest = int(lengths.max())
    frame = _FRAMES[0] if longest <= _FRAMES[0] else _FRAMES[1]
    parts: list[list[bytes]] = [[] for _ in lengths]
    for start in range(0, longest, frame):
        block = np.zeros(frame, dtype=np.uint8)
        mine = payload[start : start + frame]
        block[: len(mine)] = np.frombuffer(mine, dtype=np.uint8)
        for part, row in zip(parts, _rows(block, len(lengths)), strict=True):
            part.append(row.tobytes())
    return [b"".join(part)[:length] for part, length in zip(parts, lengths.tolist(), strict=True)]


def _rows(block: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(block)).reshape(size, -1)
