"""The report says what the summary says, rounds epsilon up, and refers to nothing outside."""

import copy
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl import report
from fl.errors import DataError, MissingExtraError, StoreError
from fl.report import render_report, write_report

_ROOT = Path(__file__).resolve().parents[2]


def _upper(value: float) -> dict[str, float]:
    return {"lower": 0.0, "upper": value}


def _row(adversary: str, **changed: Any) -> dict[str, Any]:
    figures = {"planned": _upper(3.71), "realised": _upper(3.66), "worst_case": _upper(3.9986)}
    row = {"adversary": adversary, "relation": "zero_out", "delta": 1e-3, "epsilon": figures}
    row |= {"reason": None, "c": 20, "min_survivors": 180, "max_releases": 20}
    return row | changed


def _summary(**changed: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("planned", "realised", "worst_case"))
    rows = [
        _row("outsider", epsilon=nothing, reason="the noise grows with the participants", c=None),
        _row("server"),
        _row(
            "participants",
            epsilon={"planned": _upper(1.5), "realised": None, "worst_case": _upper(2.5)},
            reason="survivors may not be public",
        ),
    ]
    stage = {"client_seconds": 0.0031, "server_seconds": 0.15}
    summary = {"dataset": "digits", "num_clients": 200, "rounds": 3, "accuracy": 0.9278}
    summary |= {"model_sha256": "c0ffee", "aggregation": "secure", "mechanism": "skellam"}
    summary |= {"against": "server", "metrics": {"accuracy": 0.9278}}
    seconds = {"train": 0.12, "encode": 0.21, "protocol": 1.45, "decode": 0.002, "total": 1.8}
    summary |= {"seconds_per_round": seconds, "upload_bytes_per_client_round": 10320.5}
    stage |= {"upload_bytes": 4300.0, "download_bytes": 90.0}
    summary |= {"cost_by_stage": {"share_keys": stage}, "stopped_early": None}
    assumptions = ["Durations do not depend on data."]
    summary |= {"privacy": {"rows": rows, "assumptions": assumptions, "unit": "client"}}
    summary |= {"job": {"cohort": "full", "simulate_dropout": {"unmask": 0.01}, "seed": None}}
    summary |= {"versions": {"numpy": "2.4.0"}}
    return copy.deepcopy(summary) | changed


def _round(index: int, **changed: Any) -> dict[str, Any]:
    entry = {"round": index, "status": "released", "invited": 200, "survivors": 190 - index}
    entry |= {"metrics": {"accuracy": 0.5, "loss": 1.0}, "epsilon": 1.0 + index}
    seconds = {"train": 0.1, "encode": 0.2, "protocol": 1.4, "decode": 0.002}
    entry |= {"epsilon_worst_case": 1.2 + index, "seconds": seconds, "upload_bytes": 2_000_000}
    return entry | changed


def _rounds(count: int = 3, /, **changed: Any) -> list[dict[str, Any]]:
    return [_round(index, **changed) for index in range(count)]


class _Page(HTMLParser):
    """Tags, what they refer to, the visible text, and the cells of each table row."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        names = ("src", "href", "xlink:href", "data", "srcset", "action", "poster")
        self.references += [value or "" for name, value in attrs if name in names]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].split(" sized")[0] == name)


def _page(summary: dict[str, Any], rounds: list[dict[str, Any]]) -> _Page:
    return _Page(render_report(summary, rounds))


def test_the_page_is_written_over_an_older_one(tmp_path: Path):
    (tmp_path / "report.html").write_text("old")
    path = write_report(tmp_path, _summary(), _rounds())
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == render_report(_summary(), _rounds())


def test_the_page_refers_to_nothing_outside():
    source = render_report(_summary(), _rounds())
    page = _Page(source)
    assert not {"script", "link", "img", "iframe", "object", "base", "image"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.references)
    without_names = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", source)
    assert "http:" not in without_names
    assert "https:" not in without_names
    assert "@import" not in source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", source))


def test_ids_of_the_figures_do_not_collide():
    source = render_report(_summary(), _rounds())
    clips = re.findall(r'<clipPath id="([^"]*)"', source)
    assert len(clips) == 6
    assert len(set(clips)) == 6


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes():
    assert render_report(_summary(), _rounds()) == render_report(_summary(), _rounds())


def test_the_headline_is_the_guarantee_of_the_row_it_was_sized_against():
    text = " ".join(_page(_summary(), _rounds()).text.split())
    assert "92.8 %" in text
    assert "Epsilon against server≤ 4.00worst case, at delta 0.001; realised ≤ 3.66" in text
    other = " ".join(_page(_summary(against="participants"), _rounds()).text.split())
    assert "Epsilon against participants≤ 2.50worst case" in other


def test_the_table_has_one_row_per_adversary():
    page = _page(_summary(), _rounds())
    assert page.row("server")[1:] == [
        *("zero-out", "0.001", "≤ 3.71", "≤ 3.66", "≤ 4.00"),
        *("20", "180", "20"),
    ]
    assert page.row("server")[0] == "server sized against"
    assert page.row("participants")[3:6] == ["≤ 1.50", "—", "≤ 2.50"]
    assert ["survivors may not be public"] in page.rows


def test_a_second_delta_is_a_row_of_its_own():
    summary = _summary()
    summary["privacy"]["rows"].append(_row("server", delta=1e-5))
    page = _page(summary, _rounds())
    assert [row[2] for row in page.rows if row[0].startswith("server")] == ["0.001", "1e-05"]
    assert page.text.count("sized against") == 1
    assert "worst case, at delta 0.001" in page.text


def test_the_reason_stands_where_no_epsilon_is_stated():
    page = _page(_summary(), _rounds())
    assert page.row("outsider")[1:] == [
        *("zero-out", "0.001", "the noise grows with the participants", "—", "180", "20"),
    ]
    headline = " ".join(_page(_summary(against="outsider"), _rounds()).text.split())
    assert "Epsilon against outsidernonethe noise grows with the participants" in headline


def test_assumptions_costs_job_and_versions_are_shown():
    text = _page(_summary(), _rounds()).text
    for words in (
        *("Durations do not depend on data.", "share keys", "3.1 ms", "150.0 ms", "4.30 kB"),
        *("90 B", "10.32 kB", "1.80 s", '{"unmask": 0.01}', "2.4.0", "c0ffee"),
    ):
        assert words in text


def test_details_are_shown_where_there_are_any():
    text = _page(_summary(details={"noise_multiplier": 4.0412345678}), _rounds()).text
    assert "noise_multiplier4.04123" in text
    assert "What the plan came to" not in _page(_summary(), _rounds()).text


def test_every_figure_is_drawn():
    source = render_report(_summary(), _rounds())
    titles = re.findall(r"<figure><h3>([^<]*)</h3><svg", source)
    assert titles == [
        *("Accuracy", "Loss", "Epsilon so far", "Survivors", "Time per round"),
        "Upload per client",
    ]
    for words in ("invited", "minimum", "worst case", "protocol", "kB per invited client"):
        assert f">{words}</text>" in source
    assert ">aborted</text>" not in source


def test_an_aborted_round_is_marked_and_counted():
    rounds = _rounds()
    rounds[1] |= {"status": "aborted", "survivors": 170, "metrics": {}}
    source = render_report(_summary(), rounds)
    assert ">aborted</text>" in source
    assert "1 of 3 attempted rounds released nothing." in source


def test_stopping_early_is_said_first():
    text = _page(_summary(stopped_early="no release left"), _rounds()).text
    assert "Stopped early: no release left" in text
    assert "Stopped early" not in _page(_summary(), _rounds()).text


def test_a_plain_run_has_no_epsilon_and_no_bytes():
    summary = _summary(against=None, cost_by_stage={}, upload_bytes_per_client_round=None, job=None)
    summary["privacy"] |= {"assumptions": [], "unit": None}
    for row in summary["privacy"]["rows"]:
        row |= {"epsilon": dict.fromkeys(row["epsilon"]), "reason": "no noise was added"}
        row |= dict.fromkeys(("delta", "c", "min_survivors", "max_releases", "relation"))
    nothing: dict[str, Any] = {"epsilon": None, "epsilon_worst_case": None, "upload_bytes": None}
    page = _page(summary, _rounds(survivors=200, **nothing))
    assert page.text.count("no noise was added") == 3
    assert "Unit of privacy" not in page.text
    assert page.text.count("Epsilon so far: no epsilon may be stated for this run.") == 1
    assert "Upload per client: no protocol was run" in page.text
    assert page.tags.count("svg") == 4
    assert "minimum" not in page.text
    assert "The protocol, stage by stage" not in page.text
    assert "Parameters of the job" not in page.text


@pytest.mark.parametrize(
    "rounds",
    [
        [],
        _rounds(1),
        _rounds(1, metrics={}, status="aborted", survivors=0, invited=0),
        _rounds(2, epsilon=math.inf, epsilon_worst_case=math.inf),
        _rounds(2, epsilon=0.0, epsilon_worst_case=0.0),
        _rounds(200),
        _rounds(2, epsilon=None),
    ],
)
def test_unusual_runs_are_drawn_without_a_warning(rounds: list[dict[str, Any]]):
    page = _page(_summary(accuracy=None), rounds)
    assert ("Over the rounds" in page.text) == bool(rounds)
    assert "not evaluated" in page.text


def test_everything_given_is_escaped():
    evil = "<script>alert('x')</script>&\""
    summary = _summary(dataset=evil, stopped_early=evil, job={evil: evil}, versions={evil: evil})
    summary["privacy"]["assumptions"] = [evil]
    summary["privacy"]["rows"][0]["reason"] = evil
    summary["cost_by_stage"][evil] = summary["cost_by_stage"]["share_keys"]
    rounds = _rounds()
    rounds[0]["metrics"][evil] = 1.0  # reaches an axis label of a figure
    page = _page(summary, rounds)
    assert "script" not in page.tags
    assert page.text.count(evil) >= 9


@given(st.floats(1e-9, 1e9), st.floats(0, 1))
def test_what_is_printed_holds(upper: float, fraction: float):
    text = report._interval({"lower": fraction * upper, "upper": upper})
    *low, high = re.findall(r"[\d.]+", text)
    assert upper <= float(high) <= upper * 1.0101 + 1e-12
    if low:
        assert 0 <= float(low[0]) <= fraction * upper
    else:
        assert text.startswith("≤ ")


@pytest.mark.parametrize(
    ("lower", "upper", "text"),
    [
        (0.0, 4.0, "≤ 4.00"),
        (0.0, 3.9986, "≤ 4.00"),
        (0.0, 4.001, "≤ 4.01"),
        (0.0, 0.012341, "≤ 0.0124"),
        (0.0, 0.0, "≤ 0.00"),
        (0.0, math.inf, "≤ ∞"),
        (1.239, 1.241, "1.23 to 1.25"),
    ],
)
def test_ends_are_rounded_outwards(lower: float, upper: float, text: str):
    assert report._interval({"lower": lower, "upper": upper}) == text


def test_an_epsilon_that_is_not_a_number_is_refused():
    summary = _summary()
    summary["privacy"]["rows"][1]["epsilon"]["planned"] = _upper(math.nan)
    with pytest.raises(DataError, match="epsilon"):
        render_report(summary, _rounds())


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda summary, rounds: summary.pop("mechanism"), "summary"),
        (lambda summary, rounds: summary["privacy"].pop("unit"), "summary.privacy"),
        (lambda summary, rounds: summary["seconds_per_round"].pop("total"), "seconds_per_round"),
        (lambda summary, rounds: summary["privacy"]["rows"][2].pop("c"), "rows[2]"),
        (
            lambda summary, rounds: summary["privacy"]["rows"][1]["epsilon"].pop("planned"),
            "rows[1]",
        ),
        (lambda summary, rounds: summary["privacy"]["rows"][0].update(reason=None), "reason"),
        (lambda summary, rounds: summary["cost_by_stage"]["share_keys"].popitem(), "share_keys"),
        (lambda summary, rounds: rounds[1].pop("invited"), "rounds[1]"),
        (lambda summary, rounds: rounds[1]["seconds"].pop("decode"), "rounds[1].seconds"),
    ],
)
def test_a_gap_is_named(
    spoil: Callable[[dict[str, Any], list[dict[str, Any]]], object], field: str
):
    summary, rounds = _summary(), _rounds()
    spoil(summary, rounds)
    with pytest.raises(DataError) as caught:
        render_report(summary, rounds)
    assert field in caught.value.field


def test_the_folder_must_exist(tmp_path: Path):
    with pytest.raises(StoreError, match=r"out_dir: got .*none, not a folder"):
        write_report(tmp_path / "none", _summary(), _rounds())


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_a_missing_package_names_the_extra(module: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"private-aggregation\[report\]") as caught:
        render_report(_summary(), _rounds())
    assert caught.value.extra == "report"


def test_importing_loads_no_extra_and_drawing_no_window_system():
    program = (
        "import json, sys, fl.report\n"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "summary, rounds = json.loads(sys.stdin.read())\n"
        "fl.report.render_report(summary, rounds)\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    given_text = json.dumps([_summary(), _rounds()])
    subprocess.run(
        [sys.executable, "-c", program], input=given_text, text=True, check=True, cwd=_ROOT
    )


def test_drawing_leaves_the_settings_of_others_alone():
    before = dict(matplotlib.rcParams)
    render_report(_summary(), _rounds())
    assert dict(matplotlib.rcParams) == before
