"""Sweeps with parts from outside of the package, on Ray. Run with `pytest tests/tuning/test_plugin_sweep.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import dirtune
from dirtune import plugins
from dirtune.errors import InputError
from tests.plugin_sources import SPREAD, WORST, forgotten_plugins, write
from tests.tuning.sweeps import STUDY, open_folder, rows

__all__ = ["forgotten_plugins"]
CHANGES = {
    "plugins": ["my_terms.py"],
    "arms": {"vanilla": {}, "spread": {"terms": {"spread": {"weight": 0.1}}}},
    "seeds": [0],
    "claim": {"metric": "worst", "region": "all"},
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
    table = dirtune.table(results, "tiny")
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
