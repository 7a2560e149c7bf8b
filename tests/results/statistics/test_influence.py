"""Influences of samples against the project's own metrics, and against their derivatives by the samples' weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dirtune.metrics import METRICS, compute_metrics
from dirtune.results.statistics.influence import INFLUENCES, compute_influence

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.uniform(0, 10, 40)
PREDICTIONS = 0.7 * LABELS + GENERATOR.normal(0, 2, 40)
# Ties in labels, predictions and bins
TIED = (np.round(LABELS), np.round(PREDICTIONS))
BINS = np.floor(LABELS).astype(int)
SCALAR = [name for name in INFLUENCES if name != "angular_error"]


def repeat(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.repeat(values, counts, axis=0)


@pytest.mark.parametrize("metric", SCALAR)
@pytest.mark.parametrize("pair", [(LABELS, PREDICTIONS), TIED])
def test_the_mean_influence_is_the_metric(metric: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    expected = compute_metrics([metric], *pair, BINS)[metric]

    assert compute_influence(metric, *pair, BINS).mean() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("metric", SCALAR)
@pytest.mark.parametrize("pair", [(LABELS, PREDICTIONS), TIED])
def test_it_is_the_derivative_of_the_metric_by_a_samples_weight(
    metric: str, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    """A sample that is present once more among 2,000 copies of every one has a weight of 1 / 80,001 more."""
    labels, predictions = pair
    copies = 2_000
    influence = compute_influence(metric, labels, predictions, BINS)
    value = compute_metrics([metric], labels, predictions, BINS)[metric]
    for sample in (0, 7, 23):
        counts = np.full(len(labels), copies)
        counts[sample] += 1
        share = 1 / counts.sum()
        moved = compute_metrics([metric], *(repeat(each, counts) for each in (labels, predictions, BINS)))[metric]
        derivative = (moved - value) / share
        # The difference quotient is off by the share, 0.00001, times the curvature.
        assert influence[sample] - value == pytest.approx(derivative, abs=1e-3 * max(1.0, abs(derivative)))


@pytest.mark.parametrize("metric", SCALAR)
def test_labels_of_two_dimensions_are_compared_over_their_elements(metric: str) -> None:
    labels = np.stack([LABELS, LABELS[::-1] + 1], axis=1)
    predictions = np.stack([PREDICTIONS, PREDICTIONS[::-1] - 1], axis=1)

    found = compute_influence(metric, labels, predictions, BINS)

    assert found.shape == (40,)
    assert found.mean() == pytest.approx(compute_metrics([metric], labels, predictions, BINS)[metric], rel=1e-9)


def test_an_angle_is_a_mean_over_samples() -> None:
    labels, predictions = GENERATOR.normal(0, 0.3, (2, 30, 2))

    found = compute_influence("angular_error", labels, predictions)

    assert found.mean() == pytest.approx(compute_metrics(["angular_error"], labels, predictions)["angular_error"])


def test_an_exact_hit_is_replaced_as_in_the_metric() -> None:
    predictions = PREDICTIONS.copy()
    predictions[3] = LABELS[3]

    found = compute_influence("gmean", LABELS, predictions)

    assert found.mean() == pytest.approx(compute_metrics(["gmean"], LABELS, predictions)["gmean"])


@pytest.mark.parametrize("metric", ["r2", "pearson", "spearman"])
def test_undefined_metrics_have_no_influence_and_no_warning(metric: str) -> None:
    constant = np.full(5, 3.0)

    assert np.isnan(compute_influence(metric, constant, PREDICTIONS[:5])).all()
    assert np.isnan(compute_influence("mae", LABELS[:3], [1.0, math.nan, 2.0])).any()


def test_every_metric_that_predictions_have_is_known() -> None:
    assert set(METRICS) - set(INFLUENCES) == {"zero_errors"}
