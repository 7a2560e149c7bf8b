"""Run with `pytest tests/training/test_loop_steps.py`: optimizers, clipping and schedules against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dirtune.data.cache import ResidentData
from dirtune.training.loop import run_epochs
from dirtune.training.state import Training, begin_training
from tests.training.runs import Configure, in_float64, same, weights_of

# One step an epoch
WHOLE = {"batch_size": 1000}


def full_batch_gradient(training: Training, data: ResidentData) -> list[Tensor]:
    """The gradient of the mean absolute error over the whole training split."""
    split, model = data.splits["train"], training.model
    errors = (model(split.inputs).predictions - split.labels).abs()
    return list(torch.autograd.grad(errors.mean(), list(model.parameters())))


class SGD:
    def __init__(self) -> None:
        self.velocities: dict[int, Tensor] = {}

    def __call__(self, at: int, weight: Tensor, gradient: Tensor, step: int) -> Tensor:
        gradient = gradient + 0.1 * weight
        before = self.velocities.get(at, torch.zeros_like(weight))
        self.velocities[at] = 0.8 * before + gradient
        return weight - 0.05 * self.velocities[at]


class Adam:
    """Decay 0.1: into the gradient, or (AdamW) off the weight."""

    def __init__(self, *, is_decoupled: bool) -> None:
        self.is_decoupled = is_decoupled
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, at: int, weight: Tensor, gradient: Tensor, step: int) -> Tensor:
        if self.is_decoupled:
            weight = weight * (1 - 0.05 * 0.1)
        else:
            gradient = gradient + 0.1 * weight
        zero = torch.zeros_like(weight)
        first, second = self.moments.get(at, (zero, zero))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        self.moments[at] = (first, second)
        mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
        return weight - 0.05 * mean / (square.sqrt() + 1e-8)


OPTIMIZERS = {"sgd": SGD, "adam": lambda: Adam(is_decoupled=False), "adamw": lambda: Adam(is_decoupled=True)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_the_steps_of_its_formula(configuration: Configure, toy: ResidentData, name: str) -> None:
    recipe = {**WHOLE, "optimizer": name, "learning_rate": 0.05, "weight_decay": 0.1, "momentum": 0.8, "epochs": 4}
    data = in_float64(toy)
    training, by_hand = begin_training(configuration(recipe=recipe), data), OPTIMIZERS[name]()
    training.model.double()
    expected = [value.detach().clone() for value in training.model.parameters()]
    gradients = full_batch_gradient(training, data)
    for step, _ in enumerate(run_epochs(training), start=1):
        expected = [
            by_hand(at, weight, gradient, step)
            for at, (weight, gradient) in enumerate(zip(expected, gradients, strict=True))
        ]
        torch.testing.assert_close(
            [value.detach() for value in training.model.parameters()], expected, rtol=1e-6, atol=1e-8
        )
        gradients = full_batch_gradient(training, data)


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_gradient_clipping_shortens_the_gradient_of_all_parameters_together(
    configuration: Configure, toy: ResidentData, clip: float
) -> None:
    sgd = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.05, "epochs": 1}
    config = configuration(recipe={**WHOLE, **sgd, "gradient_clip": clip})
    data = in_float64(toy)
    training = begin_training(config, data)
    training.model.double()
    before = [value.detach().clone() for value in training.model.parameters()]
    gradients = full_batch_gradient(training, data)
    list(run_epochs(training))

    after = [value.detach() for value in training.model.parameters()]
    moves = torch.cat([(new - old).flatten() for new, old in zip(after, before, strict=True)])
    gradient = torch.cat([part.flatten() for part in gradients])
    assert 0.01 < gradient.norm() < 1e6
    assert float(moves.norm()) <= 0.05 * clip
    shortened = gradient * min(1.0, clip / float(gradient.norm()))
    # torch divides by the norm plus 1e-6.
    torch.testing.assert_close(moves, -0.05 * shortened, rtol=1e-5, atol=1e-12)


SCHEDULES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": ({"name": "constant"}, [1, 1, 1, 1]),
    "steps": ({"name": "steps", "milestones": [1, 3], "factor_per_step": 0.5}, [1, 0.5, 0.5, 0.25]),
    "cosine": ({"name": "cosine"}, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_sets_the_learning_rate_that_the_history_reports(
    configuration: Configure, toy: ResidentData, name: str
) -> None:
    schedule, factors = SCHEDULES[name]
    recipe = {"schedule": schedule, "epochs": 4, "learning_rate": 0.2}
    training, used = begin_training(configuration(recipe=recipe), toy), []
    for _ in run_epochs(training):
        used.append(training.optimizer.param_groups[0]["lr"])
    reported = [values["learning_rate"] for values in training.history]
    assert reported == used == pytest.approx([0.2 * factor for factor in factors])


def test_weights_rest_once_the_schedule_has_reached_zero(configuration: Configure, toy: ResidentData) -> None:
    schedule = {"name": "steps", "milestones": [1], "factor_per_step": 0.0}
    recipe = {"schedule": schedule, "optimizer": "sgd", "epochs": 3}
    training = begin_training(configuration(recipe=recipe), toy)
    start = weights_of(training)
    after = [weights_of(training) for _ in run_epochs(training)]
    assert not same(start, after[0])
    assert same(after[0], after[1])
    assert same(after[0], after[2])


def smoothed_gradient(training: Training, data: ResidentData) -> list[Tensor]:
    """The gradient of the mean absolute error over the training split where the predictor reads smoothed features."""
    split, model = data.splits["train"], training.model
    model.train()
    errors = (model(split.inputs, split.label_bins).predictions - split.labels).abs()
    return list(torch.autograd.grad(errors.mean(), list(model.parameters())))


def test_smoothed_features_are_those_of_the_samples_own_bins_and_their_statistics_those_of_the_epoch(
    configuration: Configure, toy: ResidentData
) -> None:
    recipe = {**WHOLE, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.05, "epochs": 4}
    config = configuration(recipe=recipe, reweighting={"fds": {"size": 3, "momentum": 0.5}})
    data = in_float64(toy)
    training = begin_training(config, data)
    training.model.double()
    smoothed = smoothed_gradient(training, data)
    plain = [value.detach().clone() for value in training.model.parameters()]
    changed = []
    for _ in run_epochs(training):
        expected = [value - 0.05 * gradient for value, gradient in zip(plain, smoothed, strict=True)]
        after = [value.detach().clone() for value in training.model.parameters()]
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-9)
        assert training.model.smoothing.epochs == training.epoch
        smoothed, plain = smoothed_gradient(training, data), after
        raw = full_batch_gradient(training, data)
        changed.append(not torch.allclose(smoothed[0], raw[0], rtol=1e-3))
    assert changed == [False, True, True, True]


def test_a_view_that_enters_no_regression_loss_is_not_smoothed(configuration: Configure, toy: ResidentData) -> None:
    seen = []
    for regression in ("first", "all"):
        recipe = {**WHOLE, "views": {"count": 3, "regression": regression}}
        config = configuration(recipe=recipe, reweighting={"fds": {"size": 3}})
        training = begin_training(config, toy)
        given: list[Tensor] = []
        training.model.smoothing.register_forward_pre_hook(lambda _, arguments, given=given: given.append(arguments[1]))
        next(run_epochs(training))
        seen.append(given[0].unflatten(0, (3, -1)))
    first, every = seen
    assert torch.equal(first[0], every[0])
    assert torch.equal(every[0], every[1])
    assert torch.equal(every[0], every[2])
    assert (first[1:] == -1).all()
    assert torch.bincount(first[0]).tolist() == [60, 45, 30, 20, 15, 12, 8, 6, 4, 2]
