"""Tables and one-line notes for the terminal."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import dp
from fl.audit import Audit, Probe
from fl.figures import lower_text, upper_text
from fl.results import Round
from fl.statement import Statement


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns aligned columns under a header; the first column is left-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def _upper(value: dp.Interval | None) -> str:
    return "-" if value is None else f"<= {upper_text(value.upper)}"


def privacy_table(statement: Statement, *, assumptions: bool) -> str:
    """Returns the statement: a line per adversary and delta, then reasons and assumptions."""
    header = (
        "adversary", "delta", "planned", "realised", "worst case", "relation", "c",
        "min survivors", "max releases",
    )  # fmt: skip
    rows = [
        (
            row.adversary, "-" if row.delta is None else str(row.delta),
            _upper(row.planned), _upper(row.realised), _upper(row.worst_case), row.relation,
            str(row.c), str(row.min_survivors), str(row.max_releases),
        )
        for row in statement.rows
    ]  # fmt: skip
    reasons = {f"{row.adversary}: {row.reason}" for row in statement.rows if row.reason}
    notes = [*sorted(reasons), *(statement.assumptions if assumptions else ())]
    wrapped = [textwrap.fill(f"* {note}", 100, subsequent_indent="  ") for note in notes]
    return "\n".join(["epsilon", table(header, rows), *wrapped])


def audit_table(found: Audit, probed: Probe) -> str:
    """Returns what leaks at least beside what is claimed, and what the detectors say."""
    confidence = f"{100 * (1 - found.significance):g} %"
    header = ("adversary", "delta", f"audited ({confidence})", "claimed", "guessed", "refuted")
    rows = [
        (
            row.adversary, str(row.delta), f">= {lower_text(row.lower)}",
            f"<= {upper_text(row.claimed)}", f"{row.correct} of {found.guesses}",
            "YES" if row.refuted else "no",
        )
        for row in found.rows
    ]  # fmt: skip
    estimates = "; ".join(
        f"{row.adversary} {row.estimate:.2f}" for row in found.rows if row.estimate is not None
    )
    notes = [f"* {dp.NOT_A_BOUND}: {estimates}"] if estimates else []
    notes += [
        f"* {one.name}: p <= {one.p_value:.3g}{' ALARM' if one in probed.alarms else ''}"
        for one in probed.detections
    ]
    return "\n".join([f"epsilon, {found.canaries} canaries", table(header, rows), *notes])


def cost_table(summary: Mapping[str, Any]) -> str:
    """Returns bytes and seconds by stage, medians over rounds."""
    seconds = summary["seconds_per_round"]
    parts = ", ".join(
        f"{part} {'-' if value is None else f'{value:.3f}'}" for part, value in seconds.items()
    )
    lines = [f"seconds per round, all clients in this process: {parts}"]
    if summary["cost_by_stage"]:
        header = ("stage", "client CPU ms", "upload bytes", "download bytes", "server CPU ms")
        rows = [
            (
                stage,
                "-" if cost["client_seconds"] is None else f"{cost['client_seconds'] * 1e3:.2f}",
                f"{cost['upload_bytes']:,.0f}",
                f"{cost['download_bytes']:,.0f}",
                f"{cost['server_seconds'] * 1e3:.2f}",
            )
            for stage, cost in summary["cost_by_stage"].items()
        ]
        lines += ["per client and round (server: per round)", table(header, rows)]
    elif summary["upload_bytes_per_client_round"] is not None:
        lines.append(
            f"upload per client and round: {summary['upload_bytes_per_client_round']:,.0f} bytes"
        )
    return "\n".join(lines) + "\n"


def metrics_text(metrics: Mapping[str, float | None], *, digits: int) -> str:
    """Returns the accuracy, or, where there is none, the errors of a regression; "" without."""
    accuracy = metrics.get("accuracy")
    if accuracy is not None:
        return f"accuracy {accuracy:.{digits}%}"
    errors = {name: metrics.get(name) for name in ("mae", "mse")}
    return ", ".join(f"{name} {value:.4g}" for name, value in errors.items() if value is not None)


def round_line(index: int, what: str) -> str:
    """Returns what came of a round behind its number, which a reason may begin with already."""
    named = what.startswith((f"round {index}:", f"round {index},"))
    return what if named else f"round {index}: {what}"


def round_note(finished: Round) -> str:
    """Returns the metrics, epsilon so far and survivors in one line."""
    parts = [metrics_text(finished.metrics, digits=1)]
    parts.append("" if finished.epsilon is None else f"epsilon <= {upper_text(finished.epsilon)}")
    parts.append(f"{len(finished.survivors)} clients")
    return ", ".join(part for part in parts if part)
