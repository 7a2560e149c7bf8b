from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from dirtune.results.query.query import query
from dirtune.results.query.views import COLUMNS, VIEWS
from tests.results.record_factory import OFFSETS, record, write_study

VALUES = (5.0, 5.4, 4.9)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three complete trials with two epochs each, one that failed after an epoch, and a second study."""
    epochs = ({"loss": 2.0, "val_mae": 9.0}, {"loss": 1.0, "val_mae": 8.0})
    records = [replace(record("vanilla", seed, value), epochs=epochs) for seed, value in enumerate(VALUES)]
    failed = record("conr", 0, status="failed", error="no")
    write_study(tmp_path, [*records, replace(failed, epochs=epochs[:1])])
    return tmp_path


def test_every_view_has_its_documented_columns(root: Path) -> None:
    for view in ("arms", "curves"):
        assert query(f"from {view}", root, limit=1).column_names == COLUMNS[view]
    assert VIEWS.keys() == COLUMNS.keys()


def test_arms_are_mean_spread_and_range_over_the_complete_trials(root: Path) -> None:
    found = query(
        "select arm, n, mean, sd, min, max from arms where split = 'test' and region = 'few' "
        "and selection = 'best_val' and metric = 'mae'",
        root,
    ).to_pylist()

    few = [value + OFFSETS["few"] for value in VALUES]
    assert found == [
        {
            "arm": "vanilla",
            "n": 3,
            "mean": pytest.approx(statistics.mean(few)),
            "sd": pytest.approx(statistics.stdev(few)),
            "min": min(few),
            "max": max(few),
        }
    ]


def test_curves_are_the_epochs_with_the_arm_they_belong_to(root: Path) -> None:
    found = query(
        "select arm, seed, status, epoch, value from curves where name = 'loss' order by status, seed, epoch", root
    )

    assert [tuple(row.values()) for row in found.to_pylist()] == [
        *((("vanilla", seed, "complete", epoch, 3.0 - epoch)) for seed in range(3) for epoch in (1, 2)),
        ("conr", 0, "failed", 1, 2.0),
    ]


def test_the_views_of_an_empty_study_are_empty(tmp_path: Path) -> None:
    write_study(tmp_path, [], reference="a")

    for view in VIEWS:
        assert query(f"from {view}", tmp_path).num_rows == 0
