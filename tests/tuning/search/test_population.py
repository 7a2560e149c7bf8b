"""Run with `pytest tests/tuning/search/test_population.py`: populations whose trainings are a formula."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dirtune.config import TrialConfig, leaf
from dirtune.training.trial import TrialJob
from dirtune.tuning.search.queue import Ending
from tests.tuning.pretended import Killed, Pretended, of_arm, omega

EPOCHS, SIZE = 6, 8
CHANGES: dict[str, Any] = {
    "arms": {"vanilla": {}, "conr": {"terms": {"conr": {}}}},
    "base": {"data": {"name": "toy"}, "model": {"encoder": {"name": "cnn"}}, "recipe": {"epochs": EPOCHS}},
    "space": {
        "terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0},
        "terms.conr.tau": {"distribution": "loguniform", "low": 0.05, "high": 1.0},
    },
    "search": {"trials": SIZE, "sampler": "random", "scheduler": {"name": "pbt", "interval": 2}},
    "seeds": [0],
}


def error_of(config: TrialConfig) -> float:
    """Least where omega is 4; a longer training is a little better."""
    epochs = config.segment.end if config.segment else EPOCHS
    return abs(omega(config) - 4.0) + 1 / epochs


def pretended(root: Path) -> Pretended:
    return Pretended(root, lambda config: Ending(status="complete", objective=error_of(config)))


def generations(jobs: list[TrialJob]) -> list[dict[str, TrialJob]]:
    """The segments of the searched arm by their start and trial."""
    found: dict[int, dict[str, TrialJob]] = {}
    for job in of_arm(jobs, "conr"):
        assert job.config.segment is not None
        found.setdefault(job.config.segment.start, {})[job.trial_id] = job
    return [found[start] for start in sorted(found)]


@pytest.mark.parametrize("concurrent", [1, 3])
def test_every_generation_follows_from_the_whole_one_before(tmp_path: Path, concurrent: int) -> None:
    sweep = pretended(tmp_path)
    jobs = sweep.sweep(concurrent=concurrent, **CHANGES)
    found = generations(jobs)
    assert [len(each) for each in found] == [SIZE] * 3
    ends = [{job.config.segment.end for job in each.values() if job.config.segment} for each in found]
    assert ends == [{2}, {4}, {6}]
    for before, after in itertools.pairwise(found):
        by_error = sorted(before, key=lambda trial: error_of(before[trial].config))
        parents = Counter(job.config.segment.parent for job in after.values() if job.config.segment)
        # Of eight, the two worst are gone, and the two best have their places.
        assert set(parents) == set(by_error[:-2])
        assert sum(parents[best] for best in by_error[:2]) == 4
        for job in after.values():
            assert job.config.segment is not None
            parent = before[job.config.segment.parent or ""].config
            heirs = [
                other
                for other in after.values()
                if other.config.segment and other.config.segment.parent == job.config.segment.parent
            ]
            same = sum(omega(each.config) == omega(parent) for each in heirs)
            # Who goes on as it was
            assert same >= 1
    assert sweep.sweep(**CHANGES) == []


def test_copies_change_their_settings_by_the_factor_or_draw_them_anew(tmp_path: Path) -> None:
    jobs = pretended(tmp_path).sweep(concurrent=1, **CHANGES)
    known = {job.trial_id: job.config for job in jobs}
    ratios = []
    for job in jobs:
        if job.config.segment is None or job.config.segment.parent is None:
            continue
        parent = known[job.config.segment.parent]
        for path in CHANGES["space"]:
            ratios.append(leaf(job.config.plain(), path) / leaf(parent.plain(), path))
    kept = [ratio for ratio in ratios if ratio == 1]
    by_factor = [r for r in ratios if r == pytest.approx(1.2) or r == pytest.approx(1 / 1.2)]
    assert len(kept) == 2 * (SIZE - 2) * 2
    assert len(ratios) == 2 * SIZE * 2
    assert by_factor
    assert all(0.5 <= omega(config) <= 9 for config in known.values() if omega(config))


def test_the_population_moves_to_where_the_error_is_least(tmp_path: Path) -> None:
    first, *_, last = generations(pretended(tmp_path).sweep(concurrent=1, **CHANGES))
    worst = [max(abs(omega(job.config) - 4) for job in each.values()) for each in (first, last)]
    assert worst[1] < worst[0]


@pytest.mark.parametrize("die_after", [5, 9, 14, 20])
def test_a_population_that_is_killed_anywhere_ends_as_an_undisturbed_one(tmp_path: Path, die_after: int) -> None:
    undisturbed, killed = pretended(tmp_path / "undisturbed"), pretended(tmp_path / "killed")
    undisturbed.sweep(concurrent=1, **CHANGES)
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=die_after, **CHANGES)
    assert len(killed.extension(**CHANGES).kept) == die_after
    killed.sweep(concurrent=1, **CHANGES)
    assert sorted(map(str, killed.recorded())) == sorted(map(str, undisturbed.recorded()))


def test_a_lost_optuna_storage_is_no_loss(tmp_path: Path) -> None:
    undisturbed, killed = pretended(tmp_path / "undisturbed"), pretended(tmp_path / "killed")
    undisturbed.sweep(concurrent=1, **CHANGES)
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=12, **CHANGES)
    Path(killed.folder.path("optuna.db")).unlink()
    killed.sweep(concurrent=1, **CHANGES)
    assert sorted(map(str, killed.recorded())) == sorted(map(str, undisturbed.recorded()))


def test_trainings_that_fail_are_replaced(tmp_path: Path) -> None:
    def ending(config: TrialConfig) -> Ending:
        if config.segment and config.segment.start == 0 and omega(config) > 4:
            return Ending(status="failed", objective=None)
        return Ending(status="complete", objective=error_of(config))

    sweep = Pretended(tmp_path, ending)
    first, second, _ = generations(sweep.sweep(concurrent=1, **CHANGES))
    failed = {trial for trial, job in first.items() if omega(job.config) > 4}
    assert failed
    assert len(second) == SIZE
    assert not failed & {job.config.segment.parent for job in second.values() if job.config.segment}


def test_a_population_that_fails_as_a_whole_ends(tmp_path: Path) -> None:
    sweep = Pretended(
        tmp_path,
        lambda config: Ending(
            status="failed" if config.segment else "complete", objective=None if config.segment else 1.0
        ),
    )
    assert len(sweep.sweep(concurrent=2, **CHANGES)) == 1 + SIZE
    assert sweep.agenda(**CHANGES).next() is None


def test_another_population_is_another_search(tmp_path: Path) -> None:
    sweep = pretended(tmp_path)
    sweep.sweep(concurrent=1, **CHANGES)
    larger = {**CHANGES, "search": {**CHANGES["search"], "trials": SIZE + 1}}
    extension = sweep.extension(**larger)
    assert (len(extension.kept), len(extension.orphaned)) == (1, 3 * SIZE)
