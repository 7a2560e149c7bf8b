"""`pytest tests/reweighting/test_denseweight.py`: DenseWeight against its formula as loops and scipy's kernel density."""

from math import exp, pi, sqrt

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from dirtune.reweighting import Reweighting
from dirtune.reweighting.denseweight import compute_dense_weights, estimate_density

LABELS = {
    "normal": np.random.default_rng(0).normal(40, 15, size=200),
    "whole": np.random.default_rng(1).normal(40, 15, size=200).round(),
    "skewed": np.random.default_rng(2).lognormal(0, 2, size=200),
    "two": np.array([0.0, 0.0, 1.0]),
    "outlier": np.append(np.random.default_rng(3).normal(0, 1, size=200), 1e4),
}
every_kind_of_labels = pytest.mark.parametrize(
    "labels", [pytest.param(values, id=name) for name, values in LABELS.items()]
)


def _density_by_loops(labels):
    mean = sum(labels) / len(labels)
    deviation = sqrt(sum((y - mean) ** 2 for y in labels) / len(labels))
    bandwidth = 1.06 * deviation * len(labels) ** (-1 / 5)
    kernel = [[exp(-(((y - x) / bandwidth) ** 2) / 2) for x in labels] for y in labels]
    return [sum(row) / (len(labels) * bandwidth * sqrt(2 * pi)) for row in kernel]


def _weights_by_loops(labels, alpha):
    density = _density_by_loops(labels)
    low, high = min(density), max(density)
    weights = [max(1 - alpha * (p - low) / (high - low), 1e-6) for p in density]
    return [weight * len(labels) / sum(weights) for weight in weights]


@every_kind_of_labels
def test_the_density_equals_its_formula_written_as_loops(labels):
    expected = np.array(_density_by_loops(labels.tolist()))
    np.testing.assert_allclose(estimate_density(labels), expected, rtol=0, atol=1e-5 * expected.max())


def test_the_density_is_that_of_scipy_at_the_same_bandwidth():
    labels = LABELS["normal"]
    scipys = gaussian_kde(labels)
    # scipy's factor is relative to the deviation of a sample, Silverman's rule here to that of the population
    scipys.set_bandwidth(1.06 * len(labels) ** -0.2 * labels.std() / labels.std(ddof=1))
    expected = scipys(labels)
    np.testing.assert_allclose(estimate_density(labels), expected, rtol=0, atol=1e-5 * expected.max())


@every_kind_of_labels
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_weights_equal_their_formula_written_as_loops(labels, alpha):
    expected = np.array(_weights_by_loops(labels.tolist(), alpha))
    weights = Reweighting(scheme="dense", alpha=alpha).compute_weights(np.zeros(1, int), 1, labels=labels)
    # Before the division by the mean, which an outlier makes tiny.
    np.testing.assert_allclose(weights / weights.max(), expected / expected.max(), rtol=0, atol=2e-5)
    assert weights.mean() == pytest.approx(1.0, rel=1e-12)


def test_the_rarest_label_weighs_most_and_the_densest_epsilon():
    labels = LABELS["normal"]
    weights, density = compute_dense_weights(labels, alpha=1.0), estimate_density(labels)
    assert weights.argmax() == density.argmin()
    assert weights.argmin() == density.argmax()
    assert weights.min() / weights.max() == pytest.approx(1e-6)


def test_without_alpha_every_weight_is_one():
    assert compute_dense_weights(LABELS["normal"], alpha=0.0).tolist() == [1.0] * 200


@pytest.mark.parametrize("labels", [[0.1], [0.1] * 7, [0.3, 0.7]])
def test_labels_of_one_density_weigh_one(labels):
    assert compute_dense_weights(np.array(labels), alpha=1.0).tolist() == [1.0] * len(labels)


def test_the_unit_and_the_zero_of_the_labels_have_no_effect():
    labels = LABELS["skewed"]
    weights = compute_dense_weights(labels, alpha=1.0)
    np.testing.assert_allclose(compute_dense_weights(1e-3 * labels - 7, alpha=1.0), weights, rtol=1e-6)
