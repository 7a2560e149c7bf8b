"""Run with `pytest tests/training/test_fitted.py`: losses and terms with a state of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dirtune.data.cache import ResidentData
from dirtune.io.storage import Storage
from dirtune.training.checkpoint import load_checkpoint, save_checkpoint
from dirtune.training.loop import run_epochs
from dirtune.training.state import Training, begin_training
from tests.training.fitted import CENTER_RATE, SIGMA_RATE, Flat, with_state
from tests.training.runs import Configure, in_float64, same, trained, weights_of

# One step an epoch
WHOLE = {"batch_size": 1000}
PLAIN_SGD = {**WHOLE, "optimizer": "sgd", "momentum": 0.0}
SCALE = 5.0


def begun(configuration: Configure, toy: ResidentData, **recipe: Any) -> Training:
    config = configuration(recipe=recipe, model={"label_scale": SCALE}, reweighting={"scheme": "sqrt_inverse"})
    training = begin_training(with_state(config), in_float64(toy))
    training.model.double()
    return training


def learned(training: Training) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in training.loss.named_parameters()}


def loss_by_hand(training: Training, sigma: Tensor, centers: Tensor, sample_weights: Tensor) -> Tensor:
    """The total over the whole training split, from its formula."""
    split = training.data.splits["train"]
    output = training.model(split.inputs)
    errors = ((output.predictions - split.labels) / SCALE) ** 2
    regression = (sample_weights * (errors / (2 * sigma**2) + sigma.log())).mean()
    return regression + 0.1 * ((output.embeddings - centers[:, None]) ** 2).mean()


def sample_weights_of(training: Training) -> Tensor:
    bins = training.data.splits["train"].label_bins
    weights = 1 / torch.bincount(bins)[bins].double().sqrt()
    return (weights / weights.mean()).float()


def test_fitted_losses_start_from_the_training_labels(configuration: Configure, toy: ResidentData) -> None:
    values = learned(begun(configuration, toy))
    assert values.keys() == {"fitted.regression.sigma", "fitted.center.centers"}
    deviation = toy.splits["train"].labels.std() / SCALE
    assert values["fitted.regression.sigma"].item() == pytest.approx(deviation.item())
    assert values["fitted.center.centers"].shape == (202,)


def test_learned_values_take_steps_of_their_own_rate_without_decay_clipping_and_schedule(
    configuration: Configure, toy: ResidentData
) -> None:
    schedule = {"name": "steps", "milestones": [1], "factor_per_step": 0.0}
    training = begun(
        configuration, toy, **PLAIN_SGD, schedule=schedule, weight_decay=0.3, gradient_clip=1e-3, learning_rate=0.05
    )
    sample_weights, start = sample_weights_of(training), weights_of(training)
    expected, after = learned(training), []
    names = ["fitted.regression.sigma", "fitted.center.centers"]
    for _ in range(3):
        leaves = [expected[name].clone().requires_grad_() for name in names]
        total = loss_by_hand(training, *leaves, sample_weights)
        gradients = torch.autograd.grad(total, leaves)
        assert all(gradient.norm() > 1e-3 for gradient in gradients)
        next(run_epochs(training))
        after.append(weights_of(training))
        assert training.history[-1]["train/loss"] == pytest.approx(total.item(), rel=1e-6)
        expected = {
            name: leaf.detach() - rate * gradient
            for name, leaf, gradient, rate in zip(names, leaves, gradients, (SIGMA_RATE, CENTER_RATE), strict=True)
        }
        torch.testing.assert_close(learned(training), expected, rtol=1e-6, atol=1e-9)
        sigma = training.history[-1]["train/regression/sigma"]
        assert sigma == pytest.approx(float(expected[names[0]]), rel=1e-6)
    assert not same(start, after[0])
    # The schedule has reached zero: the model rests
    assert same(after[0], after[1])
    assert same(after[0], after[2])


def test_gradient_clipping_excludes_the_parameters_of_the_loss(configuration: Configure, toy: ResidentData) -> None:
    training = begun(configuration, toy, **PLAIN_SGD, learning_rate=0.05, gradient_clip=0.01)
    leaves = list(training.model.parameters())
    centers, sigma = (value.detach() for value in reversed(learned(training).values()))
    total = loss_by_hand(training, sigma, centers, sample_weights_of(training))
    gradients = torch.autograd.grad(total, leaves)
    before = [leaf.detach().clone() for leaf in leaves]
    next(run_epochs(training))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > 0.01
    expected = [leaf - 0.05 * 0.01 / (norm + 1e-6) * gradient for leaf, gradient in zip(before, gradients, strict=True)]
    torch.testing.assert_close([leaf.detach() for leaf in leaves], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_run_with_learned_losses_continues_bitwise_from_its_checkpoint(
    configuration: Configure, toy: ResidentData, tmp_path: Path, optimizer: str
) -> None:
    config = with_state(configuration(recipe={"optimizer": optimizer, "weight_decay": 0.1}))
    whole = trained(config, toy)
    for stop in (1, 2):
        first = begin_training(config, toy)
        for _, _ in zip(range(stop), run_epochs(first), strict=False):
            pass
        save_checkpoint(Storage.open(tmp_path), first.get_state())
        state = load_checkpoint(Storage.open(tmp_path))
        assert state is not None
        again = begin_training(config, toy)
        again.load_state(state)
        assert sum(1 for _ in run_epochs(again)) == 3 - stop
        assert again.history == whole.history
        assert same(weights_of(again), weights_of(whole))
        assert same(learned(again), learned(whole))


def test_a_loss_whose_settings_need_no_state_is_called_itself(configuration: Configure, toy: ResidentData) -> None:
    plain = trained(configuration(), toy)
    flat = trained(configuration().model_copy(update={"loss": Flat()}), toy)
    # L1 with weights of one
    assert flat.history == plain.history
    assert learned(flat) == {}
    assert len(flat.optimizer.param_groups) == 1
