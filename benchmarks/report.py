"""Draws benchmarks/report.html, pictures and tables of docs/ from benchmarks/results/*.json.

    python -m benchmarks.report

One self-contained page: every plot, and under it what the script prints. Needs matplotlib and
jinja2, the extra `report`. Nothing is measured here.
"""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import (
    _cells,
    _plots,
    _plots_privacy,
    _plots_utility,
    accounting,
    attack,
    audit,
    correlated_noise,
    deployment,
    dropout_privacy,
    privacy_utility,
    protocol_cost,
    rounds_to_target,
    samplers,
    simulation_speed,
    strategies,
)
from benchmarks._results import Results
from benchmarks._script import options_of
from fl._plots import Plot

HERE = Path(__file__).parent
_LONG = 45  # lines of a table that are shown at once
DOCS = HERE.parent / "docs"
PAGE, PICTURES = HERE / "report.html", DOCS / "img"
STYLE_OF = HERE.parent / "fl" / "report.html.jinja"


class Section(NamedTuple):
    """One results file on the page.

    Attributes:
        name: of the results.
        title: heading.
        about: a sentence or two.
        plots: drawn from the rows.
        printed: what the script prints for the rows.
    """

    name: str
    title: str
    about: str
    plots: Callable[[_plots.Rows], list[Plot]]
    printed: Callable[[_plots.Rows], str]


def no_plots(rows: _plots.Rows) -> list[Plot]:
    """For tables that say enough."""
    del rows
    return []


def utility(rows: _plots.Rows) -> list[Plot]:
    """All data sets of the results, in the order of the table."""
    names = [name for name in _cells.SETS if any(r["dataset"] == name for r in rows.values())]
    return [plot for name in names for plot in _plots_utility.utility(rows, name)]


SECTIONS = (
    Section(
        "privacy_utility",
        "What privacy costs in accuracy",
        "Noise shares that the clients add themselves, so that the server never sees a sum without"
        " noise, beside central noise that a trusted server adds, independent or correlated over"
        " the rounds, at the same worst-case epsilon; and what each run promises against each"
        " adversary.",
        utility,
        privacy_utility.table,
    ),
    Section(
        "dropout_privacy",
        "What dropouts cost, and what noise shares show",
        "Epsilon planned, realised and at worst as clients leave, beside noise sized for all"
        " clients; and an outsider that tells from one noised sum how many took part.",
        _plots_privacy.dropouts,
        dropout_privacy.table,
    ),
    Section(
        "attack",
        "What an attack gets",
        "Images and membership read out of one update, its masked vector, the sum without and with"
        " noise, each from a real round of secure aggregation; and what canaries in the whole"
        " pipeline prove, beside what is claimed.",
        _plots_privacy.attacks,
        attack.table,
    ),
    Section(
        "audit",
        "Planted bugs",
        "A plan that claims epsilon 1, with a bug in its noise, clip or cohorts, and whether the"
        " probe or the attack finds it.",
        no_plots,
        audit.table,
    ),
    Section(
        "correlated_noise",
        "Noise that is correlated over rounds",
        "Errors of factorizations beside the optimum, and what finding them takes; what they do for"
        " accuracy is above.",
        _plots_privacy.correlated,
        correlated_noise.table,
    ),
    Section(
        "protocol_cost",
        "What masking costs",
        "One round of secure aggregation in one process, one core pinned, beside the protocol's own"
        " primitives in the same run. Cost points, not sound parameters.",
        _plots.protocol,
        protocol_cost.table,
    ),
    Section(
        "simulation_speed",
        "Speed and memory of training",
        "CPU seconds of whole rounds on one pinned core; peers by their own federated averaging.",
        _plots.speed,
        simulation_speed.table,
    ),
    Section(
        "strategies",
        "How a cohort trains fastest",
        "Wall-clock seconds of a round by strategy and chunk, on a CPU and on an accelerator.",
        no_plots,
        strategies.table,
    ),
    Section(
        "deployment",
        "Across organisations",
        "Stages of a round in Flower's real processes on one machine.",
        _plots.federations,
        deployment.table,
    ),
    Section(
        "rounds_to_target",
        "Rounds to target",
        "Against McMahan et al. 2017; the script's docstring says what differs.",
        _plots.rounds,
        rounds_to_target.table,
    ),
    Section(
        "accounting",
        "Accounting",
        "Certified intervals: lower <= truth <= upper.",
        no_plots,
        accounting.table,
    ),
    Section("samplers", "Samplers", "Exact to 2^-100.", _plots.sampling, samplers.table),
)  # fmt: skip

# Tables of docs/ that are written from results, between comments that name them: name, page.
TABLES: dict[str, tuple[str, Callable[[_plots.Rows], str]]] = {
    "protocol_cost": ("protocol.md", protocol_cost.markdown),
}

# The README's pictures: file, results, title of the plot.
README = {
    "privacy_utility.svg": ("privacy_utility", "mnist-writers: distributed minus central noise"),
    "protocol_cost.svg": ("protocol_cost", "A client's time"),
    "simulation_speed.svg": ("simulation_speed", "2NN: a round of training"),
}


def style() -> str:
    """The style sheet of a run's report."""
    text = STYLE_OF.read_text(encoding="utf-8")
    return text[text.index("<style>") : text.index("</style>")] + PRINTED + "</style>"


PRINTED = (
    ".plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)); }\n"
    "pre { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .8rem;"
    " overflow-x: auto; font-size: .78rem; line-height: 1.45; }\n"
)


def section_html(section: Section, plots: Sequence[Plot], rows: _plots.Rows) -> str:
    """Heading, plots, and what the script prints."""
    figures = "".join(
        f"<figure><h3>{html.escape(plot.title)}</h3>{plot.svg}"
        f"<figcaption>{html.escape(plot.caption)}</figcaption></figure>\n"
        for plot in plots
    )
    grid = f'<div class="plots">\n{figures}</div>\n' if figures else ""
    return (
        f"<section>\n<h2>{html.escape(section.title)}</h2>\n"
        f'<p class="soft">{html.escape(section.about)}</p>\n{grid}'
        f'<p class="soft">python -m benchmarks.{section.name} --show</p>\n'
        f"{printed_html(section.printed(rows))}</section>\n"
    )


def printed_html(text: str) -> str:
    """What a script prints; folded where it is long."""
    pre, count = f"<pre>{html.escape(text)}</pre>\n", len(text.splitlines())
    if count <= _LONG:
        return pre
    return f"<details>\n<summary>{count} lines</summary>\n{pre}</details>\n"


def missing_html(section: Section) -> str:
    """In place of a section without results."""
    command = f"python -m benchmarks.{section.name}"
    return f'<p class="soft">Not measured here: {html.escape(section.title)} ({command}).</p>\n'


def with_table(page: str, name: str, table: str) -> str:
    """The text of a page with the table of that name written anew."""
    begin, end = f"<!-- table {name}, by benchmarks.report -->\n", "<!-- end of table -->"
    before, found, rest = page.partition(begin)
    if not found:
        raise ValueError(f"no table {name} on the page")
    return before + begin + table + "\n" + rest[rest.index(end) :]


def on_white(svg: str) -> str:
    """For pages of any colour."""
    end = svg.index(">") + 1
    return f'{svg[:end]}\n<rect width="100%" height="100%" fill="#ffffff"/>{svg[end:]}'


def runs_html(runs: Sequence[tuple[str, dict[str, dict[str, object]]]]) -> str:
    """Machines and versions, one line per run and benchmark."""
    found = ""
    for name, run in runs:
        facts = {**run["machine"], **run["versions"]}
        text = ", ".join(f"{key} {value}" for key, value in facts.items())
        found += f"<li>{name}: {html.escape(text)}</li>\n"
    return f"<section>\n<h2>Machines and versions</h2>\n<ul>\n{found}</ul>\n</section>\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the page, the pictures and the tables of docs/."""
    options_of(__doc__, shows=False).parse_args(argv)
    body, runs = "", []
    drawn: dict[tuple[str, str], Plot] = {}
    for section in SECTIONS:
        results = Results(section.name)
        rows = results.rows()
        if not rows:
            body += missing_html(section)
            continue
        plots = section.plots(rows)
        drawn |= {(section.name, plot.title): plot for plot in plots}
        body += section_html(section, plots, rows)
        runs += [(section.name, run) for run in results.runs()]
    PAGE.write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Benchmarks</title>\n{style()}\n</head>\n<body>\n<main>\n<header>\n"
        "<h1>What private aggregation costs</h1>\n"
        '<p class="soft">Every figure here is printed by a script of benchmarks/.</p>\n</header>\n'
        f"{body}{runs_html(runs)}</main>\n</body>\n</html>\n",
        encoding="utf-8",
    )
    print(PAGE)
    for name, (file, table) in TABLES.items():
        rows, place = Results(name).rows(), DOCS / file
        if rows:
            text = place.read_text(encoding="utf-8")
            place.write_text(with_table(text, name, table(rows)), encoding="utf-8")
            print(place)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for file, key in README.items():
        if key in drawn:
            (PICTURES / file).write_text(on_white(drawn[key].svg), encoding="utf-8")
            print(PICTURES / file)


if __name__ == "__main__":
    main()
