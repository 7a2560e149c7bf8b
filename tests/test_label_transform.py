"""Run with `pytest tests/test_label_transform.py`: labels over orders of magnitude are binned and trained in logarithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.data.label_units import estimate_label_units, resolve_label_units
from dirtune.errors import InputError
from dirtune.label_transform import compute_bin_edges, make_training_spec, restore_labels, transform_labels
from dirtune.manifest import LabelSpec
from dirtune.pipelines.own import choose_label_spec, choose_label_transform
from dirtune.reweighting.density import label_bins, label_density
from dirtune.training import evaluation, loop
from dirtune.training.state import begin_training
from tests.training.conftest import configuration, data_root, toy

__all__ = ["configuration", "data_root", "toy"]


@pytest.mark.parametrize("transform", ["none", "log", "log1p"])
def test_a_label_is_in_the_bin_whose_edges_hold_it(transform: Any) -> None:
    labels = np.random.default_rng(0).lognormal(3, 2, 500)
    if transform == "log1p":
        labels[:200] = 0
    spec = choose_label_spec(labels, where="mine", name="price", unit="EUR", transform=transform)
    assert spec.low <= labels.min()
    assert spec.high >= labels.max()
    edges, bins = compute_bin_edges(spec), label_bins(labels, spec)
    assert edges[0] == pytest.approx(spec.low)
    assert len(edges) == spec.num_bins + 1 < 150
    for label, found in zip(labels, bins, strict=True):
        assert edges[found] * (1 - 1e-6) <= label <= edges[found + 1] * (1 + 1e-6)
    # Of equal width in the transformed label: as differences, as ratios, or as ratios of one more.
    if transform == "none":
        widths = np.diff(edges)
    else:
        ends = edges + (transform == "log1p")
        widths = ends[1:] / ends[:-1]
    assert np.ptp(widths) == pytest.approx(0, abs=1e-6 * widths.max())
    np.testing.assert_allclose(restore_labels(transform_labels(labels, transform), transform), labels, atol=1e-12)


def test_logarithms_are_chosen_for_positive_labels_over_orders_of_magnitude() -> None:
    drawn = np.random.default_rng(0)
    prices = drawn.lognormal(12, 1.5, 1000)
    assert choose_label_transform(prices) == "log"
    # A factor of ten, but evenly filled: logarithms would be skewed.
    assert choose_label_transform(drawn.uniform(1, 100, 1000)) == "none"
    assert choose_label_transform(drawn.normal(500, 60, 1000)) == "none"
    assert choose_label_transform(np.append(prices, 0.0)) == "none"


def test_labels_that_have_no_logarithm_are_refused_and_the_way_out_is_named() -> None:
    def choose(labels: list[float]) -> LabelSpec:
        return choose_label_spec(np.array(labels), where="mine", name="rain", unit="mm", transform="log")

    with pytest.raises(
        InputError, match="log needs labels above 0, and 2 are not; log1p is made for labels that begin"
    ):
        choose([0, 0, 5, 9])
    with pytest.raises(InputError, match="log needs labels above 0, and 1 are not; the lowest is, got -3"):
        choose([-3, 5, 9])


def take_exponentials(data: ResidentData) -> ResidentData:
    """Return the data set with the exponentials of its labels, in bins of their logarithm that hold the same rows."""
    label = data.manifest.label
    spec = label.model_copy(
        update={"low": float(np.exp(label.low)), "high": float(np.exp(label.high)), "transform": "log"}
    )
    splits = {
        name: replace(
            split, exact_labels=np.exp(split.exact_labels), labels=split.labels.double().exp().to(split.labels)
        )
        for name, split in data.splits.items()
    }
    for name, split in splits.items():
        assert label_bins(split.exact_labels, spec).tolist() == data.splits[name].label_bins.tolist()
    return replace(data, manifest=data.manifest.model_copy(update={"label": spec}), splits=splits)


ARMS: dict[str, dict[str, Any]] = {
    "lds, fds and terms": {
        "model": {"projection_dim": 8},
        "reweighting": {"scheme": "sqrt_inverse", "lds": {}, "fds": {"start_update": 0, "start_smooth": 1}},
        "terms": {"conr": {}, "accon": {}, "ranksim": {}, "acconr": {}},
    },
    "dense weight, mixture": {"loss": {"name": "gai", "components": 3}, "reweighting": {"scheme": "dense"}},
    "histogram": {"loss": {"name": "bni"}},
}


@pytest.mark.parametrize("arm", ARMS)
def test_training_on_logarithms_is_the_training_of_labels_that_are_the_logarithms(
    arm: str, toy: ResidentData, configuration: Callable[..., TrialConfig]
) -> None:
    units = {"model": {"label_scale": "auto", "label_offset": "auto"}}
    found = {}
    for transform, data in {"none": toy, "log": take_exponentials(toy)}.items():
        settings = {
            **ARMS[arm],
            "model": {**ARMS[arm].get("model", {}), **units["model"], "label_transform": transform},
        }
        config = resolve_label_units(configuration(**settings), data.manifest)
        training = begin_training(config, data)
        for _ in loop.run_epochs(training):
            pass
        found[transform] = (config, training, evaluation.evaluate(training, "test"))
    (plain, trained, _), (config, logarithmic, evaluated) = found["none"], found["log"]
    # Settings in the label's unit, from the data, are equal numbers: those of the logarithm.
    assert config.model_dump(exclude={"model"}) == plain.model_dump(exclude={"model"})
    assert config.model.get_label_units() == plain.model.get_label_units()
    losses = [[epoch["train/loss"] for epoch in each.history] for each in (trained, logarithmic)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    predicted = evaluation.predict(trained, "test")
    np.testing.assert_allclose(np.log(evaluated.predictions), predicted, rtol=1e-2, atol=1e-2)
    # Metrics are in the label's unit.
    truth = logarithmic.data.splits["test"].exact_labels
    (mae,) = (row["value"] for row in evaluated.metrics if (row["metric"], row["region"]) == ("mae", "all"))
    assert mae == pytest.approx(np.abs(evaluated.predictions - truth).mean())


def test_a_share_of_the_range_is_counted_in_bins_where_bins_are_not_of_the_transformed_label(
    toy: ResidentData, configuration: Callable[..., TrialConfig]
) -> None:
    label = toy.manifest.label.model_copy(update={"low": 1.0, "high": 21.0})
    manifest = toy.manifest.model_copy(update={"label": label})
    left_open = configuration(model={"label_transform": "log", "label_scale": "auto"}, terms={"conr": {}})
    found = resolve_label_units(left_open, manifest)
    assert found.terms.conr.omega == pytest.approx(np.log(21) / label.num_bins, rel=1e-5)
    # From the middles of the bins, roughly
    logs = np.log(np.repeat(1 + 2 * np.arange(10) + 1.0, manifest.train_counts))
    assert found.model.label_scale == pytest.approx((np.quantile(logs, 0.9) - np.quantile(logs, 0.1)) / 2.563, rel=0.3)
    assert make_training_spec(label, "log").label_range == pytest.approx(np.log(21))


def test_units_of_logarithms_are_their_median_and_spread() -> None:
    labels = np.random.default_rng(0).lognormal(5, 0.7, 100_000)
    spec = choose_label_spec(labels, where="mine", name="price", unit="EUR", transform="log")
    counts = label_density(label_bins(labels, spec), spec.num_bins)
    assert estimate_label_units(spec, counts.tolist(), "log") == pytest.approx((5, 0.7), rel=0.02)


def test_what_cannot_be_trained_in_logarithms_is_refused(
    toy: ResidentData, configuration: Callable[..., TrialConfig]
) -> None:
    def resolve(data: ResidentData, **settings: Any) -> None:
        begin_training(resolve_label_units(configuration(**settings), data.manifest), data)

    with pytest.raises(InputError, match="needs labels above 0, but their range begins at 0; log1p is defined at zero"):
        resolve(toy, model={"label_transform": "log"})
    resolve(toy, model={"label_transform": "log1p"})
    with pytest.raises(
        InputError, match="must be none, as that of the label bins, whose centers the loss bni compares"
    ):
        resolve(toy, model={"label_transform": "log1p"}, loss={"name": "bni"})
    axes = tuple(LabelSpec(name=name, unit="m", low=1, high=3, bin_width=1, num_bins=2) for name in "ab")
    grid = toy.manifest.model_copy(update={"label": LabelSpec.grid("position", "m", axes)})
    with pytest.raises(InputError, match="is made for one label of one dimension"):
        resolve_label_units(configuration(model={"label_transform": "log"}), grid)
    with pytest.raises(ValueError, match="one label of one dimension per sample"):
        LabelSpec.model_validate({**grid.label.model_dump(), "transform": "log"})


def test_a_setting_that_is_not_given_changes_no_identity(configuration: Callable[..., TrialConfig]) -> None:
    plain = configuration()
    assert plain.compute_trial_id("data") == configuration(model={"label_transform": "none"}).compute_trial_id("data")
    assert plain.compute_trial_id("data") != configuration(model={"label_transform": "log"}).compute_trial_id("data")
