"""`pytest tests/metrics/test_formulas.py`: each metric against numpy or scipy on plain arrays, and the published values."""

import math

import numpy as np
import pytest
import scipy.stats

from dirtune.diagnostics import DIAGNOSTICS
from dirtune.manifest import LabelSpec, ShotRule
from dirtune.metrics import HIGHER_IS_BETTER, METRICS, sum_errors
from dirtune.metrics.formulas import balanced_mae, gmean, mae, mse, pearson, r2, spearman, zero_errors
from dirtune.reweighting.density import label_bins, label_density, shot_regions
from tests.golden.vectors import load_reweighting

AGE = LabelSpec(name="age", unit="years", low=0.0, high=120.0, bin_width=1.0, num_bins=121)
NO_SAMPLE = np.zeros(0)


def _sample(n=200, seed=0, offset=0.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 30, size=n) / 2 + offset
    return labels, labels + generator.normal(0.3, 2.0, size=n)


def _balanced_mae_by_loops(labels, predictions, bins):
    errors = {}
    for label, prediction, index in zip(labels, predictions, bins, strict=True):
        errors.setdefault(index, []).append(abs(prediction - label))
    return sum(sum(found) / len(found) for found in errors.values()) / len(errors)


REFERENCES = {
    "mae": lambda y, p: np.abs(p - y).mean(),
    "mse": lambda y, p: ((p - y) ** 2).mean(),
    "rmse": lambda y, p: math.sqrt(((p - y) ** 2).mean()),
    "gmean": lambda y, p: scipy.stats.gmean(np.abs(p - y)),
    "zero_errors": lambda y, p: (p == y).sum(),
    "balanced_mae": lambda y, p: _balanced_mae_by_loops(y, p, y),
    "r2": lambda y, p: 1 - ((p - y) ** 2).mean() / y.var(),
    "pearson": lambda y, p: scipy.stats.pearsonr(y, p).statistic,
    "spearman": lambda y, p: scipy.stats.spearmanr(y, p).statistic,
}


def _value(name, labels, predictions):
    metric = METRICS[name]
    return metric(sum_errors(labels, predictions)) if metric else spearman(labels, predictions)


def _merged(shards):
    total = sum_errors(NO_SAMPLE, NO_SAMPLE)
    for labels, predictions in shards:
        total = total + sum_errors(labels, predictions)
    return total


def test_every_metric_has_a_reference():
    assert METRICS.keys() == REFERENCES.keys()


def test_the_metrics_to_maximize_are_metrics_diagnostics_or_those_of_published_depth():
    assert METRICS.keys() & HIGHER_IS_BETTER == {"r2", "pearson", "spearman"}
    assert DIAGNOSTICS.keys() & HIGHER_IS_BETTER == {"tolerance"}
    others = HIGHER_IS_BETTER - METRICS.keys() - DIAGNOSTICS.keys()
    assert others == {"delta1", "delta2", "delta3"}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n", [2, 3, 200])
def test_a_metric_equals_its_reference(name, n):
    labels, predictions = _sample(n)
    expected = REFERENCES[name](labels, predictions)
    assert _value(name, labels, predictions) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric])
@pytest.mark.parametrize("cuts", [[100], [0, 1, 3, 150], [200]])
def test_sums_of_shards_are_the_sums_of_their_union(name, cuts):
    labels, predictions = _sample()
    merged = _merged(zip(np.split(labels, cuts), np.split(predictions, cuts), strict=True))
    whole = sum_errors(labels, predictions)
    assert merged.n == whole.n
    assert METRICS[name](merged) == pytest.approx(METRICS[name](whole), rel=1e-12)


@pytest.mark.parametrize("metric", [pearson, r2])
def test_float32_labels_far_from_zero_lose_no_digits(metric):
    labels, predictions = (x.astype(np.float32) for x in _sample(3000, offset=100_000.0))
    exact = REFERENCES[metric.__name__](labels.astype(np.float64), predictions.astype(np.float64))
    merged = _merged(zip(np.split(labels, 100), np.split(predictions, 100), strict=True))
    assert metric(merged) == pytest.approx(exact, rel=1e-10)
    assert metric(sum_errors(labels, predictions)) == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("name", METRICS)
def test_no_sample_has_no_value(name):
    value = _value(name, NO_SAMPLE, NO_SAMPLE)
    assert value == 0 if name == "zero_errors" else math.isnan(value)


@pytest.mark.parametrize("name", ["r2", "pearson", "spearman"])
def test_one_sample_has_no_correlation(name):
    assert math.isnan(_value(name, [1.0], [2.0]))


@pytest.mark.parametrize("name", ["r2", "pearson", "spearman"])
def test_constant_labels_have_no_correlation(name):
    labels, predictions = np.full(7, 0.1), np.arange(7.0)
    assert math.isnan(_value(name, labels, predictions))
    if METRICS[name]:
        assert math.isnan(METRICS[name](_merged([(labels, predictions), (labels, predictions)])))


def test_constant_predictions_have_an_r2_but_no_correlation():
    labels, predictions = np.arange(7.0), np.full(7, 0.1)
    assert math.isnan(_value("pearson", labels, predictions))
    assert math.isnan(_value("spearman", labels, predictions))
    assert _value("r2", labels, predictions) == pytest.approx(REFERENCES["r2"](labels, predictions))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_prediction_that_is_no_number_spoils_the_value_quietly(value):
    labels, predictions = np.arange(4.0), np.array([0.5, value, 2.5, 3.5])
    assert not math.isfinite(_value("mae", labels, predictions))
    assert not math.isfinite(mse(_merged([(labels, predictions), (labels, labels)])))
    assert math.isnan(_value("pearson", labels, predictions))


def test_zero_errors_are_replaced_by_epsilon_in_the_geometric_mean():
    sums = sum_errors([1.0, 2.0, 3.0], [1.0, 4.0, 7.0])
    assert zero_errors(sums) == 1
    assert gmean(sums) == pytest.approx((1e-10 * 2 * 4) ** (1 / 3), rel=1e-12)
    assert gmean(sums, epsilon=1e-3) == pytest.approx((1e-3 * 2 * 4) ** (1 / 3), rel=1e-12)
    assert gmean(sums, epsilon=0) == 0


def test_epsilon_changes_nothing_where_no_error_is_zero():
    sums = sum_errors([1.0, 2.0], [2.0, 4.0])
    assert gmean(sums) == gmean(sums, epsilon=0) == pytest.approx(math.sqrt(2), rel=1e-12)


def test_balanced_mae_gives_every_bin_the_same_weight():
    sums = sum_errors([0.0, 0.1, 0.2, 9.0], [1.0, 1.1, 1.2, 4.0], bins=[0, 0, 0, 9])
    assert balanced_mae(sums) == pytest.approx((1.0 + 5.0) / 2)
    assert mae(sums) == pytest.approx((1.0 + 1.0 + 1.0 + 5.0) / 4)


@pytest.mark.parametrize(("variant", "predictions"), [("dir", "preds"), ("dir_exact_hits", "preds_with_exact_hits")])
@pytest.mark.parametrize(("region", "theirs"), [("many", "many"), ("medium", "median"), ("few", "low"), ("all", "all")])
def test_agedb_metrics_are_those_of_the_official_code(variant, predictions, region, theirs):
    golden = load_reweighting("metrics_agedb")
    labels, predictions = golden["labels"], golden[predictions]
    counts = label_density(label_bins(golden["train_labels"], AGE), AGE.num_bins)
    regions = shot_regions(counts, ShotRule())[label_bins(labels, AGE)]
    chosen = np.full(len(labels), True) if region == "all" else regions == region
    sums = sum_errors(labels[chosen], predictions[chosen])
    assert mae(sums) == pytest.approx(float(golden[f"{variant}__{theirs}__l1"]), rel=1e-12)
    assert mse(sums) == pytest.approx(float(golden[f"{variant}__{theirs}__mse"]), rel=1e-12)
    expected = float(golden[f"{variant}__{theirs}__gmean"])
    assert gmean(sums, epsilon=0) == pytest.approx(expected, rel=1e-12)
    if variant == "dir":
        balanced = float(golden[f"balanced__{theirs}__l1"])
        assert balanced_mae(sums) == pytest.approx(balanced, rel=1e-12)


def test_arrays_of_different_length_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"got \[\(3,\), \(2,\), \(3,\)\]"):
        sum_errors(np.zeros(3), np.zeros(2))
