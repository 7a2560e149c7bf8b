"""Run with `pytest tests/training/test_second_stage.py`: second stages with a recipe, a loss and weights of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dirtune.data.cache import ResidentData, make_epoch_order
from dirtune.errors import InputError
from dirtune.recipe import Constant, Steps, Views
from dirtune.training.loop import run_epochs
from dirtune.training.stages import list_stages
from dirtune.training.state import Training, begin_training, load_best_weights
from tests.training.runs import TERMS, Configure, in_float64, same
from tests.training.test_stages import RRT, TWO_STAGE, WithBatchNorm, new_predictor, part

LINEAR_PROBE: dict[str, Any] = {
    "name": "two_stage",
    "epochs": 4,
    "learning_rate": 0.05,
    "optimizer": "sgd",
    "schedule": {"name": "cosine", "floor": 0.2**3, "position": "end"},
    "batch_size": 64,
    "last_batch": "keep",
    "weight_decay": 0.0,
    "momentum": 0.9,
    "views": {"count": 1},
}
"""Rank-N-Contrast's second stage (kaiwenzha/Rank-N-Contrast, `main_linear.py`), shorter."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def train_both(config: Any, data: ResidentData, *, has_batch_norm: bool = False) -> tuple[Training, nn.Module]:
    """Train both stages in float64; return the run, and its encoder as the second stage found it."""
    training = begin_training(config, data)
    if has_batch_norm:
        torch.manual_seed(0)
        training.model.encoder = WithBatchNorm()
        training.prepare(training.stage)
    training.model.double()
    found = None
    for _ in run_epochs(training):
        if training.epoch == config.recipe.epochs:
            state = training.model.state_dict()
            load_best_weights(training)
            found = deepcopy(training.model.encoder)
            training.model.load_state_dict({name: value.clone() for name, value in state.items()})
    assert found is not None
    return training, found


def train_predictor(
    predictor: nn.Linear, encoder: nn.Module, data: ResidentData, optimizer: torch.optim.Optimizer, **settings: Any
) -> None:
    """The second stage in plain PyTorch, on one view of the rows in the seed's order."""
    split, rates = data.splits["train"], settings["rates"]
    loss_of: Loss = settings["loss"]
    for epoch, rate in enumerate(rates, start=settings["start"] + 1):
        optimizer.param_groups[0]["lr"] = rate
        for rows in make_epoch_order(0, epoch, len(split)).split(settings["batch_size"]):
            with torch.no_grad():
                features = encoder({"vector": split.inputs["vector"][rows]})
            predictions = 4.0 + predictor(features).squeeze(1)
            optimizer.zero_grad()
            loss_of(predictions, split.labels[rows].double(), settings["weights"][rows]).backward()
            optimizer.step()


def test_a_linear_probe_trains_by_a_recipe_of_its_own(configuration: Configure, toy: ResidentData) -> None:
    recipe = {
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "momentum": 0.8,
        "weight_decay": 1e-2,
        "batch_size": 100,
        # Not of the second stage: 202 rows have a last batch of ten.
        "last_batch": "drop",
        "views": {"count": 2},
        "schedule": {"name": "cosine"},
        "epochs": 2,
    }
    data = in_float64(toy)
    config = configuration(scheme=LINEAR_PROBE, terms={"rnc": {}}, recipe=recipe)
    training, encoder = train_both(config, data)

    rates = [0.05 * (0.008 + 0.992 * (1 + math.cos(math.pi * epoch / 4)) / 2) for epoch in (1, 2, 3, 4)]
    expected = new_predictor(config.seed, 8).double()
    train_predictor(
        expected,
        encoder.eval(),
        data,
        torch.optim.SGD(expected.parameters(), lr=1.0, momentum=0.9),
        rates=rates,
        loss=lambda predictions, labels, weights: (predictions - labels).abs().mean(),
        weights=torch.ones(202),
        batch_size=64,
        start=2,
    )
    torch.testing.assert_close(training.model.predictor.weight, expected.weight, rtol=1e-12, atol=1e-14)
    found = [values["learning_rate"] for values in training.history]
    assert found == pytest.approx([0.5, 0.25, *rates], rel=1e-12)
    assert found[-1] == pytest.approx(0.05 * 0.2**3, rel=1e-12)


def bmc(predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Balanced MSE over the batch at a noise of 2 (Ren et al., CVPR 2022)."""
    logits = -0.5 * (predictions[:, None] - labels[None]).square() / 4.0
    return nn.functional.cross_entropy(logits, torch.arange(len(labels))) * 8.0


def weighted_l1(predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (weights * (predictions - labels).abs()).mean()


@pytest.mark.parametrize("published", [False, True])
def test_balanced_mse_retrains_the_predictor_of_an_l1_model(
    configuration: Configure, toy: ResidentData, *, published: bool
) -> None:
    scheme = {
        "name": "rrt",
        "epochs": 3,
        "learning_rate": 1e-2,
        "loss": {"name": "bmc", "sigma": 2.0, "learn_sigma": False},
        "published_batch_norm": published,
    }
    data = in_float64(toy)
    model = {"encoder": {"name": "mlp", "hidden": [5]}}
    config = configuration(scheme=scheme, model=model, recipe={"epochs": 2, "batch_size": 50})
    training, encoder = train_both(config, data, has_batch_norm=True)

    expected = new_predictor(config.seed, 5).double()
    train_predictor(
        expected,
        encoder.train(published),
        data,
        torch.optim.Adam(expected.parameters()),
        rates=[1e-2] * 3,
        loss=bmc,
        weights=torch.ones(202),
        batch_size=50,
        start=2,
    )
    # The noise is a float32 number.
    torch.testing.assert_close(training.model.predictor.weight, expected.weight, rtol=1e-7, atol=1e-9)
    running = training.model.encoder.layers[1].running_var
    torch.testing.assert_close(running, encoder.layers[1].running_var, rtol=1e-12, atol=0)
    assert "train/regression" in training.history[0]
    assert training.history[0]["train/regression"] == training.history[0]["train/loss"]


def test_a_second_stage_has_weights_of_its_own(configuration: Configure, toy: ResidentData) -> None:
    scheme = {**RRT, "reweighting": {"scheme": "inverse"}, "weight_decay": 0.1}
    data = in_float64(toy)
    config = configuration(scheme=scheme, reweighting={"scheme": "sqrt_inverse"}, recipe={"epochs": 2})
    training, encoder = train_both(config, data)
    first, second = list_stages(config)
    assert (first.config.reweighting.scheme, second.config.reweighting.scheme) == ("sqrt_inverse", "inverse")

    bins = data.splits["train"].label_bins
    weights = 1 / torch.bincount(bins)[bins].double()
    expected = new_predictor(config.seed, 8).double()
    train_predictor(
        expected,
        encoder.eval(),
        data,
        torch.optim.Adam(expected.parameters(), weight_decay=0.1),
        rates=[0.02] * 3,
        loss=weighted_l1,
        weights=(weights / weights.mean()).float(),
        batch_size=64,
        start=2,
    )
    torch.testing.assert_close(training.model.predictor.weight, expected.weight, rtol=1e-7, atol=1e-9)
    joint = begin_training(configuration(reweighting={"scheme": "sqrt_inverse"}, recipe={"epochs": 2}), data)
    joint.model.double()
    assert [values["train/loss"] for _ in run_epochs(joint) for values in joint.history[-1:]] == [
        values["train/loss"] for values in training.history[:2]
    ]


def test_a_second_stage_without_settings_inherits_those_of_the_recipe(configuration: Configure) -> None:
    recipe = {
        "optimizer": "sgd",
        "momentum": 0.3,
        "weight_decay": 0.2,
        "batch_size": 30,
        "schedule": {"name": "cosine"},
        "views": {"count": 3, "augmentation": "shift", "regression": "first"},
    }
    config = configuration(scheme=TWO_STAGE, terms=TERMS, recipe=recipe)
    first, second = list_stages(config)
    assert first.config == config
    changed = {"epochs": 3, "learning_rate": 0.02, "schedule": Constant(), "views": Views(augmentation="shift")}
    assert second.recipe == config.recipe.model_copy(update=changed)
    assert (second.config.loss, second.config.reweighting) == (config.loss, config.reweighting)
    named = configuration(scheme={**TWO_STAGE, "schedule": {"name": "steps", "milestones": [1]}}, terms=TERMS)
    assert list_stages(named)[1].recipe.schedule == Steps(milestones=(1,))


def test_the_settings_of_a_second_stage_do_not_change_the_first(configuration: Configure, toy: ResidentData) -> None:
    ends = []
    for scheme in (TWO_STAGE, LINEAR_PROBE):
        training = begin_training(configuration(scheme=scheme, terms=TERMS), toy)
        for _ in run_epochs(training):
            if training.epoch == 3:
                ends.append((part(training, "encoder"), training.history[:3]))
                break
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_settings_at_their_defaults_do_not_change_the_id_of_a_trial(configuration: Configure) -> None:
    plain = configuration(scheme=RRT)
    assert configuration(scheme={**RRT, "loss": None, "batch_size": None}).compute_trial_id("x") == (
        plain.compute_trial_id("x")
    )
    assert configuration(scheme={**RRT, "batch_size": 64}).compute_trial_id("x") != plain.compute_trial_id("x")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            {"scheme": {**RRT, "views": {"count": 2, "regression": "first"}}},
            "test: scheme: views.regression must be 'all': the second stage has no terms",
        ),
        (
            {"scheme": {**RRT, "reweighting": {"fds": {}}}},
            "test: scheme: reweighting.fds has no effect: the second stage trains no features",
        ),
        (
            {"scheme": {**RRT, "batch_size": 50}, "recipe": {"accumulation": 4}},
            "scheme.batch_size must be a multiple of accumulation; they are 50 and 4",
        ),
        ({"scheme": {**RRT, "loss": {"name": "mae"}}}, "test: scheme.loss.name: unknown name"),
        ({"scheme": {**RRT, "schedule": {"name": "linear"}}}, "test: scheme.schedule.name: unknown name"),
        ({"scheme": {**RRT, "batchsize": 3}}, "test: scheme.batchsize: unknown key"),
    ],
)
def test_wrong_settings_of_a_second_stage_are_one_clear_fault(
    configuration: Configure, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(InputError) as caught:
        configuration(**settings)
    assert [fault in str(each) for each in caught.value.faults] == [True], caught.value.faults
