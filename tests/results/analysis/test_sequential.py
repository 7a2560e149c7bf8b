from __future__ import annotations

from pathlib import Path
from typing import Any

from dirtune.io.storage import Storage
from dirtune.results.analysis.claims import make_claim
from dirtune.results.analysis.sequential import (
    list_due_seeds,
    make_sequential_rule,
    plan_due_seeds,
    read_value,
    read_values,
)
from dirtune.results.analysis.status import status
from dirtune.results.records import store
from dirtune.results.records.studies import read_study
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.footer import make_footer
from tests.results.record_factory import OFFSETS, record, write_study

STUDY: dict[str, Any] = {
    "arms": ["vanilla", "conr", "accon"],
    "reference": "vanilla",
    "seeds": [4, 5],
    "objective": {"metric": "mae", "region": "all"},
    "sequential": {"seeds": [4, 5, 6, 7, 8], "step": 1, "metric": "mae", "region": "few", "margin": "2%"},
}


def written(root: Path, **values: list[float | None]) -> Storage:
    """A study with these errors by arm, seed by seed; None: that trial failed."""
    records = [
        record(arm, seed, 5.0 if value is None else value, status="failed" if value is None else "complete")
        for arm, of_arm in values.items()
        for seed, value in enumerate(of_arm, start=4)
    ]
    return write_study(root, records, **STUDY)


# Clear from the first look on, and never clear.
BETTER, UNSURE = [3.0, 3.01, 3.0, 3.0, 3.0], [4.5, 5.6, 4.9, 5.4, 4.6]
SAME = [5.0, 5.1, 4.9, 5.0, 5.05]


def due(storage: Storage) -> dict[str, int]:
    rule = make_sequential_rule(read_study(storage))
    assert rule is not None
    return {arm: len(s) for arm, s in list_due_seeds(rule, read_values(storage, rule)).items()}


def test_the_values_are_the_compared_test_errors_of_complete_trials(tmp_path: Path) -> None:
    storage = written(tmp_path, vanilla=[5.0, None], conr=[4.0])
    rule = make_sequential_rule(read_study(storage))
    assert rule is not None
    few = OFFSETS["few"]
    assert read_values(storage, rule) == {"vanilla": {4: 5.0 + few}, "conr": {4: 4.0 + few}}
    assert read_value(storage, rule, "conr-4") == 4.0 + few


def test_undecided_arms_and_their_reference_need_one_seed_more_and_decided_ones_none(tmp_path: Path) -> None:
    none = written(tmp_path / "none")
    assert due(none) == {"vanilla": 3, "conr": 3, "accon": 3}
    three = written(tmp_path / "three", vanilla=SAME[:3], conr=BETTER[:3], accon=UNSURE[:3])
    assert due(three) == {"vanilla": 4, "conr": 3, "accon": 4}
    four = written(tmp_path / "four", vanilla=SAME[:4], conr=BETTER[:3], accon=UNSURE[:4])
    assert due(four) == {"vanilla": 5, "conr": 3, "accon": 5}
    all_five = written(tmp_path / "five", vanilla=SAME, conr=BETTER[:3], accon=UNSURE)
    assert due(all_five) == {"vanilla": 5, "conr": 3, "accon": 5}


def test_a_trial_that_failed_is_waited_for_and_no_further_seed_is_due(tmp_path: Path) -> None:
    storage = written(tmp_path, vanilla=SAME[:4], conr=BETTER[:3], accon=[4.5, 5.6, 4.9, None])
    assert due(storage) == {"vanilla": 4, "conr": 3, "accon": 4}
    _, found = plan_due_seeds(storage, read_study(storage))
    assert found is not None
    assert found.describe_states()["accon"] == "open after 3, waits for 4 seeds"


def test_tables_and_status_know_the_seeds_that_are_due_and_say_why_they_ended(tmp_path: Path) -> None:
    storage = written(tmp_path, vanilla=SAME, conr=BETTER[:3], accon=UNSURE)
    info, _ = plan_due_seeds(storage, read_study(storage))
    assert info.seeds == (4, 5, 6, 7, 8)
    assert info.plans["conr"].seeds == (4, 5, 6)
    assert status("study", results=tmp_path).planned == {"vanilla": 5, "conr": 3, "accon": 5}
    table = compare(tmp_path, TableRequest(studies=("study",)))
    assert [row.missing for row in table.parts[0].rows] == [(), (), ()]
    text = "\n".join(make_footer(table))
    assert "Seeds (5): 4, 5, 6, 7, 8; paired with vanilla" in text
    assert "conr stopped after 3 seeds; accon all 5 seeds are used up." in text
    assert "looked at after 3 seeds and every 1 more up to 5, margin 2 %" in text
    assert "early: the arm's seeds ended before the last look" in text
    # Without predictions there is no word, whatever the seeds say
    assert "conr, accon: no stored predictions" in text


def test_a_seed_that_is_due_and_not_recorded_is_missing(tmp_path: Path) -> None:
    written(tmp_path, vanilla=SAME[:3], conr=BETTER[:2], accon=UNSURE[:2])
    (part,) = compare(tmp_path, TableRequest(studies=("study",))).parts
    holes = {row.arm: [(gap.seed, gap.reason) for gap in row.missing] for row in part.rows}
    assert holes == {"vanilla": [], "conr": [(6, "not recorded")], "accon": [(6, "not recorded")]}


def test_the_column_of_the_looks_is_the_claim_of_a_study_that_names_none(tmp_path: Path) -> None:
    keys = {**STUDY, "sequential": {**STUDY["sequential"], "margin": 0.05}}
    info = read_study(write_study(tmp_path, [record("vanilla", 4)], **keys))

    claim = make_claim(info, store.read_table(tmp_path, "metrics"))

    # Earlier studies wrote the margin as a share
    assert (claim.metric, claim.region, claim.margin.text) == ("mae", "few", "5%")
    rule = make_sequential_rule(info)
    assert rule is not None
    assert rule.margin == claim.margin


def test_a_study_of_fixed_seeds_is_left_as_it_is(tmp_path: Path) -> None:
    storage = write_study(tmp_path, [], **{**STUDY, "sequential": None})
    info = read_study(storage)
    same, found = plan_due_seeds(storage, info)
    assert same is info
    assert found is None


def test_without_a_reference_nothing_is_compared(tmp_path: Path) -> None:
    info = read_study(write_study(tmp_path, [], **{**STUDY, "reference": None}))
    assert make_sequential_rule(info) is None
