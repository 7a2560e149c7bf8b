"""Run with `pytest tests/test_recipe.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.recipe import Cosine, Recipe, Steps


def test_schedules_follow_their_formulas() -> None:
    steps = Steps(milestones=(2, 4), factor_per_step=0.1)
    assert [steps.compute_factor(epoch, 6) for epoch in range(1, 7)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert Cosine().compute_factor(1, 10) == 1.0
    assert Cosine().compute_factor(6, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))


@pytest.mark.parametrize("epochs", [1, 7, 400])
@pytest.mark.parametrize(("rate", "decay"), [(0.5, 0.1), (0.05, 0.2)])
def test_a_cosine_has_the_rates_of_rank_n_contrast(rate: float, decay: float, epochs: int) -> None:
    # The paper's code: the epoch counts from 1, and the rate ends at its product with the cubed decay.
    lowest = rate * decay**3
    expected = [
        lowest + (rate - lowest) * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(1, epochs + 1)
    ]
    cosine = Cosine(floor=decay**3, position="end")
    found = [rate * cosine.compute_factor(epoch, epochs) for epoch in range(1, epochs + 1)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[-1] == pytest.approx(lowest, rel=1e-12)
    # From the start of each epoch, the rates are those of an epoch earlier.
    earlier = [rate * Cosine(floor=decay**3).compute_factor(epoch, epochs) for epoch in range(1, epochs + 1)]
    assert earlier == pytest.approx([rate, *expected[:-1]], rel=1e-12)


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "least", "expected"),
    [
        (12, 1, 2, 2),
        (12, 2, 2, 4),
        (90, 1, 2, 2),
        (90, 2, 2, 5),
        (8, 2, 4, None),
        (12, 4, 2, None),
        (12, 4, 1, 12),
        (9, 1, 2, 3),
        (7, 1, 2, None),
    ],
)
def test_the_next_accumulation_halves_the_micro_batch_divides_the_batch_and_leaves_the_least_samples(
    batch_size: int, accumulation: int, least: int, expected: int | None
) -> None:
    recipe = Recipe(batch_size=batch_size, accumulation=accumulation, epochs=3)
    assert recipe.find_next_accumulation(least=least) == expected


@pytest.mark.parametrize(("batch_size", "accumulation", "micro"), [(12, 1, 12), (12, 4, 3), (5, 5, 1)])
def test_a_batch_is_cut_into_equal_micro_batches(batch_size: int, accumulation: int, micro: int) -> None:
    assert Recipe(batch_size=batch_size, accumulation=accumulation).micro_batch == micro


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (
            {"batch_size": 10, "accumulation": 4},
            "recipe: batch_size must be a multiple of accumulation; they are 10 and 4",
        ),
        (
            {"batch_size": 2, "accumulation": 4},
            "recipe: batch_size must be a multiple of accumulation; they are 2 and 4",
        ),
        (
            {"schedule": {"name": "cosine", "floor": 1.0}},
            "recipe.schedule.floor: should be less than 1, got 1.0",
        ),
        ({"accumulation": 0}, "recipe.accumulation: should be greater than or equal to 1, got 0"),
        ({"precision": "float16"}, "recipe.precision: should be 'float32', 'bf16' or 'fp16', got 'float16'"),
        ({"compile": "inductor"}, "recipe.compile: must be true or false, got 'inductor'"),
    ],
)
def test_an_invalid_recipe_is_rejected_in_one_sentence(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError) as caught:
        read(Recipe, settings, where="study.yaml", prefix="recipe")
    (fault,) = caught.value.faults
    assert str(fault).startswith(f"study.yaml: {rule}")
