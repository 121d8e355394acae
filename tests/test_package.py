"""The wheel holds the three packages and nothing else; the source archive holds what builds it."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("secureagg", "dp", "fl")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}"

pytest.importorskip("build", reason="needs the extra 'package'")
metadata = pytest.importorskip("packaging.metadata", reason="needs the extra 'package'")
requirements = pytest.importorskip("packaging.requirements", reason="needs the extra 'package'")


def sources(*folders: str) -> Iterator[str]:
    """Files of the checkout, but for what Python leaves behind."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    info = {f"{NAME}.dist-info/{file}" for file in ("METADATA", "WHEEL", "RECORD")}
    info.add(f"{NAME}.dist-info/entry_points.txt")
    assert set(wheel.namelist()) == {*sources(*PACKAGES), *info}


def test_types_templates_and_hashes_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {"fl/report.html.jinja", "fl/datasets/plays.sha256", "fl/presets.py"} <= names


def test_the_wheels_metadata_are_valid_and_those_of_the_project(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(f"{NAME}.dist-info/METADATA")
    found = metadata.Metadata.from_email(text, validate=True)  # what an index refuses, this does
    assert (found.name, str(found.version)) == (PROJECT["name"], PROJECT["version"])
    assert str(found.requires_python) == PROJECT["requires-python"]
    assert found.description_content_type == "text/markdown"
    assert found.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(found.provides_extra) == set(PROJECT["optional-dependencies"])
    core = {str(line) for line in found.requires_dist if line.marker is None}
    assert core == set(PROJECT["dependencies"])
    command = wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert command.split() == ["[console_scripts]", "fl", "=", "fl.__main__:main"]


def test_the_core_has_no_upper_pins() -> None:
    for line in PROJECT["dependencies"]:
        assert not requirements.Requirement(line).specifier, line


def test_the_source_archive_holds_what_builds_and_tests_it(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = set(sources(*PACKAGES, "tests", "docs", "examples"))
    files = {"README.md", "CHANGELOG.md", "Makefile", "constraints.txt", "mkdocs.yml"}
    added = {"pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names == wanted | files | added
