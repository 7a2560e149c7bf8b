"""Population based training for real, on a local Ray: run with `pytest tests/tuning/test_population_sweep.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import dirtune
from tests.tuning.sweeps import STUDY, rows

pytestmark = pytest.mark.ray


def test_a_population_trains_in_segments_and_leaves_nothing_behind(
    digits: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(
        arms={"conr": STUDY["arms"]["conr"]},
        reference="conr",
        seeds=[0],
        space={"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}},
        search={"trials": 4, "sampler": "random", "scheduler": {"name": "pbt", "interval": 2}},
    )
    summary = dirtune.sweep(path, data=digits, results=tmp_path)
    assert (dict(summary.run), summary.left) == ({"complete": 8}, 0)
    found = rows(
        """select trial_id, "config.segment.parent" as parent, "config.segment.start" as start,
           "config.segment.end" as "end", epochs_planned, epochs_run, "config.terms.conr.omega" as omega from trials""",
        tmp_path,
    ).set_index("trial_id")
    first, second = found[found.start == 0], found[found.start == 2]
    assert (set(first.end), set(second.end)) == ({2}, {3})
    assert (found.epochs_run == found.end).all()
    assert (found.epochs_planned == found.end).all()
    assert set(second.parent) < set(first.index)
    curves = rows("select trial_id, epoch, value from epochs where name = 'val/all/mae'", tmp_path)
    by_trial = {trial: of.sort_values("epoch").value.tolist() for trial, of in curves.groupby("trial_id")}
    last = {trial: by_trial[trial][-1] for trial in first.index}
    worst, best = max(last, key=lambda trial: last[trial]), min(last, key=lambda trial: last[trial])
    assert worst not in set(second.parent)
    assert (second.parent == best).sum() == 2
    for trial, row in second.iterrows():
        assert by_trial[trial][:2] == by_trial[row.parent]
    assert not (tmp_path / "tiny/handovers").exists()
    again = dirtune.sweep(path, data=digits, results=tmp_path)
    assert (again.reused, dict(again.run)) == (8, {})
