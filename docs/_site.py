"""What the site has beside docs/: README, changes, examples/, and what each module is for.

MkDocs calls the functions by their names. Links between files of the checkout are turned into links
between pages, so that they work in both.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# first what a newcomer reads first
FIRST = ("first_lesson", "histograms", "accounting", "hospitals", "finance", "iot", "text")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages that are made of other files."""
    pages = {
        "index.md": _read("README.md").replace("](docs/", "]("),
        "changelog.md": _read("CHANGELOG.md"),
        "examples.md": _examples(),
        "layout.md": _layout(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=_relinked(text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Points links to examples at their page."""
    return _relinked(markdown)


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _relinked(text: str) -> str:
    return re.sub(r"\]\((?:\.\./)?examples/(\w+)\.py\)", r"](examples.md#\1)", text)


def _examples() -> str:
    """One page: what each example says of itself, and all of its text."""
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    order = [name for name in FIRST if name in names] + sorted(names - set(FIRST))
    page = [
        "# Examples",
        "Each is one file of fewer than 80 lines, reads from top to bottom, and the tests run it.",
    ]
    for name in order:
        code = _read(f"examples/{name}.py")
        says = ast.get_docstring(ast.parse(code)) or ""
        title, _, rest = says.partition("\n")
        page += [f"## {title} {{#{name}}}", rest, f"```python\n{code}```"]
    return "\n\n".join(page)


def _layout() -> str:
    """One page: every module, with the first sentence of its docstring."""
    page = ["# Where things are", "`fl` uses `dp` and `secureagg`, which do not know each other."]
    for package in ("secureagg", "dp", "fl"):
        rows = [f"## {package}", "", "| file | what it is |", "| --- | --- |"]
        for path in sorted((ROOT / package).rglob("*.py")):
            says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = " ".join(says.partition("\n\n")[0].split()).replace("|", "\\|")
            rows.append(f"| `{path.relative_to(ROOT)}` | {first} |")
        page.append("\n".join(rows))
    return "\n\n".join(page)
