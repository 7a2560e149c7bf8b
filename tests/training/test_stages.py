"""Run with `pytest tests/training/test_stages.py`; resuming is in `test_trial_resumed`, several ranks in `test_on_ranks`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dirtune.batch import Inputs
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.errors import InputError
from dirtune.models.encoders.encoder import Encoder
from dirtune.randomness import derive_seed
from dirtune.reweighting import LDS, Reweighting
from dirtune.training.evaluation import predict
from dirtune.training.loop import run_epochs
from dirtune.training.stages import find_stage, freeze, list_stages
from dirtune.training.state import Training, begin_training, load_best_weights
from tests.training.fitted import with_state
from tests.training.runs import TERMS, Configure, in_float64, same, trained, weights_of

TWO_STAGE = {"name": "two_stage", "epochs": 3, "learning_rate": 0.02}
RRT = {"name": "rrt", "epochs": 3, "learning_rate": 0.02}
PROJECTED = {"encoder": {"name": "mlp", "hidden": [8], "dropout": 0.3}, "projection_dim": 4}
WANDERING = {"epochs": 8, "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 16}


def stopped(config: TrialConfig, data: ResidentData, at: int) -> Training:
    training = begin_training(config, data)
    for _ in run_epochs(training):
        if training.epoch == at:
            break
    return training


def part(training: Training, name: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights_of(training).items() if key.startswith(name)}


# --- Stages as values


def test_joint_training_is_one_stage(configuration: Configure) -> None:
    config = configuration(reweighting={"scheme": "inverse"}, recipe={"epochs": 5})
    (stage,) = list_stages(config)
    assert (stage.start, stage.end) == (0, 5)
    assert (stage.trains_representation, stage.trains_predictor) == (True, True)
    assert (stage.config.reweighting, stage.recipe.views) == (config.reweighting, config.recipe.views)


@pytest.mark.parametrize("scheme", [TWO_STAGE, RRT], ids=["two_stage", "rrt"])
def test_the_schedule_runs_over_the_first_stage_and_the_second_is_constant(
    configuration: Configure, scheme: dict[str, Any]
) -> None:
    recipe = {"epochs": 4, "learning_rate": 0.2, "schedule": {"name": "cosine"}}
    config = configuration(scheme=scheme, terms=TERMS, recipe=recipe)
    rates = [find_stage(config, epoch).compute_learning_rate(epoch) for epoch in range(1, 8)]
    cosine = [0.1 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4)]
    assert rates == pytest.approx([*cosine, 0.02, 0.02, 0.02])


def test_regressor_retraining_reweights_the_second_stage_alone(configuration: Configure) -> None:
    settings = {"scheme": "sqrt_inverse", "lds": {}, "fds": {"size": 3}}
    config = configuration(scheme=RRT, reweighting=settings)
    first, second = list_stages(config)
    assert first.config.reweighting == Reweighting(fds=config.reweighting.fds)
    assert second.config.reweighting == config.reweighting
    assert second.config.reweighting.lds == LDS()


def test_two_stages_share_the_reweighting_and_each_trains_one_half(configuration: Configure) -> None:
    config = configuration(scheme=TWO_STAGE, terms=TERMS, reweighting={"scheme": "inverse"})
    halves = [(stage.trains_representation, stage.trains_predictor) for stage in list_stages(config)]
    assert halves == [(True, False), (False, True)]
    assert {stage.config.reweighting for stage in list_stages(config)} == {config.reweighting}


def test_the_second_stage_makes_no_view_that_only_terms_would_see(configuration: Configure) -> None:
    views = {"count": 3, "augmentation": "shift", "regression": "first"}
    first, second = list_stages(configuration(scheme=RRT, terms=TERMS, recipe={"views": views}))
    assert (first.recipe.views.count, second.recipe.views.count) == (3, 1)
    assert second.recipe.views.augmentation == "shift"
    assert list_stages(configuration(scheme=RRT, recipe={"views": {"count": 2}}))[1].recipe.views.count == 2


def test_the_rate_of_a_second_stage_is_the_recipe_s_unless_it_is_given(configuration: Configure) -> None:
    scheme = {"name": "two_stage"}
    config = configuration(scheme=scheme, terms=TERMS, recipe={"learning_rate": 0.3})
    assert list_stages(config)[1].recipe.learning_rate == 0.3


# --- What is frozen


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({}, set()),
        ({"model": {"predictor_input": "embedding"}}, {"projection"}),
        ({"model": {"predictor_input": "embedding"}, "terms": TERMS}, set()),
        ({"terms": TERMS, "scheme": TWO_STAGE}, {"predictor"}),
        ({"scheme": RRT}, set()),
    ],
    ids=["joint", "unread projection", "projection for terms", "two_stage", "rrt"],
)
def test_the_first_stage_freezes_parameters_without_a_gradient(
    configuration: Configure, toy: ResidentData, settings: dict[str, Any], frozen: set[str]
) -> None:
    settings = {**settings, "model": {**PROJECTED, **settings.get("model", {})}}
    training = begin_training(configuration(**settings), toy)
    resting = {name.split(".")[0] for name, value in training.model.named_parameters() if not value.requires_grad}
    assert resting == frozen
    optimized = {id(value) for group in training.optimizer.param_groups for value in group["params"]}
    expected = {id(value) for value in training.model.parameters() if value.requires_grad}
    assert optimized == expected


def test_a_term_that_reads_embeddings_does_not_train_a_projection(configuration: Configure, toy: ResidentData) -> None:
    config = with_state(configuration(model={**PROJECTED, "predictor_input": "embedding"}))
    assert not any(each.requires_grad for each in begin_training(config, toy).model.projection.parameters())


@pytest.mark.parametrize("scheme", [TWO_STAGE, RRT], ids=["two_stage", "rrt"])
def test_the_second_stage_moves_the_predictor_alone(
    configuration: Configure, toy: ResidentData, scheme: dict[str, Any]
) -> None:
    recipe = {"weight_decay": 0.1}
    training = begin_training(configuration(scheme=scheme, terms=TERMS, model=PROJECTED, recipe=recipe), toy)
    history = [(weights_of(training), training.stage) for _ in run_epochs(training)]
    assert len(history) == len(training.history) == 6
    second = [weights for weights, _ in history[3:]]
    for one, other in pairwise(second):
        moved = {name for name in one if not torch.equal(one[name], other[name])}
        assert moved == {"predictor.weight", "predictor.bias"}
    assert {stage.start for _, stage in history[3:]} == {3}


def test_the_gradients_of_the_stage_before_are_dropped(configuration: Configure, toy: ResidentData) -> None:
    config = configuration(scheme=RRT)
    training = stopped(config, toy, at=3)
    assert training.model.encoder.layers[0].weight.grad is not None
    freeze(training.model, list_stages(config)[1])
    assert all(value.grad is None for value in training.model.parameters())


# --- The first stage


def test_the_first_of_two_stages_trains_the_representation_as_if_alpha_were_zero(
    configuration: Configure, toy: ResidentData
) -> None:
    settings = {"terms": TERMS, "model": PROJECTED}
    staged = stopped(configuration(scheme=TWO_STAGE, **settings), toy, at=3)
    joint = trained(configuration(alpha=0.0, **settings), toy)
    for name in ("encoder", "projection"):
        assert same(part(staged, name), part(joint, name))
    start = begin_training(configuration(**settings), toy)
    assert same(part(staged, "predictor"), part(start, "predictor"))


def test_the_first_of_two_stages_has_no_regression_loss_and_nothing_to_validate(
    configuration: Configure, toy: ResidentData
) -> None:
    training, bests = begin_training(configuration(scheme=TWO_STAGE, terms=TERMS), toy), []
    for _ in run_epochs(training):
        bests.append(training.best_epoch)
    first, second = training.history[:3], training.history[3:]
    assert {*first[0]} == {
        "train/conr",
        "train/accon",
        "train/loss",
        "learning_rate",
        "gradient/conr",
        "gradient/accon",
    }
    assert first[0]["train/loss"] == pytest.approx(
        0.5 * first[0]["train/conr"] + 0.3 * first[0]["train/accon"], rel=1e-5
    )
    names = {name for name in second[0] if not name.startswith("val/")}
    assert names == {"train/regression", "train/loss", "learning_rate"}
    assert "val/all/mae" in second[0]
    assert bests[:3] == [0, 0, 0]
    assert training.best_epoch > 3


def test_the_first_stage_of_retraining_is_joint_training_without_reweighting(
    configuration: Configure, toy: ResidentData
) -> None:
    settings = {"terms": TERMS, "model": PROJECTED}
    retrained = trained(configuration(scheme=RRT, reweighting={"scheme": "inverse"}, **settings), toy)
    joint = trained(configuration(**settings), toy)
    assert retrained.history[:3] == joint.history


# --- The second stage


def test_retraining_starts_from_the_best_weights_of_the_first_stage(
    configuration: Configure, toy: ResidentData
) -> None:
    joint = trained(configuration(recipe=WANDERING), toy)
    assert 1 < joint.best_epoch < 8
    retrained = trained(configuration(scheme=RRT, recipe=WANDERING), toy)
    last = part(joint, "encoder")
    load_best_weights(joint)
    assert same(part(retrained, "encoder"), part(joint, "encoder"))
    assert not same(part(retrained, "encoder"), last)


def test_the_first_stage_may_be_selected_by_a_metric_of_its_own(configuration: Configure, toy: ResidentData) -> None:
    scheme = {**RRT, "first_objective": {"metric": "pearson"}}
    training = begin_training(configuration(scheme=scheme, recipe=WANDERING), toy)
    bests = [training.best_epoch for _ in run_epochs(training)]
    first, second = ([values[name] for values in training.history] for name in ("val/all/pearson", "val/all/mae"))
    assert bests[7] == 1 + int(np.argmax(first[:8]))
    assert bests[7] != 1 + int(np.argmin(second[:8]))
    assert bests[-1] == 9 + int(np.argmin(second[8:]))
    with pytest.raises(InputError, match=r"scheme\.first_objective\.metric: the data set has no such metric"):
        begin_training(configuration(scheme={**RRT, "first_objective": {"metric": "delta1"}}), toy)


def test_the_best_epoch_is_one_of_the_second_stage(configuration: Configure, toy: ResidentData) -> None:
    # So slow a second stage is never better than the best epoch of the first.
    scheme = {"name": "rrt", "epochs": 2, "learning_rate": 1e-6}
    training = begin_training(configuration(scheme=scheme), toy)
    bests = [(training.best_epoch, training.best_objective) for _ in run_epochs(training)]
    values = [values["val/all/mae"] for values in training.history]
    assert min(values[:3]) < min(values[3:])
    assert bests[2] == (int(np.argmin(values[:3])) + 1, min(values[:3]))
    assert bests[4] == (int(np.argmin(values[3:])) + 4, min(values[3:]))


def new_predictor(seed: int, width: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "init", "predictor", "second stage"))
        return nn.Linear(width, 1)


@pytest.mark.parametrize("scheme", [TWO_STAGE, RRT], ids=["two_stage", "rrt"])
def test_the_second_stage_is_weighted_regression_on_features_without_dropout(
    configuration: Configure, toy: ResidentData, scheme: dict[str, Any]
) -> None:
    # One clipped step of plain gradient descent per epoch, on fixed features: a linear model trained by hand.
    recipe = {"optimizer": "sgd", "momentum": 0.0, "batch_size": 1000, "gradient_clip": 0.5}
    config = configuration(
        scheme=scheme,
        terms=TERMS,
        model={**PROJECTED, "label_scale": 5.0},
        recipe=recipe,
        reweighting={"scheme": "inverse"},
        alpha=2.0,
    )
    data = in_float64(toy)
    training = begin_training(config, data)
    training.model.double()
    list(run_epochs(training))

    split = data.splits["train"]
    training.model.eval()
    features = training.model(split.inputs).representations.detach()
    by_hand = new_predictor(config.seed, 4).double()
    weights = 1 / torch.bincount(split.label_bins)[split.label_bins].double()
    weights = (weights / weights.mean()).float()
    for values in training.history[3:]:
        errors = 4.0 / 5.0 + by_hand(features).squeeze(1) - split.labels / 5.0
        loss = 2.0 * (weights * errors.abs()).mean()
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert norm > 0.5
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= 0.02 * gradient * 0.5 / (norm + 1e-6)
        assert values["train/loss"] == pytest.approx(loss.item(), rel=1e-6)
    found = training.model.predictor
    torch.testing.assert_close(found.weight, by_hand.weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.bias, by_hand.bias, rtol=1e-6, atol=1e-9)


def test_the_new_predictor_depends_on_the_seed_and_not_on_the_arm(configuration: Configure, toy: ResidentData) -> None:
    arms: list[dict[str, Any]] = [
        {"terms": TERMS},
        {"terms": {"accon": {}}, "recipe": {"batch_size": 30}, "reweighting": {"scheme": "inverse"}},
        {"terms": TERMS, "seed": 1},
    ]
    new = []
    for settings in arms:
        training = stopped(configuration(scheme=TWO_STAGE, **settings), toy, at=3)
        before = part(training, "predictor")
        torch.manual_seed(7)
        training.start_stage(list_stages(training.config)[1])
        # The caller's random state is left alone
        assert torch.initial_seed() == 7
        new.append(part(training, "predictor"))
        assert not same(new[-1], before)
    assert same(new[0], new[1])
    assert not same(new[0], new[2])


def test_the_loss_of_a_second_stage_is_fitted_again(configuration: Configure, toy: ResidentData) -> None:
    config = with_state(configuration(scheme=RRT))
    fitted = begin_training(config, toy).loss.get_learned_values()
    training = stopped(config, toy, at=3)
    assert training.loss.get_learned_values() != fitted
    training.start_stage(list_stages(config)[1])
    assert training.loss.get_learned_values() == fitted
    assert [*dict(training.loss.named_parameters())] == ["fitted.regression.sigma"]


# --- Batch norm


class WithBatchNorm(Encoder):
    """An encoder whose state moves in training mode."""

    embedding_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))

    def forward(self, inputs: Inputs) -> Tensor:
        rows: Tensor = self.layers(inputs["vector"])
        return rows


@pytest.mark.parametrize("published", [False, True])
def test_frozen_batch_norm_rests_unless_it_is_asked_to_drift_as_published(
    configuration: Configure, toy: ResidentData, *, published: bool
) -> None:
    model = {"encoder": {"name": "mlp", "hidden": [5]}}
    scheme = {**RRT, "published_batch_norm": published}
    training = begin_training(configuration(model=model, scheme=scheme), toy)
    training.model.encoder = WithBatchNorm()
    training.prepare(training.stage)
    running = [training.model.encoder.layers[1].running_mean.clone() for _ in run_epochs(training)]
    assert not torch.equal(running[0], running[2])
    assert torch.equal(running[3], running[5]) is not published
    assert np.isfinite(predict(training, "test")).all()
