"""Run with `pytest tests/results/tables/test_costs.py`: training times against the reference, and values at equal time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from tests.results.record_factory import record, write_study

CURVES = {"plain": [9.0, 7.0, 5.0, 4.0], "twice": [8.0, 3.0, 2.0, 1.0], "slow": [8.0, 7.0]}
SECONDS = {"plain": 10.0, "twice": 20.0, "slow": 24.0}
"""Training time of seed 0; seeds 1 and 2 take 10 % and 300 % longer."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    records = []
    for arm, curve in CURVES.items():
        for seed, factor in enumerate((1.0, 1.1, 4.0)):
            seconds, waiting, samples = factor * SECONDS[arm], 3.0, 100.0 * len(curve)
            times = {
                "epochs_run": len(curve),
                "seconds_train": seconds,
                "seconds_data": waiting,
                "samples_per_second": samples / (seconds + waiting),
            }
            found = record(arm, seed, min(curve))
            epochs = [{"val/all/mae": value, "val/few/mae": value + 2 + seed} for value in curve]
            records.append(replace(found, trial={**found.trial, **times}, epochs=epochs))
    # Recorded before times were
    records.append(record("old", 0, 6.0))
    arms = [*CURVES, "old"]
    write_study(
        tmp_path, records, name="study", reference="plain", arms=arms, objective={"metric": "mae"}, seeds=[0, 1, 2]
    )
    return tmp_path


def test_the_cost_of_an_arm_is_its_time_per_sample_against_the_reference(root: Path) -> None:
    table = compare(root, TableRequest(studies=("study",), cost=True))
    costs = {row.arm: row.cost for row in table.parts[0].rows}
    assert costs == {
        "plain": pytest.approx(1.0),
        "twice": pytest.approx(2.0),
        "slow": pytest.approx(24 / 2 / (10 / 4)),
        "old": None,
    }
    text = render(table, "markdown")
    assert all(
        each in text for each in ("| cost", "x1.00", "x2.00", "x4.80", "cost: training time per sample as a multiple")
    )
    assert "x2.00" not in render(compare(root, TableRequest(studies=("study",))), "markdown")


def test_at_equal_time_each_arm_has_its_best_epoch_within_the_shortest_training(root: Path) -> None:
    (table,) = compare(root, TableRequest(studies=("study",), regions=("all", "few"), split="val", equal="time")).parts
    # Seed 0: 10 s are 4 epochs of plain, 2 of twice, none of slow, whose epochs take 12 s.
    found = {row.arm: {region: dict(cell.values) for region, cell in row.cells.items()} for row in table.rows}
    assert found["plain"] == {"all": dict.fromkeys(range(3), 4.0), "few": {0: 6.0, 1: 7.0, 2: 8.0}}
    assert found["twice"] == {"all": dict.fromkeys(range(3), 3.0), "few": {0: 5.0, 1: 6.0, 2: 7.0}}
    assert found["slow"] == {"all": {}, "few": {}}
    assert found["old"] == {"all": {}, "few": {}}


def test_what_the_records_cannot_answer_is_refused(root: Path) -> None:
    for changes, message in (
        ({}, "recorded for the val split alone; use --split val, got 'test'"),
        ({"split": "val", "selection": "last"}, "for the recorded regions and selection best_val"),
        ({"split": "val", "equal": "memory"}, "unknown equal, got 'memory'; known: time"),
    ):
        with pytest.raises(InputError, match=message):
            compare(root, TableRequest(studies=("study",), **{"equal": "time", **changes}))
