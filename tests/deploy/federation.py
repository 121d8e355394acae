"""Flower's real processes on this machine: a SuperLink, SuperNodes, runs of apps.

Everything is started with its own folder, ports and FLWR_HOME. Flower starts further processes in
sessions of their own, so what belongs to a federation is found by an environment variable that all
of them inherit; `stop` leaves none of them behind.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.deploy.certificates import make_certificates, make_node_key

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
MARK = "FEDERATION_TEST"
START_SECONDS = 300.0  # of Flower's commands and processes, on a busy machine too
_AGAIN = ("/bin/sh", "-c", 'until "$@"; do sleep 1; done', "sh")


class Federation:
    """A SuperLink over TLS with authenticated SuperNodes.

    Args:
        folder: for logs, keys, state and apps.
        host: address that the SuperLink listens at and that the certificate names.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder, self.host = folder, host
        self.mark = uuid.uuid4().hex
        self._short = tempfile.TemporaryDirectory(prefix="fl-")
        self._ports: set[int] = set()
        self.port = self.free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        make_certificates(folder / "tls", [host])
        self._connect()

    def listen_at(self, host: str) -> None:
        """Takes another address, before anything is started."""
        self.host = host
        make_certificates(self.folder / "tls", [host])
        self._connect()

    def _connect(self) -> None:
        home = self.folder / "home-cli"
        home.mkdir(parents=True, exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "{self.host}:{self.port}"\nroot-certificates = "{self.ca}"\n'
        )

    @property
    def ca(self) -> Path:
        """The authority that nodes and commands trust."""
        return (self.folder / "tls" / "ca.pem").absolute()

    def free_port(self) -> int:
        """A port that nothing listens at, given once, from below those of outgoing connections."""
        while True:
            port = random.randrange(10_000, 32_000)
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                if port not in self._ports:
                    self._ports.add(port)
                    return port

    def socket_path(self, name: str) -> Path:
        """A short path: the address of a Unix socket takes about a hundred bytes."""
        return Path(self._short.name) / f"{name}.sock"

    def environment(self, home: str) -> dict[str, str]:
        """What a process of this federation sees; `home` is its FLWR_HOME here."""
        return {
            **os.environ,
            MARK: self.mark,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "FLWR_HOME": str(self.folder / home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        }

    def start(
        self,
        name: str,
        command: Sequence[object],
        *,
        home: str = "home",
        prefix: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Starts a process; its output goes to NAME.log, after what is there."""
        with self.log_path(name).open("ab") as log:
            process = subprocess.Popen(
                [*prefix, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(home), cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self._processes[name] = process
        return process

    def log_path(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.folder / f"{name}.log"

    def log(self, name: str) -> str:
        """What a process has said so far."""
        path = self.log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def start_superlink(self) -> None:
        """Starts the SuperLink, its state in a file, and waits until it answers."""
        tls = self.folder / "tls"
        self.start(
            "superlink",
            [
                BIN / "flower-superlink", "--host", self.host, "--port", self.port,
                "--ssl-ca-certfile", tls / "ca.pem", "--ssl-certfile", tls / "server.pem",
                "--ssl-keyfile", tls / "server.key", "--enable-supernode-auth",
                "--database", self.folder / "superlink.sqlite",
                "--disable-runtime-dependency-installation",
            ],
            home="home-superlink",
        )  # fmt: skip
        self.wait(self._answers, "the SuperLink to answer")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False

    def register(self, names: Sequence[str]) -> None:
        """Makes keys for nodes and registers them, all at once: the command is slow to start."""
        for name in names:
            self.make_node_key(name)
        commands = [
            self.flwr_start("supernode", "register", self.folder / "nodes" / f"{name}.key.pub")
            for name in names
        ]
        for command in commands:
            output = command.communicate(timeout=START_SECONDS)[0].decode()
            if command.returncode:
                raise AssertionError(output)

    def make_node_key(self, name: str) -> None:
        """Makes a SuperNode's key, which Flower does not know before `register`."""
        (self.folder / "nodes").mkdir(exist_ok=True)
        make_node_key(self.folder / "nodes" / f"{name}.key")

    def start_node(
        self,
        name: str,
        config: Mapping[str, str],
        *,
        prefix: Sequence[str] = (),
        plain: bool = False,
    ) -> None:
        """Starts a SuperNode; `config` is what its ClientApp sees as node_config.

        It is started again when it gives up, as a service manager would: after a kill -9 the
        SuperLink lets the same key in again only when it has missed two heartbeats of 30 s.

        Args:
            name: of the node, which names its key.
            config: of the node.
            prefix: words before the command.
            plain: without TLS, and so without a key.
        """
        key = self.folder / "nodes" / f"{name}.key"
        secure = ["--root-certificates", self.ca, "--auth-supernode-private-key", key]
        pairs = " ".join(f'{key}="{value}"' for key, value in config.items())
        self.start(
            f"node-{name}",
            [
                BIN / "flower-supernode", "--superlink", f"{self.host}:{self.port}",
                *(["--insecure"] if plain else secure), "--port", self.free_port(),
                "--node-config", pairs,
            ],
            home=f"home-{name}", prefix=(*_AGAIN, *prefix),
        )  # fmt: skip

    def flwr_start(self, *words: object) -> subprocess.Popen[bytes]:
        """Starts the command `flwr`."""
        return subprocess.Popen(
            [str(BIN / "flwr"), *map(str, words)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.environment("home-cli"), cwd=self.folder,
        )  # fmt: skip

    def flwr(self, *words: object) -> str:
        """Runs the command `flwr` and returns what it printed."""
        command = self.flwr_start(*words)
        output = command.communicate(timeout=START_SECONDS)[0].decode()
        if command.returncode:
            raise AssertionError(f"flwr {words}: {output}")
        return output

    def run(self, app: Path, config: Mapping[str, str]) -> str:
        """Starts a run of an app and returns its id."""
        pairs = " ".join(f'{key}="{value}"' for key, value in config.items())
        output = self.flwr(
            "run", app, "here", *(["--run-config", pairs] if pairs else []), "--format", "json"
        )
        found = json.loads(output[output.index("{") :])
        if "run-id" not in found:
            raise AssertionError(f"flwr run: {output}")
        return str(found["run-id"])

    def status(self, run_id: str) -> str:
        """What the SuperLink says of a run: pending, running, finished:completed, ..."""
        output = self.flwr("ls", "here", "--run-id", run_id, "--format", "json")
        return str(json.loads(output[output.index("{") :])["runs"][0]["status"])

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Waits for a condition.

        Raises:
            AssertionError: it did not come true in time; the ends of all logs are in it.
        """
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s for {what}\n{self.tails()}")
            time.sleep(0.1)

    def tails(self, lines: int = 15) -> str:
        """The last lines of every log."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            parts += [f"--- {path.name}", *last]
        return "\n".join(parts)

    def kill(self, name: str) -> None:
        """Kills a process and everything it started, as kill -9 does."""
        process = self._processes[name]
        for pid in [process.pid, *descendants(process.pid)]:  # first who might start others
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=10)

    def apps(self, name: str) -> set[int]:
        """The process ids of the ClientApps that a node runs now."""
        return {
            pid for pid in descendants(self.pid(f"node-{name}")) if _runs(pid, "flwr-clientapp")
        }

    def kill_command(self, command: str) -> None:
        """Kills the processes of this federation that run a command, as kill -9 does."""
        for pid in self.pids():
            if _runs(pid, command):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def says(self, name: str, words: str) -> bool:
        """Whether a process has said these words."""
        return words in self.log(name)

    def nodes_online(self) -> int:
        """How many nodes the SuperLink has heard of lately enough to ask them."""
        path = self.folder / "superlink.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as database:
            query = "select count(*) from node where online_until > ?"
            found: int = database.execute(query, (time.time(),)).fetchone()[0]
            return found

    def pid(self, name: str) -> int:
        """The process id."""
        return self._processes[name].pid

    def kill_if_running(self, name: str) -> None:
        """As `kill`, of what may have ended."""
        if self._processes[name].poll() is None:
            self.kill(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a process."""
        os.kill(self._processes[name].pid, number)

    def stop(self) -> None:
        """Ends every process of this federation, whoever started it."""
        end = time.monotonic() + 20
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
            if time.monotonic() > end:
                raise AssertionError(f"processes that do not end: {pids}")
            time.sleep(0.05)

    def pids(self) -> list[int]:
        """The processes of this federation that are running, zombies left out."""
        needle = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):  # it has ended
                    if needle in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def __enter__(self) -> "Federation":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._short.cleanup()


class Namespace:
    """A network of its own, joined to this machine's by a pair of virtual cards.

    Attributes:
        host: this machine's address on the cable.
        prefix: words that run a command inside.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        a, b = uuid.uuid4().bytes[:2]
        self.host, self._inside = f"10.{a}.{b}.1", f"10.{a}.{b}.2"
        self.prefix = ("ip", "netns", "exec", name)
        self._card = name[:13]

    def __enter__(self) -> "Namespace":
        inner = f"{self._card}i"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._card, "type", "veth", "peer", "name", inner, "netns", self.name)
        _ip("addr", "add", f"{self.host}/30", "dev", self._card)
        _ip("link", "set", self._card, "up")
        _ip("-n", self.name, "addr", "add", f"{self._inside}/30", "dev", inner)
        _ip("-n", self.name, "link", "set", inner, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "delete", self.name)  # and the cards with it

    def cut(self) -> None:
        """Nothing goes through the cable any more, and neither side is told."""
        _ip("link", "set", self._card, "down")

    def mend(self) -> None:
        """Undoes `cut`."""
        _ip("link", "set", self._card, "up")


def namespaces_are_allowed() -> bool:
    """Whether this user may make network namespaces."""
    name = f"fl{uuid.uuid4().hex[:8]}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "delete", name)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _ip(*words: str) -> None:
    command = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if command is None:
        raise FileNotFoundError("ip")
    subprocess.run([command, *words], check=True, capture_output=True)


def _runs(pid: int, command: str) -> bool:
    """Whether a process runs a command; not, if it has ended."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(word.endswith(command.encode()) for word in words[:2])
    return False


def descendants(pid: int) -> Iterator[int]:
    """Children of a process, and theirs."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from descendants(int(child))
