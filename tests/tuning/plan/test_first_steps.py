"""Run with `pytest tests/tuning/plan/test_first_steps.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, make_epoch_order, select_rows
from dirtune.frozen import read
from dirtune.nested import merge
from dirtune.tuning.plan.first_steps import (
    MOST_ENTRIES,
    compute_change,
    compute_direction_change,
    record_first_step,
    record_first_steps,
    record_smoothed_updates,
)
from tests.training.conftest import SETTINGS


def config(**settings: Any) -> TrialConfig:
    return read(TrialConfig, merge(SETTINGS, settings), where="test")


def by_hand(toy: ResidentData) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the predictor's bias: L1 over the first 64 samples of the seeded order."""
    from dirtune.models.build import build_regressor

    settings = config()
    model = build_regressor(settings.model, toy.manifest.features, 0)
    rows = make_epoch_order(0, 1, 202)[:64]
    split = toy.splits["train"]
    output = model({name: value[rows].float() for name, value in split.inputs.items()})
    loss = (output.predictions - split.labels[rows]).abs().mean()
    loss.backward()
    return float(loss.detach()), model.predictor.bias.grad


def test_the_first_step_has_the_loss_and_the_gradient_of_the_first_batch(toy: ResidentData) -> None:
    loss, gradient = by_hand(toy)
    found = record_first_step(config(), toy)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    kept = found.gradient["predictor.bias (1,)"]
    assert kept.tolist() == pytest.approx([float(gradient), abs(float(gradient))], rel=1e-4)


def test_first_steps_are_reproducible_bit_for_bit(toy: ResidentData) -> None:
    settings = config(terms={"conr": {"omega": 2.0}})
    one, two = (record_first_step(settings, toy) for _ in range(2))
    assert one.loss == two.loss
    assert compute_change(one.gradient, two.gradient) == 0.0
    assert compute_change(one.updates, two.updates) == 0.0


def test_the_update_of_plain_sgd_is_the_gradient_times_the_rate(toy: ResidentData) -> None:
    recipe = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5}
    found = record_first_step(config(recipe=recipe), toy)
    assert set(found.updates) == set(found.gradient)
    for name, update in found.updates.items():
        expected = -0.5 * found.gradient[name][:-1]
        torch.testing.assert_close(update[:-1], expected, rtol=1e-4, atol=1e-6)


def test_every_stage_has_first_steps(toy: ResidentData) -> None:
    rrt = config(scheme={"name": "rrt", "epochs": 2})
    first, second = record_first_steps(rrt, toy, steps=2)
    assert {name.split(".")[0] for name in first.gradient} == {"encoder", "predictor"}
    assert {name.split(".")[0] for name in second.gradient} == {"predictor"}
    assert math.isfinite(second.loss)


def test_parameters_of_the_loss_are_included(toy: ResidentData) -> None:
    found = record_first_step(config(loss={"name": "bmc", "sigma": 1.0}), toy)
    assert any(name.startswith("loss.") for name in found.gradient)


def test_the_change_is_the_distance_over_the_larger_length() -> None:
    one = {"a (2,)": torch.tensor([3.0, 4.0])}
    assert compute_change(one, {"a (2,)": torch.tensor([3.0, 0.0])}) == pytest.approx(4 / 5)
    assert compute_change(one, {}) == 1.0
    assert compute_change({}, {}) == 0.0
    # Nothing and nothing
    assert compute_change({"a": torch.zeros(3)}, {"b": torch.zeros(5)}) == 0.0
    both = {**one, "b (1,)": torch.tensor([12.0])}
    assert compute_change(one, both) == pytest.approx(12 / 13)
    assert math.isnan(compute_change(one, {"a (2,)": torch.tensor([math.nan, 0.0])}))


def test_a_scaled_gradient_has_the_same_direction() -> None:
    one = {"a (2,)": torch.tensor([3.0, 4.0])}
    assert compute_direction_change(one, {"a (2,)": torch.tensor([30.0, 40.0])}) == pytest.approx(0, abs=1e-7)
    assert compute_direction_change(one, {"a (2,)": torch.tensor([4.0, 3.0])}) > 0.1


def test_a_large_tensor_is_summarized_by_some_entries_and_its_norm(toy: ResidentData) -> None:
    wide = config(model={"encoder": {"name": "mlp", "hidden": [2000]}})
    found = record_first_step(wide, toy)
    (largest,) = [values for name, values in found.gradient.items() if "(2000, 6)" in name]
    assert len(largest) <= MOST_ENTRIES + 1
    assert largest[-1] >= largest[:-1].norm()


def test_feature_smoothing_changes_updates_once_it_has_statistics(toy: ResidentData) -> None:
    plain, smoothed = config(), config(reweighting={"fds": {"sigma": 1.0}})
    before, after = (
        compute_change(*(record_smoothed_updates(each, toy, epochs=epochs) for each in (plain, smoothed)))
        for epochs in (2, 3)
    )
    assert before == 0.0
    assert after > 0.0


def test_selected_rows_keep_ids_labels_bins_and_inputs(toy: ResidentData) -> None:
    split = toy.splits["train"]
    found = select_rows(split, torch.tensor([9, 2, 5]))
    assert found.sample_ids == tuple(split.sample_ids[row] for row in (2, 5, 9))
    assert found.labels.tolist() == split.labels[[2, 5, 9]].tolist()
    assert found.label_bins.tolist() == split.label_bins[[2, 5, 9]].tolist()
    assert found.exact_labels.tolist() == split.exact_labels[[2, 5, 9]].tolist()
    assert torch.equal(found.inputs["vector"], split.inputs["vector"][[2, 5, 9]])
