"""Run with `pytest tests/test_site.py`: the documentation builds strictly, and its generated pages have what the code has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dirtune
from dirtune.cli.catalog import list_catalog
from dirtune.study.schema import Study

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a broken link, an unknown reference or a page without a place ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    return folder


def read_page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text(encoding="utf-8")


def test_every_page_is_part_of_the_site(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        assert (site / name / "index.html").is_file()
        assert f'href="{name}/"' in start


def test_the_catalog_has_every_name(site: Path) -> None:
    text = read_page(site, "catalog")
    missing = [name for names in list_catalog().values() for name in names if f"<code>{name}</code>" not in text]
    assert not missing


def test_every_key_of_a_study_is_explained(site: Path) -> None:
    text = read_page(site, "study_file")
    assert not [key for key in Study.model_fields if f"<code>{key}</code>" not in text]


def test_every_public_name_is_in_the_reference_with_a_docstring(site: Path) -> None:
    text = read_page(site, "api")
    for name in dirtune.__all__:
        value = getattr(dirtune, name)
        assert f'id="{value.__module__}.{value.__qualname__}"' in text
        assert value.__doc__


def test_the_site_asks_nothing_of_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)', page.read_text(encoding="utf-8")
        )
        assert not loaded, page
