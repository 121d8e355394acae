"""The site builds without a warning, and every public name has its place on it."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dp
import fl
import secureagg

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

pytest.importorskip("mkdocs", reason="needs the extra 'docs'")
pytest.importorskip("mkdocstrings", reason="needs the extra 'docs'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def places(package: str, name: str, value: object) -> set[str]:
    """Where a name may stand: under its full name too, which tells it from a module's."""
    return {f"{package}.{name}", f"{getattr(value, '__module__', package)}.{name}"}


@pytest.mark.parametrize("package", [secureagg, dp, fl], ids=lambda package: package.__name__)
def test_every_public_name_has_its_place(site: Path, package: ModuleType) -> None:
    name = package.__name__
    page = (site / "api" / name / "index.html").read_text(encoding="utf-8")
    documented = set(re.findall(r'id="([\w.]+)"', page))
    for entry in package.__all__:
        value = vars(package)[entry]
        if isinstance(value, ModuleType):
            for inner in getattr(value, "__all__", ()):
                assert places(f"{name}.{entry}", inner, vars(value)[inner]) & documented, inner
        else:
            assert places(name, entry, value) & documented, entry


def test_the_first_page_is_the_readme_and_examples_have_theirs(site: Path) -> None:
    assert "the server learns a noised sum" in (site / "index.html").read_text(encoding="utf-8")
    page = (site / "examples" / "index.html").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.py"):
        assert f'id="{path.stem}"' in page


def test_every_module_says_what_it_is(site: Path) -> None:
    page = (site / "layout" / "index.html").read_text(encoding="utf-8")
    for package in ("secureagg", "dp", "fl"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT)
            assert re.search(rf"<code>{re.escape(str(name))}</code></td>\s*<td>\w", page), name


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?(https?:[^\"' >]+)")
    found = {
        (path.name, url)
        for path in site.rglob("*.html")
        for url in loads.findall(path.read_text(encoding="utf-8"))
    }
    assert not found
