"""docs/deployment.md from nothing to a model: its own commands, one by one, in empty directories.

What a page cannot hold is put in its place: keys, ports, the names of hosts and of directories. The
test hands over what the page says is sent, and nothing else.
"""

import doctest
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.deploy.federation import ROOT, START_SECONDS, Federation
from tests.deploy.organisations import rows

pytestmark = [pytest.mark.deploy, pytest.mark.slow]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
WALK = PAGE.partition("\n## Two organisations, from nothing to a model\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(
    r"^    (each|server|anybody)\$ ((?:[^\n]*\\\n)*[^\n]*)$", WALK, re.MULTILINE
)  # fmt: skip
SNIPPETS = re.findall(r"(?:^    (?:>>>|\.\.\.)[^\n]*\n)+", WALK, re.MULTILINE)
ORGANISATIONS = ("north", "south")
SIZES = {"north": 800, "south": 600}
SERVICES = ("flower-superlink", "flower-supernode", "python -m fl client")


class Walk:
    """Three hosts as directories of one machine, and the page's commands in their order.

    Args:
        federation: finds and ends whatever is started.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.left: Iterator[tuple[str, str]] = iter(COMMANDS)
        self.exports: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        for party in (*ORGANISATIONS, "server"):
            self.folder(party).mkdir()

    def folder(self, party: str) -> Path:
        return self.federation.folder / party

    def socket(self, party: str) -> Path:
        return self.federation.socket_path(party)

    def on(self, words: str) -> dict[str, str]:
        """Runs the page's next command, which has these words; party -> what it printed."""
        who, command = next(self.left)
        assert words in command
        parties = ORGANISATIONS if who == "each" else ("server",)
        return {party: self._run(party, self.own(party, command)) for party in parties}

    def own(self, party: str, text: str) -> str:
        """Puts a party's own names, keys and ports in place of the page's."""
        port = str(self.federation.port)
        for old, new in (
            ("link.example.org", "localhost"), ("8000", port),
            ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - the page's, which is not bound here
            ("/srv/fl", str(self.folder("server"))), ("/run/fl/client.sock", self.socket(party)),
            ("9bdd...", self.keys.get("north", "")), ("92eb...", self.keys.get("south", "")),
        ):  # fmt: skip
            text = text.replace(old, str(new))
        if "flower-supernode" in text:  # "several on one host each need a --port"
            text += f" --port {self.federation.free_port()}"
        return text

    def _run(self, party: str, command: str) -> str:
        if command.startswith("export "):
            self.exports[party] = f"{command}\n"
            return ""
        home = self.folder(party)
        shell = (
            "env", "-u", "FLWR_HOME", "-C", home, f"HOME={home}",
            "bash", "-e", "-c", self.exports.get(party, "") + command,
        )  # fmt: skip
        if command.startswith(SERVICES):
            self.federation.start(f"{party}-{command.split()[-1].split('/')[-1]}", shell)
            return ""
        done = subprocess.run(
            list(map(str, shell)), capture_output=True, text=True, check=False,
            timeout=START_SECONDS, env=self.federation.environment("none"),
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def python(self, party: str, snippet: str, names: dict[str, Any]) -> None:
        """Runs a snippet of the page, with a party's own arrays."""
        names = {**names, "HERE": str(self.folder(party))}
        text = f">>> import os; before = os.getcwd(); os.chdir(HERE)\n{snippet}>>> os.chdir(before)"
        part = doctest.DocTestParser().get_doctest(text, names, "snippet", "deployment.md", 0)
        failures: list[str] = []
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(part, out=failures.append)
        assert not runner.summarize(verbose=False).failed, "".join(failures)

    def hand_over(self, giver: str, file: str, taker: str, name: str) -> None:
        shutil.copy(self.folder(giver) / file, self.folder(taker) / name)


def block(first: str) -> str:
    """The page's block of lines that begins with this one, without its indentation."""
    found = re.search(rf"^    {re.escape(first)}[^\n]*\n(?:    [^\n]*\n|\n(?=    ))*", WALK, re.M)
    assert found is not None
    lines = [line.removeprefix("    ") for line in found.group().splitlines()]
    return "\n".join(line for line in lines if not re.match(r"\w+\$ ", line))


def examples(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] > 0).astype(np.int32)}


def agree(walk: Walk) -> None:
    """Keys, plan, data, and a roster that both have signed."""
    walk.keys = {party: said.strip() for party, said in walk.on("keygen").items()}
    job = block("dataset = ").replace("rounds = 10", "rounds = 2")
    (walk.folder("server") / "job.toml").write_text(job)
    walk.on("deploy init")
    walk.on("mkdir data")
    for seed, party in enumerate(ORGANISATIONS):
        walk.python(party, SNIPPETS[0], examples(SIZES[party], seed))
    walk.on("mkdir data")
    test = {f"test_{name}": rows for name, rows in examples(500, 2).items()}
    walk.python("server", SNIPPETS[1], test)
    walk.on("roster collect")
    walk.hand_over("server", "app/plan.toml", "server", "plan.toml")
    for member, party in enumerate(ORGANISATIONS):
        walk.hand_over("server", "roster.json", party, "roster.json")
        plan = (walk.folder("server") / "app" / "plan.toml").read_text()
        own = f'member = {member}\nidentity = "identity.key"\n'
        (walk.folder(party) / "plan.toml").write_text(own + plan)
    for said in walk.on("fl privacy").values():
        assert re.search(r"^server +1e-05 .* <= [34]\.", said, re.MULTILINE), said
    hashes = {said.splitlines()[-1] for said in walk.on("roster sign").values()}
    for party in ORGANISATIONS:
        walk.hand_over(party, "roster.json", "server", f"{party}.json")
    assert "2 of 2 signatures" in walk.on("roster merge")["server"]
    for party in ORGANISATIONS:
        walk.hand_over("server", "roster.json", party, "roster.json")
    for _ in range(2):
        hashes |= {said.splitlines()[-1] for said in walk.on("roster verify").values()}
    assert len(hashes) == 1


def connect(walk: Walk) -> None:
    """Certificates, SuperLink, SuperNodes and the organisations' own processes."""
    for words in ("openssl req -x509", "openssl req -newkey", "echo", "openssl x509", "ssh-keygen"):
        walk.on(words)
    for party in ORGANISATIONS:
        walk.hand_over("server", "ca.pem", party, "ca.pem")
        walk.hand_over(party, "node.key.pub", "server", f"{party}.pub")
    walk.on("export FLWR")
    walk.on("flower-superlink")
    walk.federation.wait(walk.federation._answers, "the SuperLink to answer")
    config = walk.folder("server") / ".flwr" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(walk.own("server", block("[superlink]")))
    for party in ORGANISATIONS:
        walk.on(f"flwr supernode register {party}.pub")
    for words in ("export FLWR", "fl client", "flower-supernode"):
        walk.on(words)


def test_the_page_leads_two_organisations_from_nothing_to_a_model(federation: Federation) -> None:
    walk = Walk(federation)
    agree(walk)
    connect(walk)
    walk.on("flwr run")
    run = walk.folder("server") / "state" / "run"
    federation.wait((run / "summary.json").exists, "the run to end", 600.0)
    assert "report.html" in walk.on("fl report")["server"]
    assert next(walk.left, None) is None  # the page has no other command

    summary = json.loads((run / "summary.json").read_text())
    assert summary["accuracy"] > 0.8
    server = next(row for row in summary["privacy"]["rows"] if row["adversary"] == "server")
    assert 0 < server["epsilon"]["worst_case"]["upper"] <= 4.0
    charged = rows(run / "run.sqlite", "select client, round, attempt from client_charges")
    assert sorted(charged) == [(member, index, 0) for member in (0, 1) for index in (0, 1)]
    federation.stop()  # each has its journal to itself
    for party in ORGANISATIONS:
        journal = walk.folder(party) / "state" / "journal.sqlite"
        assert rows(journal, "select round, attempt from charges") == [(0, 0), (1, 0)]
