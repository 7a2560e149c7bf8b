"""Run with `pytest tests/training/test_loop.py`; steps are in `test_loop_steps`, several ranks in `test_on_ranks`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dirtune.data.cache import ResidentData, ResidentSplit, make_epoch_order
from dirtune.errors import NonFiniteLoss
from dirtune.training.evaluation import predict, represent
from dirtune.training.loop import run_epochs
from dirtune.training.state import begin_training, load_best_weights
from dirtune.training.task import SampleTask
from tests.training.runs import EXPLODING, TERMS, Configure, same, trained, weights_of, with_inputs

# Too small to move a weight
STILL = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-30}


# --- Randomness


@pytest.mark.parametrize(
    "settings",
    [
        {"model": {"encoder": {"name": "mlp", "hidden": [8], "dropout": 0.3}}, "terms": TERMS},
        {
            "model": {"encoder": {"name": "cnn", "channels": 2}},
            "recipe": {"views": {"count": 2, "augmentation": "shift"}, "optimizer": "sgd"},
        },
    ],
    ids=["dropout", "augmentation"],
)
def test_one_seed_gives_bitwise_one_result_and_another_seed_another(
    configuration: Configure, toy: ResidentData, settings: dict[str, Any]
) -> None:
    first = trained(configuration(**settings), toy)
    # What others have drawn before does not matter
    torch.manual_seed(99)
    again = trained(configuration(**settings), toy)
    other = trained(configuration(**settings, seed=1), toy)
    assert first.history == again.history
    assert np.array_equal(predict(first, "test"), predict(again, "test"))
    assert same(weights_of(first), weights_of(again))
    assert first.history != other.history
    assert not np.array_equal(predict(first, "test"), predict(other, "test"))


def test_a_share_of_the_data_trains_as_a_set_that_holds_nothing_else(
    configuration: Configure, toy: ResidentData
) -> None:
    settings: dict[str, Any] = {"reweighting": {"scheme": "sqrt_inverse"}, "terms": TERMS}
    share = trained(configuration(**settings, data={"fraction": 0.3}), toy)
    whole, part = toy.splits["train"], share.data.splits["train"]
    assert isinstance(whole, ResidentSplit)
    rows = torch.tensor([whole.sample_ids.index(name) for name in part.sample_ids])
    alone = replace(
        whole,
        sample_ids=part.sample_ids,
        labels=whole.labels[rows],
        label_bins=whole.label_bins[rows],
        exact_labels=whole.exact_labels[rows.numpy()],
        inputs={name: column[rows] for name, column in whole.inputs.items()},
    )
    own_set = replace(toy, splits={**toy.splits, "train": alone})
    expected = trained(configuration(**settings), own_set)
    assert len(part) == round(0.3 * len(whole))
    assert share.history == expected.history
    assert share.order_digest == expected.order_digest
    assert same(weights_of(share), weights_of(expected))


def test_arms_with_one_seed_see_one_sample_order_and_start_from_one_encoder(
    configuration: Configure, toy: ResidentData
) -> None:
    arms = [
        configuration(),
        configuration(terms=TERMS, model={"projection_dim": 4}),
        configuration(reweighting={"scheme": "sqrt_inverse"}, recipe={"learning_rate": 0.1}),
    ]
    starts = [begin_training(config, toy).model.encoder.state_dict() for config in arms]
    digests = [trained(config, toy).order_digest for config in arms]
    assert all(same(starts[0], start) for start in starts)
    assert len(set(digests)) == 1

    other = configuration(seed=1)
    assert not same(starts[0], begin_training(other, toy).model.encoder.state_dict())
    assert trained(other, toy).order_digest != digests[0]


def test_dropout_masks_differ_between_epochs(configuration: Configure, toy: ResidentData) -> None:
    # Equal samples, a still model and predictions below all labels: the loss depends on the draws alone.
    data = with_inputs(toy, "train", torch.ones_like)
    model = {"encoder": {"dropout": 0.5}, "label_offset": -100.0}
    training = trained(configuration(model=model, recipe={**STILL, "batch_size": 1000}), data)
    losses = [values["train/loss"] for values in training.history]
    assert len({round(loss, 3) for loss in losses}) == 3


# --- What an epoch reports


def test_training_losses_are_means_over_the_steps_with_the_weights_of_rare_labels(
    configuration: Configure, toy: ResidentData
) -> None:
    config = configuration(recipe={**STILL, "epochs": 2}, reweighting={"scheme": "inverse"}, alpha=0.5)
    training = trained(config, toy)
    split = toy.splits["train"]
    counts = np.bincount(split.label_bins, minlength=10)
    weights = 1.0 / counts[split.label_bins]
    weights /= weights.mean()
    errors = np.abs(predict(training, "train") - split.exact_labels)
    for epoch, values in enumerate(training.history, start=1):
        order = make_epoch_order(config.seed, epoch, 202).numpy()
        steps = [(weights * errors)[order[at : at + 64]].mean() for at in (0, 64, 128, 192)]
        assert values["train/regression"] == pytest.approx(np.mean(steps), rel=1e-5)
        assert values["train/loss"] == pytest.approx(0.5 * np.mean(steps), rel=1e-5)


def test_validation_values_are_those_of_the_current_model_by_region(
    configuration: Configure, toy: ResidentData
) -> None:
    training = begin_training(configuration(terms=TERMS), toy)
    rows = toy.splits["val"]
    # Training counts 60, 45 | 30, 20, 15, 12 | 8, 6, 4, 2 under the rule "toy".
    low, high = {"all": 0, "many": 0, "medium": 2, "few": 6}, {"many": 2, "medium": 6}
    for _ in run_epochs(training):
        errors = np.abs(predict(training, "val") - rows.exact_labels)
        for region, start in low.items():
            bins = rows.label_bins.numpy()
            chosen = errors[(bins >= start) & (bins < high.get(region, 10))]
            found = training.history[-1][f"val/{region}/mae"]
            assert found == pytest.approx(chosen.mean(), rel=1e-9)
    names = {name for name in training.history[-1] if not name.startswith(("val/", "gradient/"))}
    assert names == {"train/regression", "train/conr", "train/accon", "train/loss", "learning_rate"}


def test_predictions_are_in_the_order_of_the_split_however_it_is_cut(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin_training(configuration(model={"encoder": {"dropout": 0.5}}), toy)
    training.model.eval()
    with torch.no_grad():
        expected = [
            training.model({"vector": row[None]}).predictions.item() for row in toy.splits["test"].inputs["vector"]
        ]
    assert predict(training, "test") == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(SampleTask, "evaluation_rows", 7)
    assert predict(training, "test") == pytest.approx(expected, rel=1e-5)


def test_representations_are_in_the_order_of_the_split_and_on_the_hypersphere(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"encoder": {"dropout": 0.5}, "projection_dim": 3}
    training = begin_training(configuration(model=model), toy)
    training.model.eval()
    with torch.no_grad():
        expected = torch.cat(
            [training.model({"vector": row[None]}).representations for row in toy.splits["test"].inputs["vector"]]
        )
    monkeypatch.setattr(SampleTask, "evaluation_rows", 7)
    found = represent(training, "test")
    assert (found.shape, found.dtype) == ((40, 3), np.float32)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)


# --- The best epoch


@pytest.mark.parametrize(
    ("objective", "better"),
    [({"metric": "mae", "region": "few"}, min), ({"metric": "r2", "region": "all"}, max)],
    ids=["smallest", "largest"],
)
def test_the_best_epoch_has_the_best_objective_and_its_weights_are_used(
    configuration: Configure, toy: ResidentData, objective: dict[str, str], better: Any
) -> None:
    recipe = {"epochs": 8, "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 16}
    training, predictions, bests = (begin_training(configuration(recipe=recipe, objective=objective), toy), [], [])
    for _ in run_epochs(training):
        predictions.append(predict(training, "test"))
        bests.append(training.best_epoch)
    values = [epoch[f"val/{objective['region']}/{objective['metric']}"] for epoch in training.history]
    expected = [values.index(better(values[:so_far])) + 1 for so_far in range(1, 9)]
    assert bests == expected
    # The first and the last epoch could be right by accident
    assert 1 < training.best_epoch < 8
    assert training.best_objective == better(values)
    load_best_weights(training)
    assert np.array_equal(predict(training, "test"), predictions[training.best_epoch - 1])
    assert not np.array_equal(predict(training, "test"), predictions[-1])


def test_of_equal_epochs_the_earlier_one_stays_the_best(configuration: Configure, toy: ResidentData) -> None:
    training = trained(configuration(recipe=STILL), toy)
    assert len({values["val/all/mae"] for values in training.history}) == 1
    assert training.best_epoch == 1


def test_an_epoch_with_an_undefined_objective_is_never_the_best(configuration: Configure, toy: ResidentData) -> None:
    config = configuration(recipe={**STILL, "epochs": 4}, objective={"metric": "pearson"})
    training = begin_training(config, toy)
    good = weights_of(training)
    constant = {name: torch.zeros_like(value) for name, value in good.items()}
    bests = []
    # Equal predictions have no correlation
    training.model.load_state_dict(constant)
    for _, following in zip(run_epochs(training), [good, constant, good, good], strict=True):
        bests.append((training.best_epoch, training.best_objective is None))
        training.model.load_state_dict(following)
    undefined = [math.isnan(values["val/all/pearson"]) for values in training.history]
    assert undefined == [True, False, True, False]
    assert bests == [(0, True), (2, False), (2, False), (2, False)]
    assert same(training.best_weights, good)


def test_without_any_defined_objective_the_last_weights_stay(configuration: Configure, toy: ResidentData) -> None:
    config = configuration(data={"shot_rule": "no_few"}, objective={"region": "few"})
    training = trained(config, toy)
    last = weights_of(training)
    load_best_weights(training)
    assert training.best_epoch == 0
    assert same(weights_of(training), last)


# --- Losses that are not finite


def test_the_step_is_named_in_which_the_bad_sample_came(configuration: Configure, toy: ResidentData) -> None:
    def spoil(vectors: Tensor) -> Tensor:
        vectors[17] = torch.nan
        return vectors

    config = configuration(terms=TERMS, recipe={"batch_size": 20})
    with pytest.raises(NonFiniteLoss) as caught:
        trained(config, with_inputs(toy, "train", spoil))
    position = make_epoch_order(config.seed, 1, 202).tolist().index(17)
    assert (caught.value.term, caught.value.epoch) == ("regression", 1)
    assert caught.value.step == position // 20 + 1 > 1


def test_the_term_is_named_that_was_the_first_to_break(configuration: Configure, toy: ResidentData) -> None:
    # An overflow in ConR alone; from the second step on the weights, and so all parts, are NaN.
    training = begin_training(configuration(terms={**TERMS, "conr": {"push_power": 1e300}}), toy)
    with pytest.raises(NonFiniteLoss) as caught:
        next(run_epochs(training))
    assert (caught.value.term, caught.value.epoch, caught.value.step) == ("conr", 1, 1)
    assert training.history == []


def test_an_explosion_in_a_later_epoch_keeps_the_epochs_before(configuration: Configure, toy: ResidentData) -> None:
    training = begin_training(configuration(recipe=EXPLODING), toy)
    with pytest.raises(NonFiniteLoss) as caught:
        list(run_epochs(training))
    assert (caught.value.term, caught.value.epoch) == ("regression", 3)
    assert training.epoch == 2


def test_weights_that_break_in_the_last_step_are_found_by_the_predictions(
    configuration: Configure, toy: ResidentData
) -> None:
    # One step per epoch: its own loss is finite, what it leaves behind is not.
    recipe = {"optimizer": "sgd", "learning_rate": 1e38, "batch_size": 1000}
    training = begin_training(configuration(recipe=recipe), toy)
    with pytest.raises(NonFiniteLoss, match="'predictions' is not finite at epoch 1, step 1") as caught:
        next(run_epochs(training))
    assert caught.value.term == "predictions"
