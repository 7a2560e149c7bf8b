"""Searches whose selection is trained anew, for real, on a local Ray: run with `pytest tests/tuning/test_confirmed_sweep.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import dirtune
from dirtune.io.jsonfile import parse_json_object
from dirtune.nested import merge
from tests.tuning import sweeps

pytestmark = pytest.mark.ray

STUDY: dict[str, Any] = {
    "name": "tuned",
    "question": "Does what is selected hold on other seeds?",
    "reference": "conr",
    "seeds": [0, 1],
    "base": merge(sweeps.STUDY["base"], {"recipe": {"epochs": 4}}),
    "arms": {
        **sweeps.STUDY["arms"],
        "lds": {"model": {"projection_dim": 8}, "terms": {"conr": {"beta": 0.1, "omega": 3.0}}, "alpha": 2.0},
    },
    "search": {"trials": 4, "sampler": "random", "confirm": True, "tuning_seed": 9, "transfer": "both"},
    "space": {"terms.conr.beta": {"distribution": "loguniform", "low": 1e-2, "high": 1e2}},
    "resources": {"checkpoint_seconds": 0},
}
# Vanilla, conr and lds, lds@transfer
TRIALS = 2 + 2 * (4 + 2) + 2


def study_file(folder: Path, **changes: Any) -> str:
    path = folder / "tuned.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return str(path)


def rows(columns: str, results: Path) -> pd.DataFrame:
    sql = f"select {columns} from trials order by arm, replicate, trial_id"
    return dirtune.query(sql, results=results)


def metrics(results: Path) -> pd.DataFrame:
    sql = """select arm, seed, trial_id, split, selection, region, metric, value
             from metrics join trials using (trial_id) order by all"""
    return dirtune.query(sql, results=results)


def kill_once_selected(command: list[str], folder: Path) -> None:
    """Run a command and kill -9 it as soon as a trial of a selection has begun."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 500
    while not _is_evaluating_selection(folder):
        assert child.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline, "the sweep did not get far enough to be killed"
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def _is_evaluating_selection(folder: Path) -> bool:
    if not (folder / "selected.json").exists():
        return False
    selected = parse_json_object((folder / "selected.json").read_bytes())
    planned = {trial["trial_id"] for arm in selected.values() for trial in arm["planned"]}
    return any((folder / "trials" / name / "progress.json").exists() for name in planned)


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_a_killed_confirmed_search_ends_with_the_tables_of_an_undisturbed_one_bit_for_bit(
    data_root: Path, tmp_path: Path
) -> None:
    path = study_file(tmp_path)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    plan = dirtune.plan(path, data=data_root, results=killed)
    assert plan.total_trials == TRIALS
    command = [sys.executable, "-m", "dirtune.cli", "sweep", path, "--data", str(data_root), "--results", str(killed)]
    kill_once_selected(command, killed / "tuned")
    resumed = dirtune.resume("tuned", data=data_root, results=killed)
    assert (dict(resumed.crashed), resumed.left) == ({}, 0)
    assert resumed.reused + resumed.run["complete"] == TRIALS
    done = dirtune.sweep(path, data=data_root, results=undisturbed)
    assert (done.run, done.left) == ({"complete": TRIALS}, 0)
    pd.testing.assert_frame_equal(metrics(killed), metrics(undisturbed), check_exact=True)
    chosen = [(folder / "tuned/selected.json").read_text() for folder in (killed, undisturbed)]
    assert chosen[0] == chosen[1]
    trials = rows("arm, role, replicate, seed", undisturbed)
    assert trials["arm"].value_counts().to_dict() == {"conr": 6, "lds": 6, "lds@transfer": 2, "vanilla": 2}
    assert (trials["role"] == "search").sum() == 8
    again = dirtune.sweep(path, data=data_root, results=undisturbed)
    assert (again.run, again.reused, again.left) == ({}, TRIALS, 0)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("scheduler", ["asha", pytest.param("median", marks=pytest.mark.soak)])
def test_a_scheduler_stops_trials_of_the_search_and_none_that_evaluates_its_selection(
    data_root: Path, tmp_path: Path, scheduler: str
) -> None:
    search = {**STUDY["search"], "trials": 8, "transfer": "none", "scheduler": {"name": scheduler, "grace_epochs": 1}}
    arms = {"conr": STUDY["arms"]["conr"]}
    path = study_file(tmp_path, search=search, arms=arms, resources=sweeps.ONE_WORKER)
    done = dirtune.sweep(path, data=data_root, results=tmp_path)
    assert done.left == 0
    trials = rows("role, status, epochs_run", tmp_path)
    tried, confirming = trials[trials["role"] == "search"], trials[trials["role"] == "evaluation"]
    assert (len(tried), len(confirming)) == (8, 2)
    assert (tried["status"] == "pruned").any()
    assert (tried["status"] == "complete").any()
    assert set(confirming["status"]) == {"complete"}
    assert set(confirming["epochs_run"]) == {4}
