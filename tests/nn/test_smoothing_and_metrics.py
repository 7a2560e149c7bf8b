"""Run with `pytest tests/nn/test_smoothing_and_metrics.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchmetrics

from dirtune import nn
from dirtune.errors import InputError
from dirtune.nn import region_metrics
from dirtune.nn.region_metrics import RegionMetric, RegionMetrics
from dirtune.reweighting.lds import make_kernel_window

LABELS = torch.tensor([0.0] * 6 + [1.0] * 3 + [2.0, 4.0])


def make_bins() -> nn.LabelBins:
    return nn.LabelBins.from_labels(LABELS, bin_width=1.0, many_above=5, few_below=2)


def make_embeddings() -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1)
    return torch.randn(len(LABELS), 3, generator=drawn) + LABELS[:, None]


def test_fds_moves_embeddings_to_smoothed_statistics_from_the_third_epoch_on() -> None:
    """The moments of each bin, smoothed over the neighbors, by hand."""
    smoothing, e = nn.FDS(3, make_bins(), size=3, sigma=1.0, momentum=0.0), make_embeddings()
    for _ in range(2):
        assert torch.equal(smoothing(e, LABELS), e)
        for part in torch.arange(len(e)).split(4):
            smoothing.observe(e[part], LABELS[part])
        smoothing.end_epoch()
    found = smoothing(e, LABELS)
    assert torch.equal(smoothing.eval()(e, LABELS), e)

    values, y = e.double().numpy(), LABELS.numpy()
    # Bins without samples have mean 0 and variance 1 at the start.
    moments = np.stack([np.zeros((5, 3)), np.ones((5, 3))])
    for b in range(5):
        rows = values[y == b]
        if len(rows):
            moments[0, b] = rows.mean(axis=0)
            moments[1, b] = rows.var(axis=0, ddof=1) if len(rows) > 1 else 0.0
    kernel = make_kernel_window("gaussian", 3, 1.0)
    kernel = kernel / kernel.sum()
    mirrored = np.pad(moments, ((0, 0), (1, 1), (0, 0)), mode="reflect")
    smooth = sum(k * mirrored[:, i : i + 5] for i, k in enumerate(kernel))
    expected = values.copy()
    for row, b in enumerate(y.astype(int)):
        if moments[1, b].sum() < 1e-10:
            continue
        ratio = np.clip(smooth[1, b] / moments[1, b], 0.1, 10.0)
        expected[row] = (values[row] - moments[0, b]) * np.sqrt(ratio) + smooth[0, b]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_settings_of_fds_are_checked_as_in_a_study() -> None:
    with pytest.raises(InputError, match="FDS: size: must be odd"):
        nn.FDS(3, make_bins(), size=4)
    with pytest.raises(InputError, match="half the window must be narrower than the 5 label bins"):
        nn.FDS(3, make_bins(), size=11)
    with pytest.raises(InputError, match="FDS: has statistics of the training set: pass its embeddings to `observe`"):
        nn.FDS(3, make_bins(), size=3).end_epoch()


def expected_errors(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    regions = {"all": labels > -1, "many": labels == 0, "medium": labels == 1, "few": labels >= 2}
    return {
        name: float(np.abs(predictions - labels)[rows].mean()) if rows.any() else math.nan
        for name, rows in regions.items()
    }


@pytest.mark.parametrize("is_installed", [True, False])
def test_region_metrics_add_up_over_batches(is_installed: bool) -> None:
    kinds = (RegionMetrics, RegionMetric) if is_installed else without_torchmetrics()
    assert issubclass(kinds[0], torchmetrics.Metric) == is_installed
    metrics, few = kinds[0](make_bins(), metrics=("mae", "rmse")), kinds[1](make_bins(), "mae", "few")
    drawn = torch.Generator().manual_seed(2)
    labels = LABELS.clone()
    predictions = labels + torch.randn(len(labels), generator=drawn)
    for part in torch.arange(len(labels)).split(4):
        metrics.update(predictions[part], labels[part])
        of_batch = few(predictions[part], labels[part])
        expected = expected_errors(predictions[part].double().numpy(), labels[part].numpy())["few"]
        assert float(of_batch) == pytest.approx(expected, nan_ok=True)
    found, expected_all = metrics.compute(), expected_errors(predictions.double().numpy(), labels.numpy())
    for region, value in expected_all.items():
        assert float(found[f"{region}/mae"]) == pytest.approx(value)
    assert float(found["all/rmse"]) == pytest.approx(float((predictions - labels).square().mean().sqrt()), rel=1e-5)
    assert float(few.compute()) == pytest.approx(expected_all["few"])
    metrics.reset()
    metrics.update(predictions[:3], labels[:3])
    assert math.isnan(metrics.compute()["few/mae"])
    assert float(metrics.compute()["many/mae"]) == pytest.approx(
        expected_errors(predictions[:3].double().numpy(), labels[:3].numpy())["many"]
    )


def without_torchmetrics() -> tuple[type, type]:
    """Return the classes as they are where torchmetrics is not installed."""
    import importlib.util
    import sys

    hidden = sys.modules.get("torchmetrics")
    sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    try:
        spec = importlib.util.spec_from_file_location("plain_region_metrics", region_metrics.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.modules["torchmetrics"] = hidden  # type: ignore[assignment]
    return module.RegionMetrics, module.RegionMetric


def test_a_collection_holds_region_metrics() -> None:
    both = torchmetrics.MetricCollection(
        {"few": RegionMetric(make_bins()), "all": RegionMetric(make_bins(), region="all")}
    )
    both.update(LABELS + 0.5, LABELS)
    assert {name: float(value) for name, value in both.compute().items()} == pytest.approx({"few": 0.5, "all": 0.5})
    assert RegionMetric(make_bins(), "pearson").higher_is_better
    with pytest.raises(InputError, match="unknown metric, got 'mea'"):
        RegionMetric(make_bins(), "mea")
    with pytest.raises(ValueError, match=r"must have one shape \(rows,\), got \(2, 1\) and \(2,\)"):
        RegionMetrics(make_bins()).update(torch.zeros(2, 1), torch.zeros(2))
