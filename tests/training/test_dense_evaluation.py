"""Run with `pytest tests/training/test_dense_evaluation.py`; whole evaluations: `test_task`."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dirtune.data.cache import ResidentData
from dirtune.metrics import (
    DENSE_METRICS,
    ERROR_SUMS,
    EXTRA_METRICS,
    METRICS,
    PixelSums,
    RegionMetric,
    compute_pixel_metrics,
    sum_errors,
)
from dirtune.training import dense_evaluation
from dirtune.training.dense_evaluation import evaluate_dense, sum_pixels
from dirtune.training.distributed import Ranks
from tests.pretended_cuda import CUDA, HOST, pretended_cuda
from tests.training.toy_inputs import ROWS, make_data

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


def _sum(labels, predictions, bins) -> PixelSums:
    sums = sum_pixels(*map(torch.from_numpy, (labels, predictions, bins)), 6, OWN)
    return PixelSums((*ERROR_SUMS, *OWN), sums.numpy())


def _by_region(labels, predictions, bins):
    of_pixels = REGIONS[bins]
    for region in ("all", "many", "medium", "few"):
        chosen = np.full(len(bins), True) if region == "all" else of_pixels == region
        yield region, labels[chosen], predictions[chosen], bins[chosen]


def test_every_metric_is_that_of_the_pixels_themselves():
    labels, predictions, bins = _pixels()
    rows = compute_pixel_metrics(_sum(labels, predictions, bins), REGIONS)
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


def test_pixels_without_a_bin_do_not_count_and_the_sums_of_parts_add_up():
    labels, predictions, bins = _pixels()
    expected = _sum(labels[60:], predictions[60:], bins[60:]).table
    # An unlabeled pixel has a label of zero, by which depth metrics divide.
    labels[:60], bins[:60] = 0.0, -1
    found = sum(
        _sum(*(each[part] for each in (labels, predictions, bins))).table for part in np.split(np.arange(400), 4)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_region_without_pixels_has_rows_without_values():
    names = (*ERROR_SUMS, *OWN)
    rows = compute_pixel_metrics(PixelSums(names, np.zeros((len(names), 6))), REGIONS)
    assert all(row["n"] == 0 for row in rows)
    zeros = {row["metric"] for row in rows if row["value"] == 0}
    assert zeros == {"zero_errors"}
    assert all(math.isnan(row["value"]) for row in rows if row["metric"] != "zero_errors")


def test_a_prediction_that_is_no_number_spoils_its_regions_quietly():
    labels, predictions, bins = _pixels()
    predictions[bins.argmin()] = np.nan
    rows = compute_pixel_metrics(_sum(labels, predictions, bins), REGIONS)
    rmse = {row["region"]: row["value"] for row in rows if row["metric"] == "rmse"}
    assert [math.isnan(rmse[each]) for each in ("all", "many", "medium", "few")] == [True, True, False, False]


class _Brightness(torch.nn.Module):
    """A dense regressor without parameters: the image itself, at half of its size."""

    def forward(self, view: dict[str, torch.Tensor]) -> Any:
        return SimpleNamespace(predictions=30 * view["image"].mean(dim=1)[:, ::2, ::2])


def _evaluate(data: ResidentData) -> tuple[np.typing.NDArray[np.float64], list[RegionMetric]]:
    manifest = data.manifest.model_copy(update={"metrics": OWN})
    return evaluate_dense(_Brightness(), data.splits["val"], Ranks(), manifest, np.array(["many", "few"] * 5))


@pytest.mark.parametrize("batch_rows", [ROWS["val"], 3, 1])
def test_an_evaluation_waits_for_a_gpu_three_times_for_any_number_of_batches(
    monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    means, rows = _evaluate(make_data("dense", HOST))
    monkeypatch.setattr(dense_evaluation, "DENSE_EVALUATION_ROWS", batch_rows)
    with pretended_cuda(monkeypatch) as device:
        data = make_data("dense", CUDA)
        with device.watch() as waits:
            found_means, found = _evaluate(data)
    # The positions of all rows to the device; means and sums to the host
    assert [wait.operation for wait in waits] == ["copy to the device", "copy to the host", "copy to the host"]
    np.testing.assert_allclose(found_means, means, rtol=1e-6)
    for ours, expected in zip(found, rows, strict=True):
        assert ours == {**expected, "value": pytest.approx(expected["value"], rel=1e-5, nan_ok=True)}
