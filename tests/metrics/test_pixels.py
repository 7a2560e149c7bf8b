"""Run with `pytest tests/metrics/test_pixels.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dirtune.metrics import (
    DENSE_METRICS,
    EXTRA_METRICS,
    METRICS,
    compute_pixel_metrics,
    make_empty_pixel_sums,
    sum_errors,
    sum_pixels,
)

OWN = ("abs_rel", "log10", "delta1", "delta2", "delta3")
REGIONS = np.array(["many", "many", "medium", "few", "few", "few"])


def _pixels(n: int = 400):
    drawn = np.random.default_rng(0)
    # None in the last bin
    bins = drawn.integers(0, 5, n)
    labels = bins + drawn.uniform(0.1, 1.0, n)
    predictions = labels + drawn.normal(0, 1, n)
    predictions[:7] = labels[:7]
    predictions[7:12] = -0.5
    return labels, predictions, bins


def _by_region(labels, predictions, bins):
    of_pixels = REGIONS[bins]
    for region in ("all", "many", "medium", "few"):
        chosen = np.full(len(bins), True) if region == "all" else of_pixels == region
        yield region, labels[chosen], predictions[chosen], bins[chosen]


def test_every_metric_is_that_of_the_pixels_themselves():
    labels, predictions, bins = _pixels()
    rows = compute_pixel_metrics(sum_pixels(labels, predictions, bins, 6, OWN), REGIONS)
    values = {(row["region"], row["metric"]): row for row in rows}
    assert len(values) == 4 * (len(DENSE_METRICS) + len(OWN))
    for region, truth, predicted, of_bins in _by_region(labels, predictions, bins):
        whole = sum_errors(truth, predicted, of_bins)
        for name in DENSE_METRICS:
            row = values[region, name]
            assert row["value"] == pytest.approx(METRICS[name](whole), rel=1e-12), (region, name)
            assert row["n"] == len(truth)
        for name in OWN:
            expected = EXTRA_METRICS[name](truth, predicted)
            assert values[region, name]["value"] == pytest.approx(expected, rel=1e-12), name


def test_the_sums_of_parts_add_up():
    labels, predictions, bins = _pixels()
    whole = sum_pixels(labels, predictions, bins, 6, OWN)
    parts = make_empty_pixel_sums(6, OWN)
    for part in (slice(0, 13), slice(13, 200), slice(200, None)):
        parts += sum_pixels(labels[part], predictions[part], bins[part], 6, OWN)
    np.testing.assert_allclose(parts.table, whole.table, rtol=1e-12)
    assert parts.names == whole.names


def test_a_region_without_pixels_has_rows_without_values():
    rows = compute_pixel_metrics(make_empty_pixel_sums(6, OWN), REGIONS)
    assert all(row["n"] == 0 for row in rows)
    zeros = {row["metric"] for row in rows if row["value"] == 0}
    assert zeros == {"zero_errors"}
    assert all(math.isnan(row["value"]) for row in rows if row["metric"] != "zero_errors")


def test_a_prediction_that_is_no_number_spoils_its_regions_quietly():
    labels, predictions, bins = _pixels()
    predictions[bins.argmin()] = np.nan
    rows = compute_pixel_metrics(sum_pixels(labels, predictions, bins, 6, OWN), REGIONS)
    rmse = {row["region"]: row["value"] for row in rows if row["metric"] == "rmse"}
    assert [math.isnan(rmse[each]) for each in ("all", "many", "medium", "few")] == [True, True, False, False]
