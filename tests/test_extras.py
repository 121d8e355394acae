"""Whatever needs an extra says which one, and the extra brings it."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where the module has another name


_ABSENT = {"ImportError", "ModuleNotFoundError"}


class Hidden(NamedTuple):
    """An import inside a function: where, of what, and the extras that its refusal names."""

    where: str
    module: str
    extras: tuple[str, ...]


def hidden_imports() -> Iterator[Hidden]:
    for path in sorted((ROOT / "fl").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from _within(function, path.relative_to(ROOT).as_posix(), ())


def _within(node: ast.AST, where: str, extras: tuple[str, ...]) -> Iterator[Hidden]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue  # visited by itself
        if isinstance(child, ast.Import):
            yield from (Hidden(where, a.name.partition(".")[0], extras) for a in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield Hidden(where, (child.module or "").partition(".")[0], extras)
        elif isinstance(child, ast.Try):
            named = tuple(_refusals(child))
            yield from _within(ast.Module(child.body, []), where, named)
            for part in (*child.handlers, *child.orelse, *child.finalbody):
                yield from _within(ast.Module([part], []), where, extras)  # type: ignore[list-item]
        else:
            yield from _within(child, where, extras)


def _refusals(guard: ast.Try) -> Iterator[str]:
    """The extras of `except ModuleNotFoundError: raise MissingExtraError(feature, extra)`."""
    for handler in guard.handlers:
        if not isinstance(handler.type, ast.Name) or handler.type.id not in _ABSENT:
            continue
        for node in ast.walk(handler):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "MissingExtraError"
                and isinstance(node.args[1], ast.Constant)
            ):
                yield str(node.args[1].value)


def refusals_by_import() -> dict[tuple[str, str], set[str]]:
    """By file and module: the extras that are named where it is absent.

    What runs only after a guarded import of the same file needs no guard of its own.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for hidden in hidden_imports():
        found.setdefault((hidden.where, hidden.module), set()).update(hidden.extras)
    return found


REFUSALS = refusals_by_import()


def test_the_imports_were_found() -> None:
    assert {module for _, module in REFUSALS} >= {"sklearn", "matplotlib", "jinja2", "pandas"}


@pytest.mark.parametrize(("where", "module"), sorted(REFUSALS))
def test_a_missing_module_is_refused_by_the_extra_that_brings_it(where: str, module: str) -> None:
    (extra,) = REFUSALS[where, module]
    brings = {line.partition("[")[0].partition("=")[0] for line in OPTIONAL[extra]}
    assert DISTRIBUTIONS.get(module, module) in brings
