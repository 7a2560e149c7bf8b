"""Run with `pytest tests/tuning/test_recommend.py`: from a table to a recommended method, here without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dirtune
from dirtune.data import session
from dirtune.errors import InputError
from dirtune.study import starter
from dirtune.study.resolve import load_study
from dirtune.tuning import recommend as module
from dirtune.tuning import sweep as sweeps
from dirtune.tuning.interface import SweepSummary
from tests.tuning.sweeps import rows, sweep_without_ray


def write_table(file: Path, number: int = 160) -> None:
    drawn = np.random.default_rng(0)
    features = drawn.normal(size=(number, 3))
    labels = 50 + 10 * features[:, 0] + drawn.normal(size=number)
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{y:.3f}" for (a, b, c), y in zip(features, labels, strict=True)]
    file.write_text("\n".join(["a,b,c,y", *lines]) + "\n")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a table, where trainings take a moment and a search tries three settings per arm."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "Mine.csv")
    monkeypatch.setattr(session, "ray_session", nullcontext)
    # Three of the six arms
    conr = "  conr:\n    model: {projection_dim: 8}\n    terms: {conr: {beta: 0.1}}\n"
    space = "  terms.conr.beta: {distribution: loguniform, low: 0.01, high: 1.0}\n"
    changed = {"EPOCHS": 4, "STEPS": 4, "_PAIRS": conr, "_SPACE": space, "_RANKSIM": "", "_RANKSIM_SPACE": ""}
    for name, value in changed.items():
        monkeypatch.setattr(starter, name, value)
    monkeypatch.setattr(module, "MAX_SETTINGS", 2)
    monkeypatch.setattr(module, "MAX_SEEDS", 4)
    return tmp_path


def fake_sweeps(monkeypatch: pytest.MonkeyPatch, *limits: tuple[int | None, str | None]) -> None:
    """Sweep without Ray: at most so many trials in the first calls, which were then stopped by that; all in later ones."""
    left = list(limits)

    def sweep(study: str, *, data: Path, results: Path, view: Any) -> SweepSummary:
        limit, reason = left.pop(0) if left else (None, None)
        sweep_without_ray(study, data, results, limit=limit)
        return SweepSummary(folder="", reused=0, orphaned=0, run={}, crashed={}, left=0, stopped=reason)

    monkeypatch.setattr(sweeps, "sweep", sweep)


@pytest.mark.slow
def test_every_arm_tries_equally_many_settings_and_is_confirmed_on_fresh_seeds(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four trials are two settings of the first arm and one of the others: the time of the search is over.
    fake_sweeps(monkeypatch, (4, "`dirtune stop`"))
    said: list[str] = []
    found = dirtune.recommend("Mine.csv", label="y", minutes=5, report=said.append)
    assert any("budget: 50% of" in line for line in said)
    assert (found.study, found.file, found.stopped) == ("mine_recommend", Path("Mine_recommend.yaml"), None)
    counts = rows("select role, arm, count(*) as n from trials group by all", here / "results")
    arms = set(counts["arm"])
    assert len(arms) == 3
    by_role = {role: set(part["n"]) for role, part in counts.groupby("role")}
    assert by_role["search"] == {1}
    # Fresh: no trial of the search has these seeds.
    seeds = rows(
        "select role, list_sort(list_distinct(list(seed))) as seeds from trials group by all", here / "results"
    )
    assert dict(zip(seeds["role"], map(list, seeds["seeds"]), strict=True)) == {
        "evaluation": [0, 1, 2, 3],
        "search": [100],
    }
    study = load_study("Mine_recommend.yaml")
    assert (study.search.trials, study.seeds, study.search.confirm) == (1, (0, 1, 2, 3), True)
    assert study.search.warm_start.presets
    assert found.sentences[0].startswith(("Use ", "Keep vanilla: "))
    assert "in region " in found.sentences[0]
    assert found.report is not None
    assert found.report.stat().st_size > 10_000
    # The floors are recorded, and a sentence compares with the strongest.
    assert any("ridge" in line or "boosting" in line for line in found.sentences)
    monkeypatch.setattr(module, "write_report", lambda *_: Path("report.html"))
    # Again: everything is recorded, so that the answer is the same.
    again = dirtune.recommend("Mine.csv", label="y", minutes=5, report=said.append)
    assert again.sentences == found.sentences


@pytest.mark.slow
def test_an_interrupted_call_goes_on_from_its_records(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_sweeps(monkeypatch, (2, "SIGINT"))
    # It is drawn by another test.
    monkeypatch.setattr(module, "write_report", lambda *_: Path("report.html"))
    found = dirtune.recommend("Mine.csv", label="y", minutes=5, report=lambda _: None)
    assert (found.stopped, found.sentences, found.report) == ("SIGINT", (), None)
    before = set(rows("select trial_id from trials", here / "results")["trial_id"])
    assert len(before) == 2
    found = dirtune.recommend("Mine.csv", label="y", minutes=5, report=lambda _: None)
    after = rows("select trial_id, role from trials", here / "results")
    assert before < set(after["trial_id"])
    assert (after["role"] == "search").sum() == 3 * 2
    assert found.sentences


def test_wrong_requests_are_one_sentence(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="minutes: must be above 0, got 0"):
        dirtune.recommend("Mine.csv", label="y", minutes=0)
    with pytest.raises(
        InputError, match=r"minutes: too short for 3 methods on these data; --minutes \d+ is enough, got 0.1"
    ):
        dirtune.recommend("Mine.csv", label="y", minutes=0.1, report=lambda _: None)
    assert not Path("Mine_recommend.yaml").exists()
    Path("other.yaml").write_text("name: other\n")
    with pytest.raises(InputError, match=r"other\.yaml: exists, and is no study of `dirtune recommend`"):
        dirtune.recommend("Mine.csv", label="y", output="other.yaml")
    with pytest.raises(InputError, match="no such file or folder"):
        dirtune.recommend("none.csv", label="y")
