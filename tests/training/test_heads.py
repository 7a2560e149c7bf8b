"""Run with `pytest tests/training/test_heads.py`: heads of several outputs in training: their units, rates, rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dirtune.data.cache import ResidentData, ResidentSplit
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.losses.pointwise import L1
from dirtune.manifest import LabelSpec
from dirtune.models.heads import HeadLabels
from dirtune.training.evaluation import predict
from dirtune.training.loop import run_epochs, run_steps
from dirtune.training.state import begin_training
from dirtune.training.task import make_task
from dirtune.training.trial import TrialRun
from tests.training.runs import Configure, finish, in_float64, job_of, tables

NLL = {"loss": {"name": "gaussian_nll"}}


def test_labels_of_a_head_are_those_of_the_histogram_in_the_unit_of_the_loss() -> None:
    label = LabelSpec(name="age", unit="years", low=10, high=16, bin_width=2, num_bins=3)
    found = HeadLabels.from_histogram(label, [2, 0, 2], scale=2.0, offset=12.0)
    np.testing.assert_allclose(found.centers, [5.5, 6.5, 7.5])
    assert (found.mean, found.variance, found.offset) == (6.5, 1.0, 6.0)
    # Labels of one bin are spread over it.
    assert HeadLabels.from_histogram(label, [5, 0, 0]).variance == pytest.approx(2**2 / 12)


def test_other_label_units_give_the_same_head_in_the_unit_of_the_label(
    configuration: Configure, toy: ResidentData
) -> None:
    """With sgd, a scale of 2 and half the rate are another parametrization; the first outputs are equal up to their unit."""
    first = begin_training(configuration(model={"label_scale": 1.0, "label_offset": 4.0}, **NLL), toy)
    other = begin_training(configuration(model={"label_scale": 2.0, "label_offset": 4.0}, **NLL), toy)
    inputs = {"vector": toy.splits["test"].inputs["vector"], "image": toy.splits["test"].inputs["image"]}
    view = toy.splits["test"].transform.apply_evaluation(inputs)
    with torch.no_grad():
        one, two = first.model.eval()(view), other.model.eval()(view)
        torch.testing.assert_close(two.predictions - 4, 2 * (one.predictions - 4))
        # The bias of the scale starts at the deviation of the labels; the weights of its layer are in its unit.
        head = other.model.predictor
        assert float(head.layers["scale"].bias.exp().sqrt()) * 2 == pytest.approx(
            float(first.model.predictor.layers["scale"].bias.exp().sqrt()), rel=1e-5
        )
        deviations = other.model.compute_deviations(two)
        torch.testing.assert_close(deviations, 2 * (two.raw[:, 1] / 2).exp())


def test_the_layers_of_a_head_have_rates_of_their_own(configuration: Configure, toy: ResidentData) -> None:
    settings = {"loss": {"name": "laplace_nll", "scale_rate": 0.1}}
    recipe = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5, "schedule": {"name": "cosine"}}
    training = begin_training(configuration(recipe=recipe, **settings), in_float64(toy))
    training.model.double()
    before = {name: value.detach().clone() for name, value in training.model.named_parameters()}
    next(run_steps(training))
    rate = training.stage.compute_learning_rate(1)
    for name, value in training.model.named_parameters():
        factor = 0.1 if "layers.scale" in name else 1.0
        torch.testing.assert_close(value.detach(), before[name] - factor * rate * value.grad, msg=name)
    # Both follow the schedule.
    list(run_epochs(training))
    rates = sorted(group["lr"] for group in training.optimizer.param_groups)
    assert rates[0] == pytest.approx(0.1 * rates[1])


def test_copies_of_the_label_share_the_loss_and_predict_their_mean(configuration: Configure, toy: ResidentData) -> None:
    training = begin_training(configuration(model={"target_copies": 3}, recipe={"batch_size": 202}), in_float64(toy))
    training.model.double()
    split = toy.splits["train"]
    view = {name: value.double() for name, value in split.transform.apply_evaluation(split.inputs).items()}
    output = training.model(view)
    assert output.raw.shape == (202, 3)
    # The toy settings have a scale of 1 and an offset of 4, which is a part of the raw outputs.
    torch.testing.assert_close(output.predictions, output.raw.mean(dim=1))
    expected = torch.stack([L1()(copy, split.labels.double()) for copy in output.raw.unbind(1)]).mean()
    loss = next(run_steps(training))
    assert float(loss.parts["regression"]) == pytest.approx(float(expected.detach()), rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"target_copies": 3}], ids=["one prediction", "copies"])
def test_a_predictor_output_of_zero_is_the_label_offset(
    settings: dict[str, Any], configuration: Configure, toy: ResidentData
) -> None:
    config = configuration(model={"label_scale": 5.0, "label_offset": 4.0, **settings})
    model = begin_training(config, toy).model
    for parameter in model.predictor.parameters():
        torch.nn.init.zeros_(parameter)
    split = toy.splits["val"]
    assert isinstance(split, ResidentSplit)
    predictions = model(split.transform.apply_evaluation(split.inputs)).predictions
    torch.testing.assert_close(predictions, torch.full((len(split),), 4.0))


def test_a_regressor_with_a_head_learns(configuration: Configure, toy: ResidentData) -> None:
    for loss in ("gaussian_nll", "laplace_nll", "evidential"):
        settings = {"loss": {"name": loss}, "recipe": {"epochs": 20}, "model": {"label_scale": 5.0}}
        training = begin_training(configuration(**settings), toy)
        before = np.abs(predict(training, "test") - toy.splits["test"].exact_labels).mean()
        list(run_epochs(training))
        after = np.abs(predict(training, "test") - toy.splits["test"].exact_labels).mean()
        assert after < 0.8 * before, loss


def test_predicted_deviations_are_recorded_with_their_metrics(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job = job_of(configuration(loss={"name": "laplace_nll"}, recipe={"epochs": 1}), toy)
    trial = finish(TrialRun(job, toy, study))
    assert np.isfinite(trial.values["val/all/nll"])
    found = tables(study)
    rows = [row for row in found["predictions"] if row["split"] == "test"]
    errors = np.array([abs(row["label"] - row["prediction"]) for row in rows])
    scales = np.array([row["deviation"] for row in rows]) / math.sqrt(2)
    recorded = {
        row["metric"]: row["value"]
        for row in found["metrics"]
        if (row["split"], row["selection"], row["region"]) == ("test", "best_val", "all")
    }
    assert recorded["nll"] == pytest.approx(np.mean(errors / scales + np.log(2 * scales)))
    # A central interval of 90 % of a Laplace distribution is ln(10) scales to each side.
    assert recorded["coverage_90"] == pytest.approx(np.mean(errors <= math.log(10) * scales))
    assert {"width_90", "uce", "crps"} <= recorded.keys()


def test_metrics_of_predicted_deviations_select_epochs(configuration: Configure, toy: ResidentData) -> None:
    objective = {"metric": "crps", "region": "few"}
    training = begin_training(configuration(loss={"name": "laplace_nll"}, objective=objective), toy)
    list(run_epochs(training))
    scores = [values["val/few/crps"] for values in training.history]
    assert (training.best_epoch, training.best_objective) == (1 + int(np.argmin(scores)), min(scores))


@pytest.mark.parametrize(
    "settings", [{}, {"loss": {"name": "hca"}}, NLL | {"model": {"label_transform": "log1p", "label_offset": 0.0}}]
)
def test_metrics_of_deviations_select_nothing_where_none_is_predicted(
    configuration: Configure, toy: ResidentData, settings: dict[str, Any]
) -> None:
    config = configuration(objective={"metric": "nll"}, **settings)
    with pytest.raises(InputError, match=r"objective.metric: needs a predicted standard deviation.*gaussian_nll"):
        make_task(toy.manifest).check(config)


def test_nothing_is_selected_by_a_metric_without_a_better_direction(configuration: Configure) -> None:
    for metric in ("coverage_90", "width_90"):
        with pytest.raises(InputError, match=r"objective.metric: is better neither high nor low.*use crps or nll"):
            configuration(objective={"metric": metric}, **NLL)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (NLL | {"model": {"target_copies": 2}}, "model.target_copies is for losses of predictions"),
        (NLL | {"model": {"predictor_output": "relu"}}, "'relu' is for a predictor of one output"),
        (
            {"loss": {"name": "evidential", "regularization": "adaptive"}, "sharpness": {"name": "sam"}},
            "sharpness calls the loss twice in a step, and this loss changes its state with each call",
        ),
        (
            NLL | {"scheme": {"name": "rrt", "epochs": 1, "loss": {"name": "mse"}}},
            "scheme.loss must read the outputs of the loss, the head 'gaussian log_variance'; its own is predictions",
        ),
    ],
)
def test_settings_that_do_not_fit_a_head_are_refused(
    configuration: Configure, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(InputError) as caught:
        configuration(**settings)
    assert [fault in str(each) for each in caught.value.faults] == [True], caught.value.faults


def test_labels_of_several_dimensions_have_no_head(configuration: Configure, toy: ResidentData) -> None:
    axis = toy.manifest.label
    plane = LabelSpec.grid("plane", "m", (axis, axis.model_copy(update={"name": "width"})))
    manifest = toy.manifest.model_copy(update={"label": plane})
    for settings in (NLL, {"model": {"target_copies": 2}}):
        with pytest.raises(InputError, match="is made for labels of one dimension, not 2"):
            make_task(manifest).check(configuration(**settings))
    adaptive = {"loss": {"name": "evidential", "regularization": "adaptive"}, "recipe": {"accumulation": 2}}
    with pytest.raises(InputError, match="needs whole batches"):
        make_task(toy.manifest).check(configuration(**adaptive))
