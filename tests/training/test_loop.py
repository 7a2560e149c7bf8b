"""Run with `pytest tests/training/test_loop.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, epoch_order
from dirtune.errors import NonFiniteLoss
from dirtune.training import loop
from dirtune.training.distributed import Ranks
from dirtune.training.loop import Training, begin, epochs, predict, use_best_weights
from tests.training.gloo import on_ranks

Configure = Callable[..., TrialConfig]
Weights = dict[str, Tensor]

TERMS = {"conr": {"beta": 0.5, "omega": 2.0}, "accon": {"gamma": 0.3}}
WHOLE = {"batch_size": 1000}  # one step an epoch
STILL = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-30}  # too small to move a weight


def trained(config: TrialConfig, data: ResidentData) -> Training:
    training = begin(config, data)
    assert sum(1 for _ in epochs(training)) == config.recipe.epochs
    return training


def weights_of(training: Training) -> Weights:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def with_inputs(data: ResidentData, split: str, change: Callable[[Tensor], Tensor]) -> ResidentData:
    """The data with the vectors of one split changed."""
    rows = data.splits[split]
    changed = {**rows.inputs, "vector": change(rows.inputs["vector"].clone())}
    return replace(data, splits={**data.splits, split: replace(rows, inputs=changed)})


def in_float64(data: ResidentData) -> ResidentData:
    for split in data.splits:
        data = with_inputs(data, split, Tensor.double)
    return data


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


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
    torch.manual_seed(99)  # what others have drawn before does not matter
    again = trained(configuration(**settings), toy)
    other = trained(configuration(**settings, seed=1), toy)
    assert first.history == again.history
    assert np.array_equal(predict(first, "test"), predict(again, "test"))
    assert same(weights_of(first), weights_of(again))
    assert first.history != other.history
    assert not np.array_equal(predict(first, "test"), predict(other, "test"))


def test_arms_with_one_seed_see_one_sample_order_and_start_from_one_encoder(
    configuration: Configure, toy: ResidentData
) -> None:
    arms = [
        configuration(),
        configuration(terms=TERMS, model={"projection_dim": 4}),
        configuration(reweighting={"scheme": "sqrt_inverse"}, recipe={"learning_rate": 0.1}),
    ]
    starts = [begin(config, toy).model.encoder.state_dict() for config in arms]
    digests = [trained(config, toy).order_digest for config in arms]
    assert all(same(starts[0], start) for start in starts)
    assert len(set(digests)) == 1

    other = configuration(seed=1)
    assert not same(starts[0], begin(other, toy).model.encoder.state_dict())
    assert trained(other, toy).order_digest != digests[0]


# --- One step, re-derived


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


OPTIMIZERS = {
    "sgd": SGD,
    "adam": lambda: Adam(is_decoupled=False),
    "adamw": lambda: Adam(is_decoupled=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_the_steps_of_its_formula(
    configuration: Configure, toy: ResidentData, name: str
) -> None:
    recipe = {
        **WHOLE, "optimizer": name, "learning_rate": 0.05, "weight_decay": 0.1, "momentum": 0.8,
        "epochs": 4,
    }  # fmt: skip
    data = in_float64(toy)
    training, by_hand = begin(configuration(recipe=recipe), data), OPTIMIZERS[name]()
    training.model.double()
    expected = [value.detach().clone() for value in training.model.parameters()]
    gradients = full_batch_gradient(training, data)
    for step, _ in enumerate(epochs(training), start=1):
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
    training = begin(config, data)
    training.model.double()
    before = [value.detach().clone() for value in training.model.parameters()]
    gradients = full_batch_gradient(training, data)
    list(epochs(training))

    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
    assert 0.01 < norm < 1e6
    moves = [new - old for new, old in zip(training.model.parameters(), before, strict=True)]
    length = math.sqrt(sum(float((move**2).sum()) for move in moves))
    assert length == pytest.approx(0.05 * min(norm, clip), rel=1e-3)
    for move, gradient in zip(moves, gradients, strict=True):
        direction = -0.05 * min(1.0, clip / norm) * gradient
        torch.testing.assert_close(move.detach(), direction, rtol=1e-3, atol=1e-9)


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
    training, used = begin(configuration(recipe=recipe), toy), []
    for _ in epochs(training):
        used.append(training.optimizer.param_groups[0]["lr"])
    reported = [values["learning_rate"] for values in training.history]
    assert reported == used == pytest.approx([0.2 * factor for factor in factors])


def test_weights_rest_once_the_schedule_has_reached_zero(
    configuration: Configure, toy: ResidentData
) -> None:
    schedule = {"name": "steps", "milestones": [1], "factor_per_step": 0.0}
    recipe = {"schedule": schedule, "optimizer": "sgd", "epochs": 3}
    training = begin(configuration(recipe=recipe), toy)
    start = weights_of(training)
    after = [weights_of(training) for _ in epochs(training)]
    assert not same(start, after[0])
    assert same(after[0], after[1])
    assert same(after[0], after[2])


# --- What an epoch reports


def test_training_losses_are_means_over_the_steps_with_the_weights_of_rare_labels(
    configuration: Configure, toy: ResidentData
) -> None:
    config = configuration(
        recipe={**STILL, "epochs": 2}, reweighting={"scheme": "inverse"}, alpha=0.5
    )
    training = trained(config, toy)
    split = toy.splits["train"]
    counts = np.bincount(split.label_bins, minlength=10)
    weights = 1.0 / counts[split.label_bins]
    weights /= weights.mean()
    errors = np.abs(predict(training, "train") - split.exact_labels)
    for epoch, values in enumerate(training.history, start=1):
        order = epoch_order(config.seed, epoch, 202).numpy()
        steps = [(weights * errors)[order[at : at + 64]].mean() for at in (0, 64, 128, 192)]
        assert values["train/regression"] == pytest.approx(np.mean(steps), rel=1e-5)
        assert values["train/loss"] == pytest.approx(0.5 * np.mean(steps), rel=1e-5)


def test_validation_values_are_those_of_the_current_model_by_region(
    configuration: Configure, toy: ResidentData
) -> None:
    training = begin(configuration(terms=TERMS), toy)
    rows = toy.splits["val"]
    # Training counts 60, 45 | 30, 20, 15, 12 | 8, 6, 4, 2 under the rule "toy".
    low, high = {"all": 0, "many": 0, "medium": 2, "few": 6}, {"many": 2, "medium": 6}
    for _ in epochs(training):
        errors = np.abs(predict(training, "val") - rows.exact_labels)
        for region, start in low.items():
            bins = rows.label_bins.numpy()
            chosen = errors[(bins >= start) & (bins < high.get(region, 10))]
            found = training.history[-1][f"val/{region}/mae"]
            assert found == pytest.approx(chosen.mean(), rel=1e-9)
    names = {name for name in training.history[-1] if not name.startswith("val/")}
    assert names == {"train/regression", "train/conr", "train/accon", "train/loss", "learning_rate"}


def test_predictions_are_in_the_order_of_the_split_however_it_is_cut(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(configuration(model={"encoder": {"dropout": 0.5}}), toy)
    training.model.eval()
    with torch.no_grad():
        expected = [
            training.model({"vector": row[None]}).predictions.item()
            for row in toy.splits["test"].inputs["vector"]
        ]
    assert predict(training, "test") == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(loop, "EVAL_BATCH", 7)
    assert predict(training, "test") == pytest.approx(expected, rel=1e-5)


# --- The best epoch


@pytest.mark.parametrize(
    ("objective", "better"),
    [({"metric": "mae", "region": "few"}, min), ({"metric": "r2", "region": "all"}, max)],
    ids=["smallest", "largest"],
)
def test_the_best_epoch_has_the_best_objective_and_its_weights_are_used(
    configuration: Configure, toy: ResidentData, objective: dict[str, str], better: Any
) -> None:
    recipe = {"epochs": 8, "optimizer": "sgd", "learning_rate": 0.3, "batch_size": 16}
    training, predictions, bests = begin(configuration(recipe=recipe, objective=objective), toy), [], []
    for _ in epochs(training):
        predictions.append(predict(training, "test"))
        bests.append(training.best_epoch)
    values = [epoch[f"val/{objective['region']}/{objective['metric']}"] for epoch in training.history]
    expected = [values.index(better(values[:so_far])) + 1 for so_far in range(1, 9)]
    assert bests == expected
    assert 1 < training.best_epoch < 8  # the first and the last epoch could be right by accident
    assert training.best_objective == better(values)
    use_best_weights(training)
    assert np.array_equal(predict(training, "test"), predictions[training.best_epoch - 1])
    assert not np.array_equal(predict(training, "test"), predictions[-1])


def test_of_equal_epochs_the_earlier_one_stays_the_best(
    configuration: Configure, toy: ResidentData
) -> None:
    training = trained(configuration(recipe=STILL), toy)
    assert len({values["val/all/mae"] for values in training.history}) == 1
    assert training.best_epoch == 1


def test_an_epoch_with_an_undefined_objective_is_never_the_best(
    configuration: Configure, toy: ResidentData
) -> None:
    config = configuration(recipe={**STILL, "epochs": 4}, objective={"metric": "pearson"})
    training = begin(config, toy)
    good = weights_of(training)
    constant = {name: torch.zeros_like(value) for name, value in good.items()}
    bests = []
    training.model.load_state_dict(constant)  # equal predictions have no correlation
    for _, following in zip(epochs(training), [good, constant, good, good], strict=True):
        bests.append((training.best_epoch, training.best_objective is None))
        training.model.load_state_dict(following)
    undefined = [math.isnan(values["val/all/pearson"]) for values in training.history]
    assert undefined == [True, False, True, False]
    assert bests == [(0, True), (2, False), (2, False), (2, False)]
    assert same(training.best_weights, good)


def test_without_any_defined_objective_the_last_weights_stay(
    configuration: Configure, toy: ResidentData
) -> None:
    config = configuration(data={"shot_rule": "no_few"}, objective={"region": "few"})
    training = trained(config, toy)
    last = weights_of(training)
    use_best_weights(training)
    assert training.best_epoch == 0
    assert same(weights_of(training), last)


# --- Losses that are not finite


def test_the_step_is_named_in_which_the_bad_sample_came(
    configuration: Configure, toy: ResidentData
) -> None:
    def spoil(vectors: Tensor) -> Tensor:
        vectors[17] = torch.nan
        return vectors

    config = configuration(terms=TERMS, recipe={"batch_size": 20})
    with pytest.raises(NonFiniteLoss) as caught:
        trained(config, with_inputs(toy, "train", spoil))
    position = epoch_order(config.seed, 1, 202).tolist().index(17)
    assert (caught.value.term, caught.value.epoch) == ("regression", 1)
    assert caught.value.step == position // 20 + 1 > 1


def test_the_term_is_named_that_was_the_first_to_break(
    configuration: Configure, toy: ResidentData
) -> None:
    # An overflow in ConR alone; from the second step on the weights, and so all parts, are NaN.
    training = begin(configuration(terms={**TERMS, "conr": {"push_power": 1e300}}), toy)
    with pytest.raises(NonFiniteLoss) as caught:
        next(epochs(training))
    assert (caught.value.term, caught.value.epoch, caught.value.step) == ("conr", 1, 1)
    assert training.history == []


def test_an_explosion_in_a_later_epoch_keeps_the_epochs_before(
    configuration: Configure, toy: ResidentData
) -> None:
    schedule = {"name": "steps", "milestones": [2], "factor_per_step": 1e30}
    training = begin(
        configuration(recipe={"schedule": schedule, "epochs": 4, "optimizer": "sgd"}), toy
    )
    with pytest.raises(NonFiniteLoss) as caught:
        list(epochs(training))
    assert (caught.value.term, caught.value.epoch) == ("regression", 3)
    assert training.epoch == 2


# --- Several ranks

# 202 rows: with batches of 67 the last one has one row, so that the first of two ranks gets none.
EXACT: dict[str, dict[str, Any]] = {
    "terms and projection": {
        "terms": TERMS, "model": {"projection_dim": 4}, "recipe": {"batch_size": 67},
    },
    "momentum and clipping": {
        "terms": {"accon": {}}, "reweighting": {"scheme": "sqrt_inverse"},
        "recipe": {"batch_size": 33, "optimizer": "sgd", "gradient_clip": 0.5},
    },
    "a projection that no loss reads": {
        "model": {"projection_dim": 4, "predictor_input": "embedding"},
        "recipe": {"optimizer": "adam", "weight_decay": 0.1, "batch_size": 33},
    },
}  # fmt: skip
IN_FLOAT32: dict[str, dict[str, Any]] = {
    "augmented images": {
        "terms": TERMS, "model": {"encoder": {"name": "cnn", "channels": 2}, "projection_dim": 4},
        "recipe": {
            "batch_size": 67, "optimizer": "sgd", "learning_rate": 0.001,
            "views": {"count": 3, "augmentation": "shift", "regression": "first"},
        },
    },
}  # fmt: skip


def outcome(rank: int, world: int, data: ResidentData, config: TrialConfig) -> dict[str, Any]:
    training = begin(config, data, Ranks(rank, world))
    if data.splits["train"].inputs["vector"].dtype == torch.float64:
        training.model.double()
    list(epochs(training))
    predictions = {split: torch.from_numpy(predict(training, split)) for split in data.splits}
    return {
        "weights": weights_of(training), "predictions": predictions, "history": training.history,
        "digest": training.order_digest,
    }  # fmt: skip


def outcomes(
    rank: int, world: int, runs: dict[str, tuple[ResidentData, TrialConfig]]
) -> dict[str, Any]:
    return {name: outcome(rank, world, *run) for name, run in runs.items()}


def test_two_ranks_train_to_the_weights_of_one_process_on_the_same_global_batches(
    configuration: Configure, toy: ResidentData
) -> None:
    runs = {name: (in_float64(toy), configuration(**settings)) for name, settings in EXACT.items()}
    runs |= {name: (toy, configuration(**settings)) for name, settings in IN_FLOAT32.items()}
    results = on_ranks(2, outcomes, runs)
    for name, run in runs.items():
        one = outcome(0, 1, *run)
        exact = name in EXACT
        tolerance = {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 1e-3, "atol": 1e-4}
        for result in results:
            torch.testing.assert_close(result[name]["weights"], one["weights"], **tolerance)
            torch.testing.assert_close(result[name]["predictions"], one["predictions"], **tolerance)
            assert result[name]["digest"] == one["digest"]
            for found, expected in zip(result[name]["history"], one["history"], strict=True):
                assert found == pytest.approx(expected, rel=1e-6 if exact else 1e-3, abs=1e-6)
        assert same(results[0][name]["weights"], results[1][name]["weights"])
