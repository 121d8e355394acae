"""The plots of a run over its rounds, as inline SVG. Needs matplotlib, the extra `report`."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fl.errors import MissingExtraError
from fl.types import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rounds = Sequence[Mapping[str, Any]]
Draw = Callable[["Axes"], None]

_INK, _BLUE, _RED, _GREY = "#33393f", "#2f6690", "#b5483a", "#a9adb1"
_PART_COLOURS = ("#2f6690", "#81b0c9", "#d9a566", "#8a9a5b")
# Beyond this bars are thinner than a pixel of a phone, and areas are drawn instead.
_MAX_BARS = 150
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#ebe8e2",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's font
}


class Plot(NamedTuple):
    """One figure of the report.

    Attributes:
        title: heading of the figure.
        caption: one sentence that says what is drawn.
        svg: an <svg> element without references to anything outside; "" with nothing to draw.
    """

    title: str
    caption: str
    svg: str


def plots(rounds: Rounds, min_survivors: int | None, *, costs: bool = True) -> list[Plot]:
    """Metrics, epsilon, survivors and cost over the rounds.

    Args:
        rounds: at least one of the mappings that `fl.report.write_report` takes.
        min_survivors: below this a round releases nothing; None where there is no such number.
        costs: show survivors, seconds and bytes, which tell the size of a cohort.

    Returns:
        The figures in the order of reading. Epsilon and upload keep their place with an empty
        `svg`, and a caption that says why, where there is nothing to draw.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    found = {name for entry in rounds for name in entry["metrics"]}
    names = sorted(found, key=lambda name: (name != "accuracy", name != "loss", name))
    return [
        *(_metric(rounds, name) for name in names),
        _epsilon(rounds),
        *((_survivors(rounds, min_survivors), _seconds(rounds), _upload(rounds)) if costs else ()),
    ]


def svg(title: str, draw: Draw, size: tuple[float, float] = (4.6, 2.7)) -> str:
    """One axes drawn by `draw`, as an <svg> element; the same input gives the same bytes.

    Args:
        title: tells this figure's ids from those of other figures of a page.
        draw: draws on the axes.
        size: inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("report.html", "report") from error
    # The salt makes ids of clip paths differ between the figures of one page.
    settings: Any = {**_STYLE, "svg.hashsalt": title}  # Any: the keys' type varies by release
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # an XML prologue has no place inside HTML


def _svg(title: str, rounds: Rounds, draw: Draw) -> str:
    """A figure over the rounds, with the same axis in all of them."""
    numbers = [int(entry["round"]) for entry in rounds]

    def over_rounds(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        draw(axes)
        axes.set_xlabel("round")
        axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))

    return svg(title, over_rounds)


def _series(
    rounds: Rounds, value: Callable[[Mapping[str, Any]], float | None]
) -> tuple[list[int], list[float]]:
    """Round numbers and values of the rounds that have the value."""
    pairs = [(int(entry["round"]), value(entry)) for entry in rounds]
    kept = [(index, number) for index, number in pairs if number is not None]
    return [index for index, _ in kept], [number for _, number in kept]


def _marker(points: Sequence[object], most: int = 40) -> str:
    """Dots while there are few of them; a line through one point would not be seen."""
    return "o" if len(points) <= most else ""


def legend(axes: "Axes") -> None:
    """Above the axes, where it hides no point."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=4,
        borderaxespad=0.2,
        handlelength=1.4,
        handletextpad=0.5,
        columnspacing=1.1,
    )


def _metric(rounds: Rounds, name: str) -> Plot:
    xs, ys = _series(rounds, lambda entry: entry["metrics"].get(name))

    def draw(axes: "Axes") -> None:
        shown = [100 * y for y in ys] if name == "accuracy" else ys
        axes.plot(xs, shown, color=_BLUE, marker=_marker(xs), markersize=3)
        axes.set_ylabel("test accuracy (%)" if name == "accuracy" else name)

    caption = "On the public test set, after each evaluated round."
    return Plot(name.capitalize(), caption, _svg(name, rounds, draw))


def _epsilon(rounds: Rounds) -> Plot:
    worst = _series(rounds, lambda entry: entry["epsilon_worst_case"])
    realised = _series(rounds, lambda entry: entry["epsilon"])
    if not worst[0] and not realised[0]:
        return Plot("Epsilon so far", "no epsilon may be stated for this run.", "")

    def draw(axes: "Axes") -> None:
        if worst[0]:
            mark = _marker(worst[0], most=1)
            axes.plot(
                *worst, color=_RED, linestyle="--", marker=mark, markersize=3, label="worst case"
            )
        if realised[0]:
            mark = _marker(realised[0])
            axes.plot(*realised, color=_BLUE, marker=mark, markersize=3, label="so far")
        top = max((y for y in worst[1] + realised[1] if math.isfinite(y)), default=1.0)
        axes.set_ylim(0, 1.08 * (top or 1.0))
        axes.set_ylabel("epsilon (upper end)")
        legend(axes)

    caption = "Spent after each round: what the run has spent, and the guarantee's worst case."
    return Plot("Epsilon so far", caption, _svg("epsilon", rounds, draw))


def _survivors(rounds: Rounds, min_survivors: int | None) -> Plot:
    invited = _series(rounds, lambda entry: entry["invited"])
    survived = _series(rounds, lambda entry: entry["survivors"])
    aborted = [entry for entry in rounds if entry["status"] != "released"]

    def draw(axes: "Axes") -> None:
        axes.plot(
            *invited, color=_GREY, marker=_marker(rounds, most=1), markersize=3, label="invited"
        )
        axes.plot(*survived, color=_BLUE, marker=_marker(rounds), markersize=3, label="survivors")
        if aborted:
            xs = [int(entry["round"]) for entry in aborted]
            ys = [entry["survivors"] for entry in aborted]
            axes.plot(xs, ys, "x", color=_RED, markersize=7, markeredgewidth=2, label="aborted")
        if min_survivors is not None:
            axes.axhline(min_survivors, color=_RED, linestyle="--", linewidth=1.2, label="minimum")
        # Close to the points, with air: whether the minimum is near is what one looks for.
        axes.margins(y=0.15)
        axes.set_ylabel("clients")
        legend(axes)

    caption = "Clients whose update is in the sum"
    caption += "." if min_survivors is None else "; below the minimum a round releases nothing."
    return Plot("Survivors", caption, _svg("survivors", rounds, draw))


def _seconds(rounds: Rounds) -> Plot:
    xs = [int(entry["round"]) for entry in rounds]
    columns = [[float(entry["seconds"][part]) for entry in rounds] for part in PARTS]

    def draw(axes: "Axes") -> None:
        if len(xs) > _MAX_BARS:
            axes.stackplot(xs, *columns, labels=PARTS, colors=_PART_COLOURS)
        else:
            floor = [0.0] * len(xs)
            for part, column, colour in zip(PARTS, columns, _PART_COLOURS, strict=True):
                axes.bar(xs, column, bottom=floor, color=colour, label=part, width=0.8)
                floor = [low + high for low, high in zip(floor, column, strict=True)]
        axes.set_ylabel("seconds")
        legend(axes)

    return Plot(
        "Time per round",
        "Wall clock of the whole cohort, by part; the first round compiles.",
        _svg("time", rounds, draw),
    )


def _upload(rounds: Rounds) -> Plot:
    def per_client(entry: Mapping[str, Any]) -> float | None:
        total = entry["upload_bytes"]
        return None if total is None or not entry["invited"] else total / entry["invited"] / 1e3

    xs, ys = _series(rounds, per_client)
    if not xs:
        return Plot("Upload per client", "no protocol was run, so no bytes were sent.", "")

    def draw(axes: "Axes") -> None:
        if len(xs) > _MAX_BARS:
            axes.fill_between(xs, ys, color=_PART_COLOURS[1])
        else:
            axes.bar(xs, ys, color=_PART_COLOURS[1], width=0.8)
        axes.set_ylabel("kB per invited client")

    caption = "All messages of a round to the server, over the clients invited."
    return Plot("Upload per client", caption, _svg("upload", rounds, draw))
