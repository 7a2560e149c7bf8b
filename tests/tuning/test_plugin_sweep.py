"""Sweeps with parts from outside of the package, on Ray. Run with `pytest tests/tuning/test_plugin_sweep.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dirtune
from dirtune import plugins
from dirtune.cli.display import format_summary
from dirtune.errors import InputError
from tests.plugin_sources import SPREAD, WORST, forgotten_plugins, write
from tests.tuning.sweeps import ONE_WORKER, STUDY, open_folder, rows

__all__ = ["forgotten_plugins"]
CHANGES = {
    "plugins": ["my_terms.py"],
    "arms": {"vanilla": {}, "spread": {"terms": {"spread": {"weight": 0.1}}}},
    "seeds": [0],
    "claim": {"metric": "worst", "region": "all"},
    "resources": ONE_WORKER,
}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session", "forgotten_plugins")
def test_a_file_beside_a_study_reaches_the_workers(
    study_file: Callable[..., str], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, results = write(tmp_path, SPREAD + WORST), tmp_path / "results"
    study = study_file(**CHANGES)
    with pytest.raises(InputError, match=r"claim\.metric: is a metric of a plug-in, .* `metrics: \[worst\]`"):
        dirtune.plan(study, data=data_root, results=results)
    study = study_file(**CHANGES, base={**STUDY["base"], "metrics": ["worst"]})
    summary = dirtune.sweep(study, data=data_root, results=results)
    assert summary.run == {"complete": 2}, summary.crashed

    trained = rows("select distinct arm from curves where name = 'train/spread'", results)
    assert trained["arm"].tolist() == ["spread"]
    trials = rows("select arm, plugins from trials order by arm", results)
    (used,) = [each for each in plugins.list_registered() if each.name == "my_terms.py"]
    # The metric is recorded by both arms.
    assert [json.loads(text) for text in trials["plugins"]] == [{"my_terms.py": used.fingerprint}] * 2
    worst = rows("select value from metrics where metric = 'worst' and split = 'test' and region = 'all'", results)
    exact = rows(
        "select max(abs(label - prediction)) worst from predictions where split = 'test' group by trial_id", results
    )
    # Each trial once at its last epoch, once at its best
    assert set(exact["worst"].round(6)) <= set(worst["value"].round(6))
    (table,) = dirtune.table("tiny", results=results).comparison.parts
    assert table.metric == "worst"

    # The copy in the results is code from elsewhere, unless this process has run it already.
    assert (results / "tiny/plugins/my_terms.py").read_text() == file.read_text()
    plugins.unload(used)
    with pytest.raises(InputError, match=r"tiny/plugins: the sweep uses the code of my_terms\.py"):
        dirtune.resume("tiny", data=data_root, results=results)
    assert dirtune.resume("tiny", data=data_root, results=results, allow_plugins=True).reused == 2

    # A changed source makes new trials.
    write(tmp_path, (SPREAD + WORST).replace("cosines * differ", "cosines.square() * differ"))
    plan = dirtune.plan(study, data=data_root, results=results)
    assert (plan.recorded_trials, plan.orphaned_trials) == (0, 2)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session", "forgotten_plugins")
def test_a_part_that_returns_something_else_is_said_once(
    study_file: Callable[..., str], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SPREAD.replace("return (cosines * differ).sum()", "return (cosines * differ).sum(dim=1)"))
    recipe = {**STUDY["base"]["recipe"], "epochs": 1}
    arms = {
        "vanilla": {},
        **{f"spread_{size}": {"terms": {"spread": {}}, "recipe": {"batch_size": size}} for size in (32, 64)},
    }
    study = study_file(**CHANGES | {"claim": {}, "arms": arms, "base": {**STUDY["base"], "recipe": recipe}})
    summary = dirtune.sweep(study, data=data_root, results=tmp_path / "results")
    assert summary.run == {"complete": 1, "failed": 2}
    sentence = (
        "term 'spread' of my_terms.py: must return a scalar, a tensor of floating-point numbers without dimensions, "
        "got a tensor of 1 dimension"
    )
    assert format_summary(summary).count(sentence) == 1
    trials = rows("select distinct error, error_class from trials where status = 'failed'", tmp_path / "results")
    assert trials.values.tolist() == [[sentence, "code"]]


@pytest.mark.usefixtures("forgotten_plugins")
def test_what_cannot_be_shipped_is_refused_before_anything_is_written(
    study_file: Callable[..., str], data_root: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, SPREAD)
    script = plugins.FilePlugin("script.py", path.read_text(), str(path), is_script=True)
    script.load()
    study = study_file(arms=CHANGES["arms"])
    with pytest.raises(InputError, match=r"script\.py: is the script of this process, which workers cannot run"):
        open_folder(study, data_root, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.ray
@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2], ids=["two_workers", "a_group"])
def test_a_killed_sweep_resumes_with_its_plugins(
    study_file: Callable[..., str], data_root: Path, tmp_path: Path, workers: int
) -> None:
    write(tmp_path, SPREAD + WORST)
    recipe = {**STUDY["base"]["recipe"], "epochs": 40}
    base = {**STUDY["base"], "metrics": ["worst"], "recipe": recipe}
    study_file(**CHANGES | {"base": base, "resources": {"workers": workers, "checkpoint_seconds": 0}})
    roots = ["--data", str(data_root), "--results", str(tmp_path / "results")]
    dirtune_ = [sys.executable, "-m", "dirtune.cli"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.Popen(
        [*dirtune_, "sweep", "tiny.yaml", *roots], cwd=tmp_path, env=environment, start_new_session=True
    )
    while killed.poll() is None and not list((tmp_path / "results/tiny/trials").glob("*/checkpoint/*")):
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert len(list_records(tmp_path / "results")) < 2
    # The file may be gone: the results have a copy.
    (tmp_path / "my_terms.py").unlink()
    done = subprocess.run(
        [*dirtune_, "resume", "tiny", "--allow-plugins", *roots],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    curves = rows("select arm, count(*) n from curves where name = 'train/spread' group by arm", tmp_path / "results")
    assert curves.values.tolist() == [["spread", 40]]


def list_records(results: Path) -> list[Path]:
    return list((results / "tiny/results/trials").glob("*.parquet"))
