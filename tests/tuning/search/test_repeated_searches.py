"""Several searches of every arm: run with `pytest tests/tuning/search/test_repeated_searches.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dirtune.nested import get_leaf
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from dirtune.training.trial import TrialJob
from tests.tuning.simulated_sweep import STUDY, Killed, SimulatedSweep, error_of, of_arm, omega

BETA = "terms.conr.beta"
SPACE = {**STUDY["space"], BETA: {"distribution": "loguniform", "low": 0.01, "high": 10.0, "arms": ["conr"]}}


def with_repeats(repeats: int, **search: Any) -> dict[str, Any]:
    return {"search": {**STUDY["search"], "repeats": repeats, **search}}


def of_search(jobs: Sequence[TrialJob], arm: str, repeat: int) -> list[TrialJob]:
    return [job for job in of_arm(jobs, arm) if job.role == "search" and job.config.seed == 100 + 1000 * repeat]


@pytest.mark.slow
def test_every_search_selects_for_its_own_seeds(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    plans = found.make_folder(**with_repeats(3)).study
    assert [plans.count_trials(arm) for arm in plans.arms] == [3 * 2, 3 * (4 + 2), 3 * (4 + 2)]
    jobs = found.sweep(**with_repeats(3))
    assert len(jobs) == 6 + 18 + 18
    for arm in ("conr", "wide"):
        evaluated = [job for job in of_arm(jobs, arm) if job.role == "evaluation"]
        assert sorted(job.config.seed for job in evaluated) == [3, 4, 1003, 1004, 2003, 2004]
        selected = set()
        for repeat in range(3):
            tried = of_search(jobs, arm, repeat)
            assert len(tried) == 4
            best = min(tried, key=lambda job: error_of(job.config))
            own = {omega(job.config) for job in evaluated if job.config.seed // 1000 == repeat}
            assert own == {omega(best.config)}
            selected |= own
        assert len(selected) == 3
    assert found.sweep(**with_repeats(3)) == []


def test_more_repeats_keep_the_first_search(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    first = found.sweep()
    reuse = found.find_reuse(**with_repeats(2))
    assert (reuse.kept, reuse.orphaned) == (frozenset(job.trial_id for job in first), frozenset())
    added = found.sweep(**with_repeats(2))
    assert {job.config.seed for job in added} == {1100, 1003, 1004}
    # And fewer repeats put the trials of the second aside
    back = found.find_reuse()
    assert back.orphaned == frozenset(job.trial_id for job in added)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [5, 11])
def test_a_killed_driver_ends_with_the_same_trials(tmp_path: Path, moment: int) -> None:
    undisturbed, killed = SimulatedSweep(tmp_path / "undisturbed"), SimulatedSweep(tmp_path / "killed")
    undisturbed.sweep(concurrent=1, **with_repeats(2, trials=2))
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=moment, **with_repeats(2, trials=2))
    assert killed.find_reuse(**with_repeats(2, trials=2)).orphaned == frozenset()
    killed.sweep(concurrent=1, **with_repeats(2, trials=2))
    assert killed.read_trials() == undisturbed.read_trials()
    assert killed.folder.read("selected.json") == undisturbed.folder.read("selected.json")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_arms_begin_with_the_same_values_of_shared_settings(tmp_path: Path, sampler: str) -> None:
    changes = {"space": SPACE, **with_repeats(2, sampler=sampler, trials=6)}
    jobs = SimulatedSweep(tmp_path).sweep(concurrent=1, **changes)
    starts = {}
    for repeat in range(2):
        conr, wide = (of_search(jobs, arm, repeat) for arm in ("conr", "wide"))
        # A third of six: tpe's model proposes the others
        shared = 6 if sampler == "random" else 2
        starts[repeat] = [omega(job.config) for job in conr[:shared]]
        assert starts[repeat] == [omega(job.config) for job in wide[:shared]]
        assert len({get_leaf(job.config.to_plain(), BETA) for job in conr}) == 6
    assert not set(starts[0]) & set(starts[1])


def test_transferred_settings_come_from_the_search_of_the_same_number(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    jobs = found.sweep(**with_repeats(2, transfer="both"))
    for repeat in range(2):
        best = min(of_search(jobs, "conr", repeat), key=lambda job: error_of(job.config))
        own = [job for job in of_arm(jobs, "wide@transfer") if job.config.seed // 1000 == repeat]
        assert [omega(job.config) for job in own] == [omega(best.config)] * 2
    plain = json.loads(found.folder.read("selected.json"))
    assert set(plain) - {"checksum"} == {
        f"{arm}{end}" for arm in ("conr", "wide", "wide@transfer") for end in ("", "@search1")
    }


@pytest.mark.slow
def test_a_table_counts_searches(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(**with_repeats(3))
    table = compare(tmp_path, TableRequest(studies=("tiny",)))
    cells = {row.arm: row.cells["all"] for row in table.parts[0].rows}
    difference = cells["wide"].difference
    assert difference is not None
    assert (difference.n, difference.unit) == (3, "searches")
    by_search = [
        sum(cells["wide"].values[seed + 1000 * k] - cells["conr"].values[seed + 1000 * k] for seed in (3, 4)) / 2
        for k in range(3)
    ]
    assert difference.mean == pytest.approx(sum(by_search) / 3)
    assert cells["wide"].no_word == "no stored predictions to count test samples by"
    # An arm that was not searched has fewer configurations than the reference
    assert "another number of configurations" in cells["vanilla"].no_word
    text = render(table, "table")
    assert "Searches (3) of each arm, each with seeds 3, 4" in text
    assert "may still be told apart" not in text
    assert "not recorded" not in text
    one = SimulatedSweep(tmp_path / "one")
    one.sweep()
    assert "may still be told apart" in render(compare(tmp_path / "one", TableRequest(studies=("tiny",))), "table")
