"""One self-contained page about a run: report.html, from what summary.json and the store hold.

Needs jinja2 and matplotlib, the extra `report`. The page refers to nothing outside itself, and
holds only what the summary and the rounds already say.
"""

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fl._plots import Rounds, plots
from fl.errors import DataError, MissingExtraError, StoreError
from fl.figures import lower_text, upper_text
from fl.types import PARTS

Summary = Mapping[str, Any]

_SUMMARY_FIELDS = (
    *("dataset", "num_clients", "rounds", "accuracy", "model_sha256", "aggregation"),
    *("mechanism", "against", "metrics", "seconds_per_round", "upload_bytes_per_client_round"),
    *("cost_by_stage", "privacy", "job", "stopped_early", "versions"),
)
_ROUND_FIELDS = (
    *("round", "status", "invited", "survivors", "metrics", "epsilon", "epsilon_worst_case"),
    *("seconds", "upload_bytes"),
)
_ROW_FIELDS = (
    *("adversary", "relation", "delta", "epsilon", "reason", "c", "min_survivors"),
    "max_releases",
)
_STAGE_FIELDS = ("client_seconds", "server_seconds", "upload_bytes", "download_bytes")
_FIGURES = ("planned", "realised", "worst_case")
_NONE = "—"


def write_report(out_dir: Path, summary: Summary, rounds: Rounds) -> Path:
    """Writes out_dir/report.html, over an older one.

    Args:
        out_dir: an existing folder.
        summary: the content of summary.json; "details" is shown where there is one.
        rounds: one mapping per attempted round: round, status ("released" | "aborted"), invited,
            survivors, metrics, epsilon, epsilon_worst_case, seconds by stage, upload_bytes (of
            all clients together, or None).

    Returns:
        The path of the page.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
        DataError: the summary or a round lacks a field.
        StoreError: out_dir is not a folder.
    """
    if not out_dir.is_dir():
        raise StoreError("out_dir", f"{out_dir}, not a folder", "the folder of a run")
    page = render_report(summary, rounds)
    path = out_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def render_report(summary: Summary, rounds: Rounds) -> str:
    """The page as HTML; arguments and errors as `write_report`."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingExtraError("report.html", "report") from error
    _check(summary, rounds)
    source = importlib.resources.files("fl").joinpath("report.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(source).render(_context(summary, rounds))


def _check(summary: Summary, rounds: Rounds) -> None:
    """Every field that the page reads is there, so that a gap is named and not drawn."""
    _check_fields("summary", summary, _SUMMARY_FIELDS)
    _check_fields("summary.privacy", summary["privacy"], ("rows", "assumptions", "unit"))
    _check_fields("summary.seconds_per_round", summary["seconds_per_round"], (*PARTS, "total"))
    for number, row in enumerate(summary["privacy"]["rows"]):
        _check_fields(f"summary.privacy.rows[{number}]", row, _ROW_FIELDS)
        _check_fields(f"summary.privacy.rows[{number}].epsilon", row["epsilon"], _FIGURES)
        if row["reason"] is None and row["epsilon"]["worst_case"] is None:
            takes = "a reason, where the guarantee is not stated"
            raise DataError(f"summary.privacy.rows[{number}].reason", None, takes)
    for stage, cost in summary["cost_by_stage"].items():
        _check_fields(f"summary.cost_by_stage.{stage}", cost, _STAGE_FIELDS)
    for number, entry in enumerate(rounds):
        _check_fields(f"rounds[{number}]", entry, _ROUND_FIELDS)
        _check_fields(f"rounds[{number}].seconds", entry["seconds"], PARTS)


def _check_fields(where: str, value: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in value]
    if missing:
        raise DataError(where, f"no {', '.join(missing)}", f"the fields {', '.join(names)}")


def _context(summary: Summary, rounds: Rounds) -> dict[str, Any]:
    """Everything that the template shows, already in words."""
    privacy = summary["privacy"]
    against = _against_row(summary)
    rows = [_privacy_row(row, against is row) for row in privacy["rows"]]
    return {
        "dataset": summary["dataset"],
        "subtitle": _subtitle(summary),
        "notices": _notices(summary, rounds),
        "tiles": _tiles(summary),
        "unit": privacy["unit"],
        "rows": rows,
        "audit": _audit_words(summary.get("audit")),
        "assumptions": privacy["assumptions"],
        "plots": plots(rounds, _min_survivors(summary), costs=_shows_costs(summary))
        if rounds
        else [],
        "times": [
            {"part": part, "seconds": _seconds(summary["seconds_per_round"][part])}
            for part in (*PARTS, "total")
        ],
        "stages": [_stage_row(name, cost) for name, cost in summary["cost_by_stage"].items()],
        "fact_lists": _fact_lists(summary),
    }


def _shows_costs(summary: Summary) -> bool:
    """Whether survivors, bytes and seconds may be shown: not where cohorts are secret."""
    return not (summary.get("details") or {}).get("secret_cohort", False)


def _subtitle(summary: Summary) -> str:
    parts = [
        _count(summary["num_clients"], "client"),
        _count(summary["rounds"], "round"),
        f"aggregation {summary['aggregation']}",
        f"mechanism {summary['mechanism']}",
    ]
    return " · ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _notices(summary: Summary, rounds: Rounds) -> list[str]:
    lines = []
    if summary["stopped_early"] is not None:
        lines.append(f"Stopped early: {summary['stopped_early']}")
    aborted = sum(entry["status"] != "released" for entry in rounds)
    if aborted:
        lines.append(f"{aborted} of {_count(len(rounds), 'attempted round')} released nothing.")
    return lines


def _tiles(summary: Summary) -> list[dict[str, str]]:
    """The headline: accuracy, epsilon of the row that the noise was sized against, cost."""
    upload = summary["upload_bytes_per_client_round"]
    seconds = summary["seconds_per_round"]["total"]
    return [
        _metric_tile(summary),
        _epsilon_tile(summary),
        {"label": "Round, median", "value": _seconds(seconds), "note": "wall clock, all clients"},
        {
            "label": "Upload",
            "value": "none" if upload is None else _bytes(upload),
            "note": "per client and round" if upload is not None else "no protocol was run",
        },
    ]


def _metric_tile(summary: Summary) -> dict[str, str]:
    accuracy, error = summary["accuracy"], summary["metrics"].get("mae")
    if accuracy is not None:
        return {"label": "Test accuracy", "value": f"{100 * accuracy:.1f} %", "note": "final model"}
    if error is not None:
        return {"label": "Test mean error", "value": f"{error:.4g}", "note": "final model"}
    return {"label": "Test accuracy", "value": "none", "note": "not evaluated"}


def _epsilon_tile(summary: Summary) -> dict[str, str]:
    row = _against_row(summary)
    if row is None:
        note = "the plan names no adversary: see the table"
        return {"label": "Epsilon", "value": "none", "note": note}
    label = f"Epsilon against {row['adversary']}"
    if row["epsilon"]["worst_case"] is None:
        return {"label": label, "value": "none", "note": row["reason"]}
    note = f"worst case, at delta {row['delta']:g}"
    if row["epsilon"]["realised"] is not None:
        note += f"; realised {_interval(row['epsilon']['realised'])}"
    return {"label": label, "value": _interval(row["epsilon"]["worst_case"]), "note": note}


def _against_row(summary: Summary) -> Mapping[str, Any] | None:
    """The row that the noise was sized against; further rows of its adversary are extra deltas."""
    rows: Sequence[Mapping[str, Any]] = summary["privacy"]["rows"]
    return next((row for row in rows if row["adversary"] == summary["against"]), None)


def _min_survivors(summary: Summary) -> int | None:
    """One number per run, repeated in the rows that use it."""
    numbers = [row["min_survivors"] for row in summary["privacy"]["rows"]]
    return next((number for number in numbers if number is not None), None)


def _privacy_row(row: Mapping[str, Any], against: bool) -> dict[str, Any]:
    return {
        "adversary": row["adversary"],
        "against": against,
        "relation": _text(row["relation"]).replace("_", "-"),
        "delta": _NONE if row["delta"] is None else f"{row['delta']:g}",
        **{name: _interval(row["epsilon"][name]) for name in _FIGURES},
        "audited": _audited(row.get("audited")),
        "refuted": bool((row.get("audited") or {}).get("refuted")),
        "stated": any(row["epsilon"][name] is not None for name in _FIGURES),
        "reason": row["reason"],
        "c": _text(row["c"]),
        "min_survivors": _text(row["min_survivors"]),
        "max_releases": _text(row["max_releases"]),
    }


def _audited(found: Mapping[str, Any] | None) -> str:
    """A lower bound, rounded down; what it is compared with is the claim of the run attacked."""
    return _NONE if found is None else f"≥ {lower_text(found['lower'])}"


def _audit_words(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What stands under the table of an audited run, or None."""
    if audit is None:
        return None
    return {
        "confidence": f"{100 * audit['confidence']:g} %",
        "canaries": audit["canaries"],
        "guesses": audit["guesses"],
        "aggregation": audit["aggregation"],
        "detectors": [
            {"name": one["name"], "p": f"{one['p_value']:.3g}", "alarm": one["alarm"]}
            for one in audit["detectors"]
        ],
    }


def _stage_row(name: str, cost: Mapping[str, Any]) -> dict[str, str]:
    return {
        "stage": name.replace("_", " "),
        "client": _seconds(cost["client_seconds"]),
        "server": _seconds(cost["server_seconds"]),
        "up": _bytes(cost["upload_bytes"]),
        "down": _bytes(cost["download_bytes"]),
    }


def _fact_lists(summary: Summary) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of names and values; empty ones are left out."""
    model = {**summary["metrics"], "SHA-256 of the parameters": summary["model_sha256"]}
    lists = [
        ("Final model", model),
        *_client_facts(summary),
        ("What the plan came to", summary.get("details") or {}),
        ("Parameters of the job", summary["job"] or {}),
        ("Versions", summary["versions"]),
    ]
    return [
        (title, [(name, _text(value)) for name, value in facts.items()])
        for title, facts in lists
        if facts
    ]


def _client_facts(summary: Summary) -> list[tuple[str, Mapping[str, Any]]]:
    """Figures over the clients' own examples, under a title that says what protects them."""
    clients = summary.get("client_metrics")
    if not clients:
        return []
    return [(f"Clients' own examples ({clients['guarantee']})", clients["values"])]


def _text(value: object) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return json.dumps(value)
    return str(value)


def _interval(interval: Mapping[str, float] | None) -> str:
    """A certified interval; its ends are rounded outwards, so that what is printed holds."""
    if interval is None:
        return _NONE
    lower, upper = float(interval["lower"]), float(interval["upper"])
    if math.isnan(upper) or math.isnan(lower):
        raise DataError("epsilon", f"{lower} to {upper}", "numbers")
    high = "∞" if math.isinf(upper) else upper_text(upper)
    if lower <= 0:
        return f"≤ {high}"
    return f"{lower_text(lower)} to {high}"


def _seconds(value: float | None) -> str:
    if value is None:
        return _NONE
    if value >= 100:
        return f"{value:,.0f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{1e3 * value:.1f} ms" if value >= 1e-3 else f"{1e3 * value:.3f} ms"


def _bytes(value: float) -> str:
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:,.2f} {unit}"
    return f"{value:.0f} B"
