"""Studies with several splits of the data: run with `pytest tests/tuning/test_split_sweep.py`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.results.analysis.soundness import check_study
from dirtune.results.analysis.status import status
from dirtune.results.figures import _request, critical_difference, forest
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.power_plan import plan_power
from dirtune.results.tables.render.formats import render
from tests.tuning.sweeps import open_folder, rows, sweep_without_ray, with_epochs

MADE = "split: made, min(n // 3, 4) rows for val and for test per label bin, seed 0"


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sweep fail that needs Ray."""
    monkeypatch.setitem(sys.modules, "dirtune.tuning.execution.run", None)


@pytest.fixture(scope="module")
def made_root(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root in which the splits of the toy data are made, not published."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(data_root, root, dirs_exist_ok=True)
    manifest = root / "toy/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "notes": [MADE]}))
    return root


@pytest.mark.slow
def test_splits_are_an_axis_of_a_study(made_root: Path, tmp_path: Path, study_file: Callable[..., str]) -> None:
    results, one = tmp_path / "results", with_epochs(1)
    assert sweep_without_ray(study_file(**one), made_root, results) == 4
    before = rows("select trial_id, arm, seed, data_split from trials order by all", results)
    path = study_file(**one, splits=3)
    # The trials of the ingested split are those of a study without splits
    assert open_folder(path, made_root, results).find_reuse().kept == frozenset(before["trial_id"])
    assert sum(dirtune.plan(path, data=made_root, results=results).trials.values()) == 12
    assert sweep_without_ray(path, made_root, results, limit=3) == 3
    assert sweep_without_ray(path, made_root, results) == 5
    dirtune.sweep(path, data=made_root, results=results)
    found = rows("select arm, seed, data_split from trials order by all", results)
    pairs = [(seed + 1000 * split, split) for split in range(3) for seed in (0, 1)]
    assert [*found.itertuples(index=False, name=None)] == [
        (arm, *pair) for arm in ("conr", "vanilla") for pair in pairs
    ]
    samples = rows(
        """select data_split, trial_id, list(sample_id order by sample_id) as ids from predictions
           join trials using (trial_id) where split = 'test' group by all order by all""",
        results,
    )
    tested = {split: {tuple(ids) for ids in own["ids"]} for split, own in samples.groupby("data_split")}
    assert [len(each) for each in tested.values()] == [1, 1, 1]
    sets = [set(*each) for each in tested.values()]
    assert sets[0] != sets[1] != sets[2]
    state = status("tiny", results=results)
    assert (state.total, state.done) == (12, 12)
    # Every trial has floors of its own split
    splits = rows(
        "select distinct floor, value from floors where split = 'test' and region = 'all' and metric = 'mae'", results
    )
    assert len(splits) == 2 * 3
    assert check_study(results, "tiny")
    _check_table(results, sets)
    request = _request.PlotRequest(root=results, study="tiny")
    assert forest.build_forest(request)
    with pytest.raises(InputError, match="compares its arms over splits; plan from a study of one split"):
        plan_power(results, "tiny", "5%")
    with pytest.raises(InputError, match="several splits"):
        critical_difference.build_critical_difference(request)


def _check_table(results: Path, sets: list[set[str]]) -> None:
    """Check a table against the corrected resampled t test by plain numbers."""
    table = compare(results, TableRequest(studies=("tiny",)))
    (part,) = table.parts
    cells = {row.arm: row.cells["all"] for row in part.rows}
    by_split = [
        np.mean([cells["conr"].values[seed] - cells["vanilla"].values[seed] for seed in (1000 * k, 1000 * k + 1)])
        for k in range(3)
    ]
    shares = [len(a & b) / len(a) for a, b in ((sets[0], sets[1]), (sets[0], sets[2]), (sets[1], sets[2]))]
    share = np.mean(shares)
    error = np.sqrt((1 / 3 + share / (1 - share)) * np.var(by_split, ddof=1))
    found = cells["conr"].difference
    assert found is not None
    assert (found.n, found.unit) == (3, "splits")
    # 4.302653: the 97.5 % quantile of Student's t with two degrees of freedom
    expected = np.mean(by_split) + 4.302653 * error * np.array([-1, 1])
    assert [found.low, found.high] == pytest.approx(expected, rel=1e-6)
    assert cells["conr"].verdict is not None
    text = render(table, "table")
    assert "Splits (3) of the data, the first as ingested, each with seeds 0, 1" in text
    assert "corrected resampled t test" in text
    assert "another split" not in text


def test_faults_of_splits_are_sentences(data_root: Path, tmp_path: Path, study_file: Callable[..., str]) -> None:
    cases = {
        "are published": {"splits": 2},
        "must be below 1000": {"splits": 2, "seeds": [0, 1000]},
        "cannot be combined with `sequential`": {"splits": 2, "sequential": {"most_seeds": 5}},
        "is set by the study's own `splits`": {"axes": {"data.split": [0, 1]}},
        "a search of its own": {
            "splits": 2,
            "search": {"confirm": True, "tuning_seed": 9},
            "space": {"terms.conr.beta": {"distribution": "loguniform", "low": 0.01, "high": 1.0}},
        },
        "needs `confirm: true`": {
            "search": {"repeats": 2},
            "space": {"terms.conr.beta": {"distribution": "loguniform", "low": 0.01, "high": 1.0}},
        },
    }
    for sentence, changes in cases.items():
        with pytest.raises(InputError) as caught:
            open_folder(study_file(**changes), data_root, tmp_path / "results")
        assert sentence in str(caught.value), sentence
    assert not (tmp_path / "results").exists()
