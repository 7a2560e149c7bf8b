from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.arms import StudyRuns, study_runs
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.figures._quantities import chosen_models, complete_models, pairs_of, quantity_named, values_of
from dirtune.results.records.studies import open_studies, read_study
from tests.results.figures.stores import VALUES, compared, searched
from tests.results.record_factory import OFFSETS


def runs_of(root: Path, rule: str = "best_val") -> StudyRuns:
    storage = open_studies(root)["study"]
    return study_runs(storage, read_study(storage), SELECTIONS[rule])


def test_a_text_names_a_region_and_perhaps_a_metric(tmp_path: Path) -> None:
    runs = runs_of(compared(tmp_path))

    few, correlation = (quantity_named(text, "mae", runs) for text in ("few", "many/pearson"))

    assert (few.region, few.metric, few.sign, few.label("years")) == ("few", "mae", 1, "MAE [years], few")
    assert (correlation.metric, correlation.sign) == ("pearson", -1)
    assert correlation.label("years") == "Pearson r, many"
    with pytest.raises(InputError, match="unknown region, got 'mae'"):
        quantity_named("mae", "mae", runs)


def test_a_quantity_has_a_value_by_trial_and_epoch(tmp_path: Path) -> None:
    runs = runs_of(compared(tmp_path))

    values = values_of(quantity_named("few", "mae", runs), runs, "test")

    assert values == pytest.approx(
        {
            (f"{arm}-{seed}", epoch): value + OFFSETS["few"]
            for arm, by_seed in VALUES.items()
            for seed, value in by_seed.items()
            for epoch in ("best_val", "last")
        }
    )


def test_chosen_models_are_one_per_seed_and_complete_ones_are_all(tmp_path: Path) -> None:
    root = searched(tmp_path)
    storage = open_studies(root)["study"]

    chosen = chosen_models(runs_of(root, "last"))
    complete = complete_models(storage, read_study(storage), "last")

    assert [epoch for _, epoch in chosen["conr"]] == ["last"]
    assert len(complete["conr"]) == 12
    assert chosen["conr"][0] in complete["conr"]
    by_oracle = complete_models(storage, read_study(storage), "oracle")["conr"]
    assert {epoch for _, epoch in by_oracle} == {"best_val"}


def test_models_that_lack_a_number_have_no_pair() -> None:
    a, b = ("a", "last"), ("b", "last")

    assert pairs_of([a, b], {a: 1.0, b: 2.0}, {a: 3.0}) == [(1.0, 3.0)]
