"""The plots of benchmarks/report.py, each from the rows of one results file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import secureagg
from benchmarks import rounds_to_target
from benchmarks._results import Row
from fl._plots import Plot, legend, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Mapping[str, Row]
COLOURS = ("#33393f", "#2f6690", "#d9a566", "#8a9a5b", "#b5483a", "#81b0c9", "#7a5c86")
GREY, RED = "#a9adb1", "#b5483a"


def legend_below(axes: "Axes", columns: int = 2) -> None:
    """Below the figure, where a long one hides nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.get_figure(root=True).legend(loc="outside lower left", ncols=columns)  # type: ignore[union-attr]  # it is drawn on one


def rounds(rows: Rows) -> list[Plot]:
    """Accuracy over the rounds, with the paper's figure."""
    names = [name for name in rounds_to_target.ROWS if any(r["row"] == name for r in rows.values())]
    return [_rounds([row for row in rows.values() if row["row"] == name], name) for name in names]


def _rounds(rows: Sequence[Row], name: str) -> Plot:
    """One row's curves, and the paper's figure."""
    setting = rounds_to_target.ROWS[name]
    rates = sorted({row["lr"] for row in rows})

    def draw(axes: "Axes") -> None:
        for row in rows:
            number = rates.index(row["lr"])
            first = row["seed"] == min(r["seed"] for r in rows if r["lr"] == row["lr"])
            ys = [100 * value for value in row["curve"]]
            axes.plot(
                range(1, len(ys) + 1), ys, color=COLOURS[number + 1], linewidth=1.1,
                label=f"rate {row['lr']:g}" if first else None,
            )  # fmt: skip
        axes.axhline(100 * setting.target, color=GREY, linestyle="--", linewidth=1)
        axes.plot(
            [setting.paper[0]], [100 * setting.target], "x", color=RED, markersize=7,
            markeredgewidth=2, label=f"paper: {setting.paper[0]}",
        )  # fmt: skip
        axes.set_ylim(100 * setting.target - 8, 100 * setting.target + 1)
        axes.set_xlabel("round")
        axes.set_ylabel("test accuracy (%)")
        legend(axes)

    title = f"{name}: rounds to {setting.target:.0%}"
    caption = "One line per seed. The cross is the figure of McMahan et al. 2017, tuned there."
    return Plot(title, caption, svg(title, draw))


def bars(
    title: str, unit: str, values: Mapping[str, float], caption: str, ours: Iterable[str] = ()
) -> Plot:
    """Horizontal bars with their values; `ours` are coloured."""
    kept = set(ours)

    def draw(axes: "Axes") -> None:
        names = list(values)[::-1]
        colours = [COLOURS[1] if name in kept else GREY for name in names]
        axes.barh(names, [values[name] for name in names], color=colours, height=0.62)
        for place, name in enumerate(names):
            axes.text(values[name], place, f" {values[name]:.3g}", va="center", fontsize=8.5)
        axes.set_xlabel(unit)
        axes.margins(x=0.14)
        axes.grid(visible=False)

    return Plot(title, caption, svg(title, draw, (4.6, 0.9 + 0.32 * len(values))))


def sampling(rows: Rows) -> list[Plot]:
    """Values per second of the samplers, beside OpenDP's where it was run."""
    values = {
        name.replace(", scale 10", ""): row["rate"]
        for name, row in rows.items()
        if name.endswith("scale 10")
    }
    if not values:
        return []
    ours = [name for name in values if not name.startswith("OpenDP")]
    caption = (
        "Scale 10. Exact laws, bytes from AES-CTR; OpenDP, where it is shown, in the same run."
    )
    return [bars("Noise", "million values per CPU second", values, caption, ours)]


def federations(rows: Rows) -> list[Plot]:
    """Wall-clock seconds of the stages across organisations."""
    measured = sorted(rows.values(), key=lambda r: (r["parameters"], r["nodes"]), reverse=True)
    title = "A round across organisations"

    def draw(axes: "Axes") -> None:
        names, left = (
            [f"{row['nodes']} nodes,\n{row['parameters']:,} parameters" for row in measured],
            [0.0] * len(measured),
        )
        stages = dict.fromkeys(stage for row in measured for stage in row["stages"])
        for stage, colour in zip(stages, COLOURS[1:], strict=False):
            widths = [row["stages"].get(stage, {"wall": 0.0})["wall"] for row in measured]
            label = stage.replace("_", " ")
            axes.barh(names, widths, left=left, color=colour, height=0.62, label=label)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_xlabel("wall-clock seconds")
        axes.grid(visible=False)
        legend_below(axes)

    caption = "Flower's real processes on one machine, over TLS; medians over the rounds."
    return [Plot(title, caption, svg(title, draw, (4.6, 1.7 + 0.45 * len(measured))))]


def speed(rows: Rows) -> list[Plot]:
    """A round's CPU seconds beside the peers', and memory against cohort and chunk."""
    found = []
    for name, label in (("2nn", "2NN"), ("cnn", "CNN")):
        measured = [row for key, row in rows.items() if key.partition(",")[0] == name]
        if not measured:
            continue
        row = max(measured, key=lambda one: len(one["peers"]))
        values = {"this": row["cpu_seconds"], "products alone": row["limit_seconds"]}
        values |= {peer: one["cpu_seconds"] for peer, one in row["peers"].items()}
        caption = "10 clients x 600 examples, batches of 10, one epoch, one core, in one run."
        found.append(
            bars(f"{label}: a round of training", "CPU seconds", values, caption, ["this"])
        )
    for key, row in rows.items():
        model = key.partition(",")[0].removeprefix("dpsgd-")
        if key.startswith("dpsgd-"):
            values = {"this": row["cpu_seconds"], "its gradients alone": row["gradients_seconds"]}
            values |= {peer: one["cpu_seconds"] for peer, one in row["peers"].items()}
            caption = (
                f"{row['records']} records, one core, in one run; the same losses without noise."
            )
            title = f"{model.upper()}: a DP-SGD step"
            found.append(bars(title, "CPU seconds", values, caption, ["this"]))
    if "memory" in rows:
        values = {key: one["peak_mib"] for key, one in rows["memory"].items() if key != "run"}
        caption = "Clients side by side: memory follows the chunk, not the cohort."
        found.append(bars("Memory of the 2NN", "peak MiB of the process", values, caption, values))
    return found


def protocol(rows: Rows) -> list[Plot]:
    """A client's and the server's CPU time by row, beside primitives and Flower."""
    measured = {name: row for name, row in rows.items() if "client_ms" in row}
    if not measured:
        return []
    short = {n: r for n, r in measured.items() if r["n"] <= 300 and r["length"] == 100_000}
    caption = "100,000 words of 32 bits; log scale. Beside: what the row's AES-CTR, X25519,"
    caption += " signatures and additions take alone, and Flower's SecAgg+ where it was run beside."
    return [
        _sides("A client's time", "CPU ms per client and round", short, "client", caption),
        _sides("The server's time", "CPU ms per round", short, "server", caption),
        _stages(short),
    ]


def _sides(title: str, unit: str, rows: Rows, side: str, caption: str) -> Plot:
    """One side's time by row, on a log scale."""

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import LogLocator

        names = list(rows)[::-1]
        parts: list[tuple[str, Callable[[Row], float | None], str, str]] = [
            ("primitives alone", lambda row: row[f"primitives_{side}_ms"], COLOURS[5], "|"),
            ("measured", lambda row: row[f"{side}_ms"], COLOURS[1], "o"),
            ("Flower", lambda row: row.get(f"flower_{side}_ms"), RED, "s"),
        ]
        for label, value, colour, mark in parts:
            found = [(place, value(rows[name])) for place, name in enumerate(names)]
            shown = [(place, number) for place, number in found if number is not None]
            if shown:
                places, numbers = zip(*shown, strict=True)
                size = 11 if mark == "|" else 6
                axes.plot(
                    numbers, places, mark, color=colour, label=label, markersize=size,
                    markeredgewidth=2 if mark == "|" else 1,
                )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(
            lambda number, _: f"{number:g}" if number < 1000 else f"{number / 1000:g}k"
        )
        axes.xaxis.set_minor_formatter(lambda number, _: "")
        axes.margins(y=0.08)
        axes.set_xlabel(unit)
        axes.grid(visible=True, axis="both")
        legend(axes)

    return Plot(title, caption, svg(title, draw, (4.6, 1.1 + 0.3 * len(rows))))


def _stages(rows: Rows) -> Plot:
    """A client's time by row and stage."""

    def draw(axes: "Axes") -> None:
        names = list(rows)[::-1]
        left = [0.0] * len(names)
        for stage, colour in zip(secureagg.STAGES, COLOURS[1:], strict=False):
            widths = [rows[name]["client_ms_by_stage"].get(stage, 0.0) for name in names]
            axes.barh(names, widths, left=left, color=colour, height=0.62,
                      label=stage.replace("_", " "))  # fmt: skip
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_xlabel("CPU ms per client and round")
        axes.grid(visible=False)
        legend_below(axes)

    title = "Where a client's time goes"
    return Plot(title, "By stage of the protocol.", svg(title, draw, (4.6, 1.7 + 0.34 * len(rows))))
