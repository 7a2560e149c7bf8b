"""Run with `pytest tests/test_project_files.py`: the files around the code agree with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    linked = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)", text) if "://" not in link]
    named = re.findall(r"`((?:dirtune|tests|docs|benchmarks)/[\w./]*)`", text)
    assert not [path for path in (*linked, *named) if not (ROOT / path).exists()]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_what_exists(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    goals = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert steps
    called = {goal for step in steps for goal in re.findall(r"\bmake ([a-z]+)", step.get("run", ""))}
    assert called <= goals


def test_every_supported_python_is_checked() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
    versions = workflow["jobs"]["check"]["strategy"]["matrix"]["python"]
    assert f">={versions[0]}" == PROJECT["requires-python"]
