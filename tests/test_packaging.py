"""What is promised about the package. Run with `pytest tests/test_packaging.py`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENT = re.compile(r'^\s*"([A-Za-z0-9_.-]+)[^"]*",?\s*#\s*(.+)$', re.MULTILINE)


def list_files(comment: str) -> list[Path]:
    """Return the files that a requirement's comment names, such as `tuning/{search,folder}/*`."""
    files = []
    for name in re.findall(r"[a-z_]+(?:/[a-z_{},*]+)+", comment):
        match = re.match(r"(.*)\{(.*)\}(.*)", name)
        for path in [match[1] + each + match[3] for each in match[2].split(",")] if match else [name]:
            files += [
                ROOT / ("" if path.startswith(("pipelines", "tests", "benchmarks")) else "dirtune") / path.rstrip("*,")
            ]
    return files


def test_every_requirement_says_which_file_uses_it() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    comments = {name.lower(): comment for name, comment in REQUIREMENT.findall(text)}
    for requirement in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["train"]]:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower()
        assert name in comments, f"{requirement} does not say which file uses it"
    named = [(name, path) for name, comment in comments.items() for path in list_files(comment)]
    assert len(named) > 30
    assert not [(name, path) for name, path in named if not (path.is_dir() or path.with_suffix(".py").is_file())]


def test_every_requirement_has_a_tested_version() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(name for names in extras for name in names)]
    for requirement in wanted:
        # An extra that brings in another one.
        if requirement.startswith("dirtune["):
            continue
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")
        assert name in pinned, f"{name} has no tested version in constraints.txt"


def test_ignored_paths_are_anchored() -> None:
    lines = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line and not line.startswith("#")]
    loose = [line for line in lines if not line.startswith("/") and line not in {"__pycache__/", "*.egg-info/"}]
    assert not loose, "an unanchored line such as data/ would hide dirtune/data"


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "dirtune", "search_spaces", "pipelines", "tests", "cluster.yaml", "README.md"]
)
def test_the_top_level_is_as_promised(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_license_is_named_and_shipped() -> None:
    assert PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert PROJECT["license-files"] == ["LICENSE"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, from a copy, since setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("dirtune", "pipelines", "search_spaces"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", str(source)]
    subprocess.run([*command, "--wheel-dir", str(folder)], check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_installs_one_package(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert {name.split("/")[0] for name in names} == {"dirtune", f"dirtune-{PROJECT['version']}.dist-info"}
    assert {"dirtune/py.typed", "dirtune/pipelines/digits.py", "dirtune/search_spaces/quickstart.yaml"} <= set(names)
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "dirtune").rglob("*.py")}
    assert sources <= set(names)
    # A folder of the user's own may have these names.
    for name in ("pipelines", "search_spaces"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not mine')\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "installed")}
    for arguments, words in ((["--version"], f"dirtune {PROJECT['version']}"), (["list", "studies"], "quickstart")):
        done = subprocess.run(
            [sys.executable, "-m", "dirtune.cli", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert words in done.stdout
