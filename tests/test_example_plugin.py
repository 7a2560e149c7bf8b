"""The example of a package that extends dirtune, built, installed and swept. Run with `pytest tests/test_example_plugin.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import dirtune
from tests.training.conftest import data_root, toy
from tests.tuning.sweeps import ONE_WORKER, STUDY, rows

__all__ = ["data_root", "toy"]
ROOT = Path(__file__).resolve().parents[1]
# They build and install a wheel.
pytestmark = pytest.mark.slow
EXAMPLE: dict[str, Any] = {
    **STUDY,
    "seeds": [0],
    "resources": ONE_WORKER,
    "base": {
        **STUDY["base"],
        "model": {"encoder": {"name": "mlp"}, "label_scale": 1.0, "label_offset": 4.0},
        "metrics": ["tail_error"],
    },
    "arms": {
        "vanilla": {},
        "spread": {"terms": {"spread": {"weight": 0.1}}},
        "sines": {
            "model": {
                "encoder": {
                    "name": "module",
                    "factory": "dirtune_spread:make_sines",
                    "options": {"width": 8},
                    "input": "vector",
                }
            }
        },
        "wide": {"model": {"encoder": {"name": "wide_mlp", "width": 8}}},
    },
}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the example, installed from its wheel."""
    source, site = tmp_path_factory.mktemp("plugin") / "source", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "examples/plugin", source)
    install(source, site)
    return site


def install(source: Path, site: Path) -> None:
    shutil.rmtree(site)
    wheels = source.parent / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(site), str(wheel)], check=True)


def run(site: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the example on its path."""
    paths = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=cwd, env=environment)


def test_its_own_test_passes(installed: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/plugin/tests/test_contract.py", tmp_path)
    done = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_contract.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_its_parts_are_listed_with_the_package(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "-m", "dirtune.cli", "list", "terms", cwd=tmp_path)
    assert "Of the package dirtune-spread 0.1.0." in done.stdout, done.stderr


@pytest.mark.ray
def test_it_is_swept_on_ray_and_a_changed_source_makes_new_trials(
    installed: Path, data_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(EXAMPLE, sort_keys=False))
    roots = ["--data", str(data_root), "--results", str(tmp_path / "results")]
    done = run(installed, "-m", "dirtune.cli", "sweep", "tiny.yaml", *roots, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results"
    assert rows("select distinct arm from curves where name = 'train/spread'", results)["arm"].tolist() == ["spread"]
    used = rows("select arm, plugins from trials order by arm", results)
    assert all([*json.loads(text)] == ["dirtune-spread 0.1.0"] for text in used["plugins"])
    # This process has not installed it, and reads the results.
    table = dirtune.table("tiny", results=results, metric="tail_error")
    assert {"vanilla", "spread", "sines", "wide"} <= set(table.to_frame()["arm"])

    source = tmp_path / "changed/source"
    shutil.copytree(ROOT / "examples/plugin", source)
    package = source / "src/dirtune_spread/__init__.py"
    package.write_text(package.read_text().replace("cosines * differ", "cosines.square() * differ"))
    site = tmp_path / "site"
    site.mkdir()
    install(source, site)
    planned = run(site, "-m", "dirtune.cli", "plan", "tiny.yaml", *roots, cwd=tmp_path)
    assert "0 recorded, 4 orphaned" in " ".join(planned.stdout.split()), planned.stdout + planned.stderr
    # Without it, the study is refused in a sentence.
    refused = run(ROOT, "-m", "dirtune.cli", "plan", "tiny.yaml", *roots, cwd=tmp_path)
    assert refused.returncode == 2
    assert "spread" in refused.stderr
    assert "Traceback" not in refused.stderr
