"""The plots of benchmarks/report.py about dropouts, attacks and correlated noise."""

from typing import TYPE_CHECKING

import numpy as np

from benchmarks._plots import COLOURS, GREY, RED, Rows, legend_below
from benchmarks._results import Row
from fl._plots import Plot, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What the factorizations are called; of bands and buffers the best is drawn.
_ERRORS = {
    "independent": "independent", "tree": "tree", "tree-honaker": "tree, all intervals below",
    "banded": "banded, best of its bands", "blt": "BLT, best of its buffers",
}  # fmt: skip
_VIEWS = ("update", "masked vector", "sum", "sum, others known")
PICTURED = ("truth", "update", "masked vector", "noised sum, others known, epsilon 8")


def dropouts(rows: Rows) -> list[Plot]:
    """Epsilon against the clients that left, and the outsider that counts participants."""
    found = []
    if any(key.startswith("sweep/dropout") for key in rows):
        found.append(_epsilon([r for k, r in rows.items() if k.startswith("sweep/dropout")]))
    if any(key.startswith("leak/") for key in rows):
        found.append(_head_count([r for k, r in rows.items() if k.startswith("leak/")]))
    return found


def _epsilon(rows: list[Row]) -> Plot:
    """What holds and what a naive implementation claims, by the clients that leave."""
    rates = [100 * row["rate"] for row in rows]
    allowed = max(100 * row["rate"] for row in rows if row["released"])

    def draw(axes: "Axes") -> None:
        naive = [row["sized_for"]["all clients"] for row in rows]
        low, high = [one["lower"] for one in naive], [one["upper"] for one in naive]
        axes.fill_between(rates, low, high, color=RED, alpha=0.18, linewidth=0)
        axes.plot(rates, high, color=RED, label="noise sized for all: at most (shaded: at least)")
        axes.axhline(
            rows[0]["planned"], color=RED, linestyle="--", linewidth=1.2, label="what it claims"
        )
        inside = [row for row in rows if row["released"]]
        axes.plot(
            [100 * row["rate"] for row in inside], [row["realised"] for row in inside], "o-",
            color=COLOURS[1], markersize=4, label="this library, realised",
        )  # fmt: skip
        axes.axvline(allowed, color=GREY, linewidth=1)
        axes.text(allowed + 0.4, min(low) - 0.25, "beyond: releases nothing", fontsize=8.5)
        axes.set_ylim(min(low) - 0.35, max(high) + 0.15)
        axes.set_xlabel("clients that leave in every round (%)")
        axes.set_ylabel("epsilon against the server")
        legend_below(axes, 1)

    caption = "200 clients, a tenth may leave and a tenth may collude; the same total noise. A"
    caption += " claim below the shaded area is false."
    title = "Epsilon as clients leave"
    return Plot(title, caption, svg(title, draw, (4.6, 3.6)))


def _head_count(rows: list[Row]) -> Plot:
    """Curves of the test "the client took part"."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="nothing shows")
        for row, colour in zip(rows, COLOURS[1:], strict=False):
            false, true = zip(*row["roc"], strict=True)
            label = f"{row['others']} others: area {row['auc']:.3f}"
            axes.plot(false, true, color=colour, label=label)
        axes.set_xlabel('"took part", of rounds without the client')
        axes.set_ylabel("of rounds with it")
        axes.grid(visible=True, axis="both")
        legend_below(axes, 1)

    title = "Noise shares show who took part"
    caption = (
        "One noised sum of 100,000 coordinates; the client's own vector is zero. Amplification"
    )
    caption += " by sampling supposes the dashed line."
    return Plot(title, caption, svg(title, draw, (4.6, 3.9)))


def attacks(rows: Rows) -> list[Plot]:
    """Reconstructed images, membership, and the audits."""
    mine = {k.partition("/")[2]: r for k, r in rows.items() if k.startswith("logistic/")}
    found = []
    if all(view in mine and "pictures" in mine[view] for view in PICTURED):
        found.append(_images({view: mine[view]["pictures"] for view in PICTURED}))
    told = {view: row for view, row in mine.items() if row.get("advantage")}
    if told:
        found.append(_membership(told))
    audits = [row for key, row in rows.items() if key.startswith("audit/")]
    if audits:
        found.append(_audits(audits))
    return found


def pixels(picture: str) -> np.ndarray:
    """[8, 8] of an image kept as 64 hexadecimal digits."""
    return np.array([int(digit, 16) for digit in picture]).reshape(8, 8)


def _images(pictures: dict[str, list[str]]) -> Plot:
    """Strips of images, one for each view."""

    def draw(axes: "Axes") -> None:
        gap = np.full((8, 1), np.nan)
        for place, (view, shown) in enumerate(list(pictures.items())[::-1]):
            strip = np.hstack([part for one in shown for part in (pixels(one), gap)])
            extent = (0.0, strip.shape[1] / 9, place, place + 0.76)
            axes.imshow(strip, cmap="gray_r", vmin=0, vmax=15, extent=extent, aspect="auto")
            axes.text(0.0, place + 0.79, view, fontsize=8.5, va="bottom")
        axes.set_ylim(0, len(pictures) + 0.05)
        axes.axis("off")

    title = "What an attack makes of it"
    caption = "Images of single clients: as they are, and as inverted from what the server sees."
    return Plot(title, caption, svg(title, draw, (4.6, 0.9 * len(pictures))))


def _membership(rows: dict[str, Row]) -> Plot:
    """Advantages with intervals and what epsilon allows."""
    ordered = sorted(rows, key=lambda view: rows[view]["order"])[::-1]

    def draw(axes: "Axes") -> None:
        for place, view in enumerate(ordered):
            told = rows[view]["advantage"]
            colour = RED if view in _VIEWS else COLOURS[1]
            axes.plot([told["low"], told["high"]], [place, place], color=colour, linewidth=1.5)
            axes.plot([told["value"]], [place], "o", color=colour, markersize=5)
            if rows[view]["bound"] is not None:
                axes.plot([rows[view]["bound"]], [place], "|", color=COLOURS[0], markersize=11)
        axes.axvline(0.0, color=GREY, linewidth=1)
        axes.set_yticks(range(len(ordered)), [view.replace(", eps", ",\neps") for view in ordered])
        axes.set_xlim(-0.2, 1.05)
        axes.set_xlabel("membership advantage")
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")

    title = "Did the client send its update, or zero?"
    caption = "With 95 % intervals; red without noise. The stroke is what (epsilon, delta) allows."
    return Plot(title, caption, svg(title, draw, (4.6, 1.0 + 0.42 * len(ordered))))


def _audits(rows: list[Row]) -> Plot:
    """From each row's lower bound to its claim."""
    ordered = sorted(rows, key=lambda row: (row["claimed"], row["adversary"]))[::-1]

    def draw(axes: "Axes") -> None:
        for place, row in enumerate(ordered):
            axes.plot([row["lower"], row["claimed"]], [place, place], color=GREY, linewidth=4)
            axes.plot([row["lower"]], [place], "o", color=RED, markersize=5)
            axes.plot([row["claimed"]], [place], "|", color=COLOURS[0], markersize=12)
        names = [f"{row['adversary']}, {row['epsilon']:g}" for row in ordered]
        axes.set_yticks(range(len(ordered)), names)
        axes.set_xlim(left=0.0)
        axes.set_xlabel("epsilon")
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")

    title = "What leaks at least, and at most"
    caption = "Red: the audit's lower bound at 95 % confidence; the stroke: the statement's claim,"
    caption += " of plans sized for epsilon 1 and 8 against the server."
    return Plot(title, caption, svg(title, draw, (4.6, 0.9 + 0.3 * len(ordered))))


def correlated(rows: Rows) -> list[Plot]:
    """Errors of the factorizations against the rounds."""
    found = [_errors(rows, participations) for participations in (1, 8)]
    return [plot for plot in found if plot.svg]


def _errors(rows: Rows, participations: int) -> Plot:
    """Errors by rounds, the best of each family."""
    title = f"Prefix sums: error with {participations} participation{'s'[: participations - 1]}"
    lines: dict[str, dict[int, float]] = {}
    bound: dict[int, float] = {}
    for key, row in rows.items():
        parts = key.split("/")
        if parts[0] != "errors" or parts[2] != f"participations-{participations}":
            continue
        if parts[3] in ("bound", "dense"):
            bound[int(parts[1])] = max(row["rms_error"], bound.get(int(parts[1]), 0.0))
        family = parts[3] if parts[3] in _ERRORS else parts[3].partition("-")[0]
        if family in _ERRORS and not parts[3].endswith("full"):
            line = lines.setdefault(family, {})
            line[int(parts[1])] = min(row["rms_error"], line.get(int(parts[1]), np.inf))
    if not lines:
        return Plot(title, "", "")

    def draw(axes: "Axes") -> None:
        for (family, label), colour in zip(_ERRORS.items(), (GREY, *COLOURS[1:]), strict=False):
            if family in lines:
                xs = sorted(lines[family])
                ys = [lines[family][x] for x in xs]
                axes.plot(xs, ys, "o-", color=colour, markersize=3.5, label=label)
        xs = sorted(bound)
        axes.plot(xs, [bound[x] for x in xs], "k_", markersize=10, label="none is below")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(xs, [f"{x:,}" for x in xs])
        axes.yaxis.set_major_formatter(lambda number, _: f"{number:g}")
        axes.yaxis.set_minor_formatter(lambda number, _: "")
        axes.set_xlabel("rounds")
        axes.set_ylabel("rms error of the prefix sums")
        legend_below(axes, 1)

    caption = "Per unit of noise multiplier and clip norm, sensitivity included; log scales."
    return Plot(title, caption, svg(title, draw, (4.6, 3.9)))
