"""Run with `pytest tests/data/test_shot_rule.py`: shot regions of own data."""

from __future__ import annotations

import numpy as np
import pytest

from dirtune.data.shot_rule import fit_shot_rule
from dirtune.reweighting.density import shot_regions


def split_balanced(labels: np.ndarray, bins: int, per_bin: int) -> tuple[np.ndarray, np.ndarray]:
    """Return counts of training and test labels, of which the test has up to `per_bin` and a third of each bin."""
    counts = np.bincount(np.clip(labels, 0, bins - 1).astype(int), minlength=bins)
    test = np.minimum(counts // 3, per_bin)
    return counts - test, test


@pytest.mark.parametrize("rows", [300, 1000, 20_000])
@pytest.mark.parametrize("shape", ["normal", "exponential", "uniform", "bimodal"])
def test_every_region_has_a_third_of_the_test_samples_and_rarer_regions_have_rarer_labels(
    shape: str, rows: int
) -> None:
    drawn = np.random.default_rng(rows)
    labels = {
        "normal": lambda: drawn.normal(50, 15, rows),
        "exponential": lambda: drawn.exponential(15, rows),
        "uniform": lambda: drawn.uniform(0, 100, rows),
        "bimodal": lambda: np.where(drawn.random(rows) < 0.8, drawn.normal(30, 6, rows), drawn.normal(75, 8, rows)),
    }[shape]()
    train, test = split_balanced(labels, 100, max(1, rows // 500))
    rule = fit_shot_rule(train.tolist(), test.tolist())
    assert rule is not None
    regions = shot_regions(train, rule)
    shares = {name: test[regions == name].sum() / test.sum() for name in ("many", "medium", "few")}
    assert all(share > 0.2 for share in shares.values()), shares
    density = {name: train[regions == name].mean() for name in shares}
    assert density["many"] > density["medium"] > density["few"]


def test_regions_of_a_normal_label_are_its_center_and_its_tails() -> None:
    labels = np.random.default_rng(0).normal(50, 15, 20_000)
    train, test = split_balanced(labels, 100, 20)
    rule = fit_shot_rule(train.tolist(), test.tolist())
    assert rule is not None
    regions = shot_regions(train, rule)
    assert set(regions[45:56]) == {"many"}
    assert set(regions[:10]) == set(regions[90:]) == {"few"}
    # One piece of many, two of medium: counts of single bins would cut more.
    assert np.count_nonzero(regions[1:] != regions[:-1]) == 4


def test_a_spike_is_a_region_of_its_own() -> None:
    labels = np.concatenate([np.zeros(700), np.random.default_rng(0).exponential(30, 300)])
    train, test = split_balanced(labels, 100, 5)
    rule = fit_shot_rule(train.tolist(), test.tolist())
    assert rule is not None
    regions = shot_regions(train, rule)
    assert regions[0] == "many"
    assert {name for name, count in zip(regions, test, strict=True) if count} == {"many", "medium", "few"}


@pytest.mark.parametrize("test", [[0, 0, 0, 0], [3, 0, 0, 4]])
def test_fewer_than_three_tested_bins_have_no_regions(test: list[int]) -> None:
    assert fit_shot_rule([5, 6, 7, 8], test) is None
