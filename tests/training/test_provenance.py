"""Run with `pytest tests/training/test_provenance.py`."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from dirtune.training import provenance as installed

PACKAGE = version("dirtune")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module in a small package of its own, in a folder that no checkout is around."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    path = tmp_path / "dirtune" / "training" / "provenance.py"
    path.parent.mkdir(parents=True)
    shutil.copy(str(installed.__file__), path)
    (tmp_path / "dirtune" / "losses.py").write_text("weight = 1\n")
    spec = importlib.util.spec_from_file_location("copied_provenance", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return git(folder, "rev-parse", "--short=12", "HEAD")


def test_without_a_checkout_the_code_version_is_the_package_version(copied: ModuleType) -> None:
    assert copied.get_code_version() == PACKAGE


def test_in_a_checkout_the_commit_follows_and_any_changed_source_shows(copied: ModuleType, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    # Nothing is committed yet
    assert copied.get_code_version() == PACKAGE
    clean = f"{PACKAGE}+{commit(tmp_path)}"
    assert copied.get_code_version() == clean

    losses, added = tmp_path / "dirtune" / "losses.py", tmp_path / "dirtune" / "mine.py"
    versions = [clean]
    for path, text in ((losses, "weight = 2\n"), (losses, "weight = 3\n"), (added, "new = 1\n"), (added, "new = 2\n")):
        path.write_text(text)
        versions.append(copied.get_code_version())
    assert len(set(versions)) == 5
    assert all(re.fullmatch(rf"{re.escape(clean)}\.[0-9a-f]{{8}}", each) for each in versions[1:])

    losses.write_text("weight = 1\n")
    added.unlink()
    (tmp_path / "notes.txt").write_text("no source of the package")
    assert copied.get_code_version() == clean


def test_the_commit_of_another_projects_checkout_is_ignored(copied: ModuleType, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("dirtune\n")
    commit(tmp_path)
    assert copied.get_code_version() == PACKAGE


def test_without_git_the_code_version_is_the_package_version(
    copied: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert copied.get_code_version() == PACKAGE


def test_provenance_names_code_libraries_and_machine_as_plain_data() -> None:
    found = installed.collect_provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["code_version"].startswith(PACKAGE)
    assert found["libraries"]["torch"] == version("torch")
    assert set(found["libraries"]) >= {"ray", "optuna", "pyarrow", "numpy"}
    assert found["cpus"] >= 1
    assert found["python"].startswith("3.")
    assert found["platform"]
