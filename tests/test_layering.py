"""Imports follow the layout: leaf first, no cycles, no hidden imports, no foreign packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("secureagg", "dp", "fl")
THIRD_PARTY = {
    "secureagg": {"numpy", "cryptography"},
    "dp": {"numpy"},
    "fl": {
        "numpy", "jax", "optax", "tyro", "tqdm", "dp", "secureagg", "sklearn", "matplotlib",
        "jinja2", "pandas", "pyarrow", "flax", "equinox", "tensorboardX",
        "flwr",
    },
}  # fmt: skip
EXTRAS = {
    "sklearn", "matplotlib", "jinja2", "pandas", "pyarrow", "flax", "equinox", "tensorboardX",
}  # fmt: skip
# Flower loads these by name and nothing else does, so they may load it as they begin.
FLOWER = {"fl.engines.flower", "fl.engines.client_app"}
# Only these may touch what the name says.
ONLY_IMPORTERS = {
    ("fl", "flwr"): FLOWER,
    ("secureagg", "cryptography"): {"secureagg.primitives"},
    ("fl", "secureagg"): {"fl.secure"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported(node: ast.AST) -> list[str]:
    """The dotted names that one import statement may load, most specific first."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def resolve(dotted: str) -> str:
    """The project's module that a dotted name belongs to, or its top-level package."""
    while dotted not in MODULES and "." in dotted:
        dotted = dotted.rpartition(".")[0]
    return dotted


def imports_of(name: str, *, hidden: bool) -> Iterator[str]:
    tree = TREES[name]
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for dotted in imported(node):
            if (id(node) not in top) == hidden:
                yield resolve(dotted)


def edges(name: str) -> set[str]:
    return {target for target in imports_of(name, hidden=False) if target in MODULES} - {name}


@pytest.mark.parametrize("name", MODULES)
def test_only_allowed_packages_are_imported(name: str) -> None:
    package = name.partition(".")[0]
    allowed = THIRD_PARTY[package] | set(sys.stdlib_module_names) | {package}
    found = {target.partition(".")[0] for hidden in (True, False)
             for target in imports_of(name, hidden=hidden)}  # fmt: skip
    assert found <= allowed


@pytest.mark.parametrize("name", MODULES)
def test_imports_inside_functions_are_for_extras_alone(name: str) -> None:
    hidden = {target.partition(".")[0] for target in imports_of(name, hidden=True)}
    assert hidden <= EXTRAS


@pytest.mark.parametrize("name", MODULES)
def test_extras_are_never_imported_at_module_level(name: str) -> None:
    assert not {target.partition(".")[0] for target in imports_of(name, hidden=False)} & EXTRAS


@pytest.mark.parametrize(("package", "target"), ONLY_IMPORTERS)
def test_one_module_alone_imports_what_is_fenced_in(package: str, target: str) -> None:
    importers = {
        name for name in MODULES if name.partition(".")[0] == package
        for found in imports_of(name, hidden=False) if found.partition(".")[0] == target
    }  # fmt: skip
    assert importers == ONLY_IMPORTERS[package, target]


def test_nothing_imports_what_loads_flower() -> None:
    assert not {name for name in MODULES if edges(name) & FLOWER}


def test_the_app_that_is_shipped_loads_flower_and_the_standard_library_alone() -> None:
    app = "fl.engines.client_app"
    found = {target.partition(".")[0] for target in imports_of(app, hidden=False)}
    assert found <= {"flwr"} | set(sys.stdlib_module_names)


def test_no_import_cycles() -> None:
    done: set[str] = set()
    active: list[str] = []

    def visit(name: str) -> None:
        assert name not in active, f"cycle: {' > '.join([*active[active.index(name) :], name])}"
        if name in done:
            return
        active.append(name)
        for target in sorted(edges(name)):
            visit(target)
        active.pop()
        done.add(name)

    for name in MODULES:
        visit(name)
    assert done == set(MODULES)


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("dp", {"jax", "cryptography", "secureagg", "fl", "scipy"}),
        ("secureagg", {"jax", "dp", "fl", "scipy"}),
        ("fl", EXTRAS),
    ],
)
def test_importing_a_package_loads_only_what_it_needs(package: str, absent: set[str]) -> None:
    code = f"import sys, {package}; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not absent & set(loaded)
