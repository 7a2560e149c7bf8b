from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.arms import StudyRuns, read_study_runs
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.figures._quantities import (
    find_pareto_front,
    get_quantity,
    make_pairs,
    parse_quantity,
    select_chosen_models,
    select_complete_models,
)
from dirtune.results.records.studies import open_studies, read_study
from tests.results.figures.stores import VALUES, write_compared_arms, write_search
from tests.results.record_factory import OFFSETS


def read_runs(root: Path, rule: str = "best_val") -> StudyRuns:
    storage = open_studies(root)["study"]
    return read_study_runs(storage, read_study(storage), SELECTIONS[rule])


def test_a_quantity_is_parsed_from_a_region_and_an_optional_metric(tmp_path: Path) -> None:
    runs = read_runs(write_compared_arms(tmp_path))

    few, correlation = (parse_quantity(text, "mae", runs) for text in ("few", "many/pearson"))

    assert (few.region, few.metric, few.sign, few.format_label("years")) == ("few", "mae", 1, "MAE [years], few")
    assert (correlation.metric, correlation.sign) == ("pearson", -1)
    assert correlation.format_label("years") == "Pearson r, many"
    with pytest.raises(InputError, match="unknown region, got 'mae'"):
        parse_quantity("mae", "mae", runs)


def test_a_quantity_has_a_value_by_trial_and_epoch(tmp_path: Path) -> None:
    runs = read_runs(write_compared_arms(tmp_path))

    values = get_quantity(parse_quantity("few", "mae", runs), runs, "test")

    assert values == pytest.approx(
        {
            (f"{arm}-{seed}", epoch): value + OFFSETS["few"]
            for arm, by_seed in VALUES.items()
            for seed, value in by_seed.items()
            for epoch in ("best_val", "last")
        }
    )


def test_chosen_models_are_one_per_seed_and_complete_ones_are_all(tmp_path: Path) -> None:
    root = write_search(tmp_path)
    storage = open_studies(root)["study"]

    chosen = select_chosen_models(read_runs(root, "last"))
    complete = select_complete_models(storage, read_study(storage), "last")

    assert [epoch for _, epoch in chosen["conr"]] == ["last"]
    assert len(complete["conr"]) == 12
    assert chosen["conr"][0] in complete["conr"]
    by_oracle = select_complete_models(storage, read_study(storage), "oracle")["conr"]
    assert {epoch for _, epoch in by_oracle} == {"best_val"}


def test_models_without_one_of_the_values_have_no_pair() -> None:
    a, b = ("a", "last"), ("b", "last")

    assert make_pairs([a, b], {a: 1.0, b: 2.0}, {a: 3.0}) == [(1.0, 3.0)]


def test_the_pareto_front_is_that_of_a_double_loop() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        # With equal points
        x, y = generator.integers(0, 6, (2, 12)).tolist()
        expected = [
            not any(x[j] <= x[i] and y[j] <= y[i] and (x[j] < x[i] or y[j] < y[i]) for j in range(12))
            for i in range(12)
        ]
        assert find_pareto_front(x, y) == expected


def test_nothing_has_no_front_and_one_point_is_its_own() -> None:
    assert find_pareto_front([], []) == []
    assert find_pareto_front([1.0], [2.0]) == [True]
