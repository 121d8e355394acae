"""The plots of benchmarks/report.py about accuracy, from the rows of privacy_utility.py."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks._cells import ADVERSARIES, IN_TURN, PRIVATE, reference_of
from benchmarks._plots import COLOURS, GREY, Rows, legend_below
from benchmarks._results import Row
from benchmarks.privacy_utility import beside_reference, grouped, percent
from fl._plots import Plot, svg
from fl.sweep import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What mechanisms are called, and a shade for each of their widths in bits, or of their epsilons.
FAMILIES = {
    "gaussian": "central Gaussian", "skellam": "Skellam", "discrete_gaussian": "discrete Gaussian",
    "poisson_binomial": "Poisson binomial", "gaussian-cyclic": "in turn: central Gaussian",
    "tree": "in turn: DP-FTRL, tree", "banded": "in turn: DP-FTRL, banded",
    "blt": "in turn: DP-FTRL, BLT",
}  # fmt: skip
SHADES = {
    "gaussian": ("#33393f",),
    "skellam": ("#a3c6df", "#6a9fc6", "#3d7fb1", "#235f92", "#123f66"),
    "discrete_gaussian": ("#ecc48f", "#d9974a", "#b96f1c", "#8a4d0c", "#5f3405"),
    "poisson_binomial": ("#a9be7c", "#7d9649", "#566f26", "#33470f"),
    "gaussian-cyclic": ("#8d9399",), "tree": ("#cf9fc4",), "banded": ("#a0568e",),
    "blt": ("#5f2a52",),
}  # fmt: skip
OPEN_LINES = {
    "none": ("no privacy", "-"), "clipped": ("clipped, no noise", "--"),
    "clipped-cyclic": ("in turn: clipped, no noise", ":"),
}  # fmt: skip
# Of many widths, and of correlated noise, one is drawn where the adversaries are compared.
_COMPARED = ("gaussian", "skellam-16", "poisson_binomial-16", "gaussian-cyclic", "blt")
# Large and hollow around small and filled: at one place all of them show.
_MARKS: dict[str, dict[str, Any]] = {
    "server": {"marker": "o", "markersize": 11, "fillstyle": "none", "color": COLOURS[1]},
    "participants": {
        "marker": "s",
        "markersize": 7,
        "fillstyle": "none",
        "color": COLOURS[2],
    },
    "outsider": {"marker": "^", "markersize": 4, "color": COLOURS[4]},
}


def utility(rows: Rows, name: str) -> list[Plot]:
    """Accuracy against epsilon, what bits cost beside central noise, and adversaries."""
    found = [_accuracy(rows, name), _bits(rows, name), _promised(rows, name)]
    return [plot for plot in found if plot.svg]


def family_of(mechanism: str) -> str:
    """A name in FAMILIES."""
    return mechanism if mechanism in FAMILIES else mechanism.partition("-")[0]


def shades(families: Sequence[str]) -> list[str]:
    """A colour for each: its family's, darker from one to the next."""
    return [SHADES[family][families[:k].count(family)] for k, family in enumerate(families)]


def points(axes: "Axes", found: Sequence[tuple[float, Figure]], colour: str, label: str) -> None:
    """Every seed, their mean, and its interval from three seeds on: of two it says nothing."""
    for place, figure in found:
        seeds = len(figure.values)
        axes.plot([place] * seeds, figure.values, ".", color=colour, markersize=3.5, alpha=0.6)
        if seeds > 2:
            axes.plot([place, place], [figure.low, figure.high], color=colour, linewidth=1.2)
    places, means = [place for place, _ in found], [figure.mean for _, figure in found]
    axes.plot(places, means, "_", color=colour, markersize=9, markeredgewidth=2, label=label)


def _accuracy(rows: Rows, name: str) -> Plot:
    """Every mechanism's accuracy by epsilon, beside no privacy."""
    groups = _strongest(rows, name)
    epsilons = sorted({epsilon for epsilon, _ in groups if epsilon is not None})
    mechanisms = [m for m in dict.fromkeys(m for _, m in groups) if m in PRIVATE]
    title = f"{name}: accuracy against epsilon"
    if not any(len(seeds) > 1 and epsilon is not None for (epsilon, _), seeds in groups.items()):
        return Plot(title, "", "")

    central = [
        100 * row["accuracy"]
        for (_, mechanism), seeds in groups.items()
        if mechanism == reference_of(mechanism)
        for row in seeds.values()
    ]

    def draw(axes: "Axes") -> None:
        colours = shades([family_of(mechanism) for mechanism in mechanisms])
        for number, mechanism in enumerate(mechanisms):
            shown = []
            for place, epsilon in enumerate(epsilons):
                seeds = groups.get((epsilon, mechanism), {})
                figure = percent([row["accuracy"] for row in seeds.values()])
                if figure is not None:
                    shift = 0.6 * ((number + 0.5) / len(mechanisms) - 0.5)
                    shown.append((place + shift, figure))
            if shown:
                points(axes, shown, colours[number], words(mechanism))
        for mechanism, (label, style) in OPEN_LINES.items():
            seeds = groups.get((None, mechanism), {})
            if seeds:
                mean = 100 * statistics.fmean(row["accuracy"] for row in seeds.values())
                axes.axhline(mean, color=GREY, linestyle=style, linewidth=1.2, label=label)
        axes.set_xticks(range(len(epsilons)), [f"epsilon {epsilon:g}" for epsilon in epsilons])
        axes.set_xlim(-0.5, len(epsilons) - 0.5)
        _cut(axes, min(central) - 8.0 if central else 0.0)
        axes.set_ylabel("test accuracy (%)")
        legend_below(axes)

    return Plot(title, _sizing(mechanisms), svg(title, draw, (4.6, 2.9 + 0.09 * len(mechanisms))))


def _sizing(mechanisms: Sequence[str]) -> str:
    """The caption: what the noise of the rows is sized for."""
    caption = "Seeds, means, 95 % intervals of three or more. Noise is sized for the worst case"
    caption += " against the server, central noise for the same epsilon against participants."
    caption += " What is more than 8 points below central noise is in the table alone."
    if any(mechanism in IN_TURN for mechanism in mechanisms):
        caption += " In turn: clients in turn in public cohorts, nobody leaves; central noise for"
        caption += " the same epsilon against participants."
    return caption


def _strongest(rows: Rows, name: str) -> dict[tuple[float | None, str], dict[int, Row]]:
    """By epsilon and mechanism, each against the strongest adversary it promises anything."""
    return {
        (epsilon, mechanism): seeds
        for (dataset, epsilon, adversary, mechanism), seeds in grouped(rows).items()
        if dataset == name and adversary == ADVERSARIES[0]
    }


def words(mechanism: str) -> str:
    """The name of a mechanism for a reader."""
    family = family_of(mechanism)
    unit, bits = "coins" if family == "poisson_binomial" else "bits", mechanism[len(family) + 1 :]
    return FAMILIES[family] + (f", {bits} {unit}" if bits else "")


def _bits(rows: Rows, name: str) -> Plot:
    """Points lost to central noise at the same epsilon, by bits."""
    groups = grouped(rows)
    lines: dict[tuple[str, float], list[tuple[int, Figure]]] = {}
    for group in groups:
        dataset, epsilon, adversary, mechanism = group
        if dataset != name or adversary != ADVERSARIES[0] or epsilon is None:
            continue
        if mechanism in IN_TURN:
            continue
        difference, row = beside_reference(groups, group), next(iter(groups[group].values()))
        if difference is not None:
            family = family_of(mechanism)
            lines.setdefault((family, epsilon), []).append((row["bits"], difference))
    title = f"{name}: distributed minus central noise"
    if not lines:
        return Plot(title, "", "")

    def draw(axes: "Axes") -> None:
        axes.axhspan(-0.5, 0.5, color="#eff4f7")
        axes.axhline(0, color=GREY, linewidth=1)
        colours = shades([family for family, _ in sorted(lines)])
        for number, ((family, epsilon), found) in enumerate(sorted(lines.items())):
            shift = 0.35 * (number - (len(lines) - 1) / 2)
            points(
                axes, [(bits + shift, figure) for bits, figure in found],
                colours[number], f"{FAMILIES[family]}, epsilon {epsilon:g}",
            )  # fmt: skip
        axes.set_xticks(sorted({bits for found in lines.values() for bits, _ in found}))
        _cut(axes, -6.0)
        axes.set_xlabel("bits per coordinate")
        axes.set_ylabel("points of accuracy")
        legend_below(axes)

    caption = "Seed by seed at the same worst-case epsilon; means, 95 % intervals of three or more."
    return Plot(
        title,
        caption + " Shaded: half a point. Below -6: in the table.",
        svg(title, draw, (4.6, 3.4)),
    )


def _promised(rows: Rows, name: str) -> Plot:
    """Epsilon against each adversary of the same runs, and their accuracy."""
    shown = [
        (group, seeds)
        for group, seeds in grouped(rows).items()
        if group[0] == name and group[3] in _COMPARED and "promises" in next(iter(seeds.values()))
        if group[1] is not None
    ]
    title = f"{name}: epsilon against each adversary"
    if not any(len(seeds) > 1 for _, seeds in shown):
        return Plot(title, "", "")
    shown.sort(key=lambda one: (one[0][1] or 0.0, -ADVERSARIES.index(one[0][2])), reverse=True)

    def draw(axes: "Axes") -> None:
        names = []
        for place, ((_, epsilon, adversary, mechanism), seeds) in enumerate(shown):
            row = next(iter(seeds.values()))
            mean = 100 * statistics.fmean(one["accuracy"] for one in seeds.values())
            sized = "" if adversary == ADVERSARIES[0] else ", for outsiders"
            names.append(f"{epsilon:g}: {words(mechanism)}{sized}: {mean:.1f} %")
            for watching, told in row["promises"].items():
                if "upper" in told:
                    reached = [100 * told["upper"] / epsilon]
                    axes.plot(reached, [place], linestyle="none", **_MARKS[watching])
        axes.set_yticks(range(len(names)), names, fontsize=8)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 95.0), max(high, 105.0))  # a figure met to the last digit is a line
        axes.set_xlabel("% of the epsilon asked for")
        axes.grid(visible=True, axis="both")
        for watching, mark in _MARKS.items():  # without a place: for the legend alone
            axes.plot([], [], linestyle="none", label=watching, **mark)
        legend_below(axes, 3)

    caption = "What the same runs promise at worst against each adversary: epsilon, mechanism, mean"
    caption += " accuracy. No circle: central noise, which the server adds, promises nothing"
    caption += " against it."
    return Plot(title, caption, svg(title, draw, (4.6, 1.3 + 0.2 * len(shown))))


def _cut(axes: "Axes", lowest: float) -> None:
    """Leaves out what is so far below that nothing else could be told apart."""
    if axes.get_ylim()[0] < lowest:
        axes.set_ylim(bottom=lowest)
