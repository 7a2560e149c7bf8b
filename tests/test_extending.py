"""The tutorial of `docs/extending.md`, executed as it is written. Run with `pytest tests/test_extending.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dirtune
from dirtune.config import TrialConfig
from dirtune.frozen import read
from dirtune.study.resolve import load_study
from tests.plugin_sources import forgotten_plugins
from tests.test_documentation import write_named_blocks
from tests.training.conftest import data_root, toy
from tests.tuning.sweeps import rows

__all__ = ["data_root", "forgotten_plugins", "toy"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_test_of_the_tutorial_passes(tmp_path: Path) -> None:
    write_named_blocks(ROOT / "docs/extending.md", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_parts.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.usefixtures("forgotten_plugins")
def test_every_arm_of_the_tutorial_trains(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_named_blocks(ROOT / "docs/extending.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("own_parts.yaml").write_text(Path("own_parts.yaml").read_text().replace("concrete", "toy"))
    study = load_study("own_parts.yaml")
    for arm in study.arms:
        result = dirtune.train(arm.config, data=data_root, results=tmp_path, arm=arm.name)
        assert result.status == "complete", result.error
    found = rows(
        "select arm, max(value) worst from metrics join trials using (trial_id) where metric = 'tail_error' group by arm",
        tmp_path,
    )
    assert sorted(found["arm"]) == sorted(arm.name for arm in study.arms)
    curves = rows("select distinct arm from curves where name = 'train/spread'", tmp_path)
    assert curves["arm"].tolist() == ["spread"]


def test_the_encoders_of_the_page_are_settings(tmp_path: Path) -> None:
    write_named_blocks(ROOT / "docs/extending.md", tmp_path)
    encoders = yaml.safe_load((tmp_path / "encoders.yaml").read_text())
    for encoder in encoders:
        plain = {"data": {"name": "toy"}, "model": {"encoder": encoder}}
        assert read(TrialConfig, plain, where="page").model.encoder.name == encoder["name"]
    assert len(encoders) == 3
