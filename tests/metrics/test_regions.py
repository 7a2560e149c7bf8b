"""`pytest tests/metrics/test_regions.py`: metrics by shot region, of labels of one dimension and of several."""

import math

import numpy as np
import pytest
import scipy.stats

from dirtune.manifest import LabelSpec
from dirtune.metrics import METRICS, REGIONS, angular_error, compute_metrics, compute_region_metrics
from dirtune.reweighting.density import label_bins
from tests.golden.vectors import load_reweighting

SCORE = LabelSpec(name="score", unit="points", low=0.0, high=5.0, bin_width=0.1, num_bins=50)


def test_arrays_of_different_length_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(n, L\), but got \[\(3,\), \(2,\)\]"):
        compute_region_metrics(np.zeros(3), np.zeros(2), np.full(3, "many"))
    with pytest.raises(ValueError, match=r"\(n, L\), but got \[\(3, 2\), \(3,\)\]"):
        compute_region_metrics(np.zeros((3, 2)), np.zeros(3), np.full(3, "many"))
    with pytest.raises(ValueError, match=r"regions must be one per label, but got \(2,\)"):
        compute_region_metrics(np.zeros(3), np.zeros(3), np.array(["many", "few"]))


def test_regions_have_their_own_samples_and_empty_ones_their_rows():
    labels, predictions = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 5.0])
    rows = compute_region_metrics(labels, predictions, np.array(["many", "many", "few"]))
    assert [(row["region"], row["metric"]) for row in rows] == [
        (region, metric) for region in REGIONS for metric in METRICS
    ]
    found = {(row["region"], row["metric"]): (row["value"], row["n"]) for row in rows}
    assert found["all", "mae"] == (pytest.approx(2.5 / 3), 3)
    assert found["many", "mae"] == (0.25, 2)
    assert found["few", "mae"] == (2.0, 1)
    assert found["medium", "mae"] == (pytest.approx(math.nan, nan_ok=True), 0)
    assert found["many", "zero_errors"] == (1.0, 2)


def test_regions_balance_over_the_given_bins():
    labels, predictions = np.array([0.1, 0.2, 1.5]), np.array([1.1, 2.2, 1.5])
    regions = np.array(["many", "many", "many"])
    rows = compute_region_metrics(labels, predictions, regions, bins=[0, 0, 1])
    values = {row["metric"]: row["value"] for row in rows if row["region"] == "many"}
    assert values["balanced_mae"] == pytest.approx(0.75)


@pytest.mark.parametrize(("variant", "predictions"), [("plain", "preds_unit"), ("exact_hits", "preds_unit_exact_hits")])
def test_sts_b_metrics_are_those_of_the_official_code(variant, predictions):
    golden = load_reweighting("metrics_stsb")
    regions = np.array(["many", "medium", "few"])[golden["shot_code_per_sample"]]
    bins = label_bins(golden["labels"], SCORE)
    assert bins.tolist() == golden["bin_idx"].tolist()
    rows = compute_region_metrics(golden["labels"], golden[predictions] * 5, regions, bins=bins)
    values = {(row["region"], row["metric"]): row["value"] for row in rows}
    theirs = {"mae": "l1", "mse": "mse", "gmean": "gmean", "pearson": "pearsonr", "spearman": "spearmanr"}
    for region in REGIONS:
        prefix = f"{variant}__{'overall' if region == 'all' else region}"
        for metric, name in theirs.items():
            expected = float(golden[f"{prefix}__{name}"])
            assert values[region, metric] == pytest.approx(expected, rel=1e-12), (region, metric)
        sizes = {row["n"] for row in rows if row["region"] == region}
        assert sizes == {int(golden[f"{prefix}__num_samples"])}


# --- Labels of several dimensions


def _gazes(n=150, seed=0):
    """Labels and predictions `(n, 2)` in radians, and a cell for each; some components are predicted exactly."""
    drawn = np.random.default_rng(seed)
    cells = drawn.integers(0, 5, n)
    labels = drawn.normal(0, 0.3, (n, 2)) + cells[:, None] / 10
    predictions = labels + drawn.normal(0.05, 0.2, (n, 2)) * [1.0, 3.0]
    predictions[:4, 1] = labels[:4, 1]
    return labels, predictions, cells


def _balanced_by_loops(errors, cells):
    means = []
    for cell in sorted(set(cells.tolist())):
        found = [value for row, at in zip(errors.tolist(), cells.tolist(), strict=True) if at == cell for value in row]
        means.append(sum(found) / len(found))
    return sum(means) / len(means)


def _expected(labels, predictions, cells):
    """Each metric by numpy, over all numbers or as the mean over the two dimensions."""
    errors = np.abs(predictions - labels)
    pairs = list(zip(labels.T, predictions.T, strict=True))
    return {
        "mae": errors.mean(),
        "mse": np.square(errors).mean(),
        "rmse": math.sqrt(np.square(errors).mean()),
        "gmean": math.exp(np.log(np.where(errors == 0, 1e-10, errors)).mean()),
        "zero_errors": np.count_nonzero(errors == 0),
        "balanced_mae": _balanced_by_loops(errors, cells),
        "r2": np.mean([1 - np.square(p - y).mean() / y.var() for y, p in pairs]),
        "pearson": np.mean([scipy.stats.pearsonr(y, p).statistic for y, p in pairs]),
        "spearman": np.mean([scipy.stats.spearmanr(y, p).statistic for y, p in pairs]),
    }


def test_metrics_of_two_dimensions_are_those_over_elements_and_correlations_are_averaged():
    labels, predictions, cells = _gazes()
    regions = np.where(cells < 2, "many", "few")
    rows = compute_region_metrics(labels, predictions, regions, bins=cells)
    found = {(row["region"], row["metric"]): (row["value"], row["n"]) for row in rows}
    assert len(found) == len(rows) == 4 * len(METRICS)
    for region, chosen in {"all": cells < 9, "many": cells < 2, "few": cells >= 2}.items():
        expected = _expected(labels[chosen], predictions[chosen], cells[chosen])
        assert expected.keys() == METRICS.keys()
        for name, value in expected.items():
            assert found[region, name] == (pytest.approx(value, rel=1e-12), chosen.sum()), name
    assert {n for (region, _), (_, n) in found.items() if region == "medium"} == {0}
    assert math.isnan(found["medium", "mae"][0])


def test_the_sets_own_metrics_are_computed_by_region_after_the_others():
    labels, predictions, cells = _gazes()
    regions = np.where(cells < 2, "many", "few")
    rows = compute_region_metrics(labels, predictions, regions, bins=cells, extra=["angular_error"])
    assert [row["metric"] for row in rows[: len(METRICS) + 1]] == [*METRICS, "angular_error"]
    values = {row["region"]: row["value"] for row in rows if row["metric"] == "angular_error"}
    for region in ("many", "few"):
        chosen = regions == region
        assert values[region] == angular_error(labels[chosen], predictions[chosen])
    assert math.isnan(values["medium"])


def test_a_dimension_without_spread_has_no_correlation_and_so_has_the_label():
    labels, predictions, _ = _gazes()
    labels[:, 1] = 0.25
    values = compute_metrics(["mae", "pearson", "r2"], labels, predictions)
    assert math.isnan(values["pearson"])
    assert math.isnan(values["r2"])
    assert values["mae"] == pytest.approx(np.abs(predictions - labels).mean())


def test_metrics_can_be_computed_one_by_one():
    labels, predictions, cells = _gazes()
    rows = compute_region_metrics(labels, predictions, np.full(len(cells), "many"), bins=cells)
    whole = {row["metric"]: row["value"] for row in rows if row["region"] == "all"}
    for name in METRICS:
        assert compute_metrics([name], labels, predictions, cells) == {name: whole[name]}
