"""Run with `pytest tests/training/test_numerics.py`; on a GPU: `test_on_gpu`, interrupted: `test_trial_resumed`."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dirtune.batch import TermInputs
from dirtune.data.cache import ResidentData
from dirtune.errors import InputError, NonFiniteLoss
from dirtune.losses.accon import ACCon
from dirtune.models.regressor import Regressor
from dirtune.recipe import Recipe
from dirtune.training.distributed import Ranks
from dirtune.training.evaluation import predict
from dirtune.training.loop import run_epochs, run_steps
from dirtune.training.numerics import check_machine, describe_float32, to_memory_format
from dirtune.training.stages import restart_predictor
from dirtune.training.state import begin_training
from tests.training.runs import EXPLODING, TERMS, Configure, in_float64, same, trained, weights_of

CNN: dict[str, Any] = {"encoder": {"name": "cnn", "channels": 4}}
# Too small to move a weight
STILL = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-30}


# --- What is refused


@pytest.mark.parametrize(
    ("recipe", "device", "workers", "fault"),
    [
        (
            {"precision": "fp16"},
            "cpu",
            1,
            "s: arms.a.recipe.precision: needs a GPU (resources.gpus, or --device cuda); a CPU can do bf16, got 'fp16'",
        ),
        (
            {"sync_batch_norm": True},
            "cpu",
            2,
            "s: arms.a.recipe.sync_batch_norm: torch synchronizes batch normalization of 2 workers on GPUs only (resources.gpus)",
        ),
    ],
)
def test_options_that_a_cpu_lacks_are_refused_in_one_sentence(
    recipe: dict[str, Any], device: str, workers: int, fault: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_machine(Recipe(**recipe), device=device, workers=workers, where="s", key="arms.a")
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("recipe", "device", "workers"),
    [
        ({"precision": "bf16", "compile": True, "channels_last": True, "accumulation": 2}, "cpu", 2),
        ({"sync_batch_norm": True}, "cpu", 1),
        ({"sync_batch_norm": True, "precision": "fp16"}, "cuda", 2),
    ],
)
def test_supported_options_pass(recipe: dict[str, Any], device: str, workers: int) -> None:
    check_machine(Recipe(**recipe), device=device, workers=workers, where="s")


def test_options_of_layers_that_an_encoder_lacks_are_refused_together(
    configuration: Configure, toy: ResidentData
) -> None:
    with pytest.raises(InputError) as caught:
        begin_training(configuration(recipe={"channels_last": True, "sync_batch_norm": True}), toy)
    assert str(caught.value).splitlines() == [
        "recipe.channels_last: the encoder has no convolution",
        "recipe.sync_batch_norm: the encoder has no batch normalization",
    ]


def test_a_single_row_that_batch_normalization_refuses_names_the_batch_size(
    configuration: Configure, toy: ResidentData
) -> None:
    # 202 rows, the last of them alone; images of 8 x 8 pixels leave one position.
    recipe, encoder = {"batch_size": 67, "epochs": 1}, {"name": "resnet18"}
    training = begin_training(configuration(model={"encoder": encoder}, recipe=recipe), toy)
    with pytest.raises(InputError, match=r"recipe\.batch_size: leaves a forward pass with a single row.*, got 67"):
        list(run_epochs(training))
    dropped = {**recipe, "last_batch": "drop"}
    (ended,) = run_epochs(begin_training(configuration(model={"encoder": encoder}, recipe=dropped), toy))
    assert ended.is_finished


@pytest.mark.parametrize(
    ("major", "convolutions", "products", "expected"),
    [
        (9, "tf32", "ieee", "tf32 (convolutions)"),
        (8, "tf32", "tf32", "tf32 (matrix products, convolutions)"),
        (8, "ieee", "ieee", "float32"),
        (7, "tf32", "tf32", "float32"),
    ],
)
def test_the_arithmetic_of_float32_follows_from_the_settings_and_the_gpu(
    monkeypatch: pytest.MonkeyPatch, major: int, convolutions: str, products: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision=products))
    monkeypatch.setattr(torch.backends.cudnn, "conv", SimpleNamespace(fp32_precision=convolutions))
    monkeypatch.setattr(torch.backends.cudnn, "rnn", SimpleNamespace(fp32_precision="ieee"))
    assert describe_float32(torch.device("cuda", 0)) == expected
    assert describe_float32(torch.device("cpu")) is None


# --- Accumulation


LOSSES: list[dict[str, Any]] = [
    {"name": "l1"},
    {"name": "huber"},
    {"name": "focal_mse"},
    {"name": "gai", "components": 2, "sigma": 5.0, "sigma_learning_rate": 1e-4},
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["name"])
@pytest.mark.parametrize("accumulation", [2, 11, 66])
def test_micro_batches_train_plain_regression_to_the_weights_of_the_whole_batch(
    configuration: Configure, toy: ResidentData, loss: dict[str, Any], accumulation: int
) -> None:
    recipe: dict[str, Any] = {"batch_size": 66, "optimizer": "sgd", "gradient_clip": 0.5, "views": {"count": 2}}
    settings = {"loss": loss, "reweighting": {"scheme": "sqrt_inverse"}}
    found = []
    for each in (1, accumulation):
        config = configuration(recipe={**recipe, "accumulation": each}, **settings)
        training = begin_training(config, in_float64(toy))
        training.model.double()
        training.loss.double()
        list(run_epochs(training))
        found.append(training)
    whole, split = found
    torch.testing.assert_close(weights_of(split), weights_of(whole), rtol=1e-12, atol=1e-12)
    assert split.order_digest == whole.order_digest
    for values, expected in zip(split.history, whole.history, strict=True):
        assert values == pytest.approx(expected, rel=1e-10, nan_ok=True)
    assert not same(weights_of(split), weights_of(begin_training(whole.config, in_float64(toy))))


def test_micro_batches_of_augmented_images_make_the_step_of_the_whole_batch(
    configuration: Configure, toy: ResidentData
) -> None:
    found = []
    for accumulation in (1, 4):
        views = {"count": 2, "augmentation": "shift"}
        recipe = {"batch_size": 64, "accumulation": accumulation, "views": views}
        training = begin_training(configuration(model=CNN, recipe={**recipe, "optimizer": "sgd"}), toy)
        losses = [float(loss.total) for loss in run_steps(training)]
        found.append((losses, weights_of(training)))
    (whole, weights), (split, split_weights) = found
    assert len(split) == math.ceil(202 / 64)
    assert split == pytest.approx(whole, rel=1e-6)
    torch.testing.assert_close(split_weights, weights, rtol=1e-5, atol=1e-6)


def test_terms_compare_the_pairs_of_a_micro_batch_and_weigh_it_by_its_samples(
    configuration: Configure, toy: ResidentData
) -> None:
    settings = {"terms": TERMS, "model": {"projection_dim": 4}}

    def epoch_of(batch_size: int, accumulation: int) -> dict[str, float]:
        recipe = {**STILL, "epochs": 1, "batch_size": batch_size, "accumulation": accumulation}
        return trained(configuration(recipe=recipe, **settings), toy).history[0]

    split, small, whole = epoch_of(202, 2), epoch_of(101, 1), epoch_of(202, 1)
    for part in ("regression", "conr", "accon", "loss"):
        assert split[f"train/{part}"] == pytest.approx(small[f"train/{part}"], rel=1e-5)
    assert split["train/regression"] == pytest.approx(whole["train/regression"], rel=1e-5)
    assert split["train/accon"] != pytest.approx(whole["train/accon"], rel=1e-3)


def test_the_last_batch_has_fewer_micro_batches_each_by_its_share(configuration: Configure, toy: ResidentData) -> None:
    # 202 rows: a batch of 200, and one of 2 in a micro-batch; then 150 + 50 | 2 as 50, 50, 50 | 50, 2.
    recipe = {**STILL, "epochs": 1, "batch_size": 150, "accumulation": 3}
    training = begin_training(configuration(recipe=recipe, terms=TERMS), toy)
    parts = [float(loss.parts["conr"]) for loss in run_steps(training)]
    alone = begin_training(configuration(recipe={**recipe, "batch_size": 50, "accumulation": 1}, terms=TERMS), toy)
    of_50 = [float(loss.parts["conr"]) for loss in run_steps(alone)]
    assert parts == pytest.approx([sum(of_50[:3]) / 3, (50 * of_50[3] + 2 * of_50[4]) / 52], rel=1e-5)


def test_a_non_finite_loss_is_reported_by_its_step_not_its_micro_batch(
    configuration: Configure, toy: ResidentData
) -> None:
    steps = []
    for accumulation in (1, 8):
        recipe = {**EXPLODING, "batch_size": 64, "accumulation": accumulation}
        with pytest.raises(NonFiniteLoss) as caught:
            trained(configuration(recipe=recipe), toy)
        steps.append((caught.value.epoch, caught.value.step))
    assert steps[0] == steps[1]


# --- Precision


def test_in_half_precision_the_encoder_is_half_and_everything_else_is_not(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    of_terms: list[TermInputs] = []
    real = ACCon.__call__

    def looking(term: ACCon, inputs: TermInputs) -> Tensor:
        of_terms.append(inputs)
        return real(term, inputs)

    monkeypatch.setattr(ACCon, "__call__", looking)
    config = configuration(terms=TERMS, model={"projection_dim": 4}, recipe={"precision": "bf16", "epochs": 1})
    training = begin_training(config, toy)
    hook = training.model.encoder.register_forward_hook(lambda *call: seen.append(call[-1]))
    list(run_steps(training))
    hook.remove()
    assert {each.dtype for each in seen} == {torch.bfloat16}
    assert {inputs.representations.dtype for inputs in of_terms} == {torch.float32}
    assert {inputs.predictions.dtype for inputs in of_terms} == {torch.float32}
    assert {value.dtype for value in training.model.state_dict().values()} == {torch.float32}
    assert {value.grad.dtype for value in training.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 2**-7), ("fp16", 2**-10)])
def test_half_precision_moves_the_gradient_by_its_rounding(
    configuration: Configure, toy: ResidentData, precision: str, digits: float
) -> None:
    gradients = []
    for each in ("float32", precision):
        recipe = {"precision": each, "batch_size": 202, "optimizer": "sgd", "gradient_clip": 1e6}
        training = begin_training(configuration(loss={"name": "mse"}, recipe=recipe), toy)
        # Squared meters times the usual 65,536 would overflow; those steps would be left out until the scale fits.
        training.scaler.load_state_dict({**training.scaler.state_dict(), "scale": 256.0})
        next(run_steps(training))
        parts = [parameter.grad.flatten() for parameter in training.model.parameters()]
        gradients.append(torch.cat(parts))
    change = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert 0 < change < 3 * digits


def test_evaluation_is_in_float32_for_every_precision(configuration: Configure, toy: ResidentData) -> None:
    training = trained(configuration(recipe={"precision": "bf16"}), toy)
    training.model.eval()
    with torch.no_grad():
        expected = training.model(toy.splits["test"].inputs).predictions
    torch.testing.assert_close(torch.from_numpy(predict(training, "test")).float(), expected)


def test_a_step_whose_scaled_gradient_overflows_is_left_out_and_the_scale_is_halved(
    configuration: Configure, toy: ResidentData
) -> None:
    config = configuration(recipe={"precision": "fp16", "batch_size": 101, "epochs": 1})
    training = begin_training(config, toy)
    start = weights_of(training)
    training.scaler.load_state_dict({**training.scaler.state_dict(), "scale": 2.0**127})
    steps = run_steps(training)
    next(steps)
    assert same(weights_of(training), start)
    assert training.scaler.get_scale() == 2.0**126
    training.scaler.update(1024.0)
    next(steps)
    assert not same(weights_of(training), start)


def test_a_checkpoint_without_a_loss_scale_is_loaded(configuration: Configure, toy: ResidentData) -> None:
    training = trained(configuration(), toy)
    state = training.get_state()
    assert state.pop("scaler") == {}
    again = begin_training(configuration(), toy)
    again.load_state(state)
    assert same(weights_of(again), weights_of(training))


# --- Memory layout


def test_images_and_convolutions_lie_pixel_by_pixel_and_compute_the_same(
    configuration: Configure, toy: ResidentData
) -> None:
    views = {"count": 2, "augmentation": "shift"}
    found = []
    for channels_last in (False, True):
        recipe = {"channels_last": channels_last, "views": views, "optimizer": "sgd"}
        training, seen = begin_training(configuration(model=CNN, recipe=recipe), toy), []
        training.model.encoder.layers[2].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        convolution = training.model.encoder.layers[2].weight
        assert convolution.is_contiguous() is not channels_last
        list(run_epochs(training))
        assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen) is channels_last
        found.append(weights_of(training))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_only_images_change_their_memory_format() -> None:
    inputs = {"image": torch.rand(2, 3, 4, 5), "vector": torch.rand(2, 3)}
    found = to_memory_format(inputs, Recipe(channels_last=True))
    assert found["image"].stride() == (60, 1, 15, 3)
    assert torch.equal(found["image"], inputs["image"])
    assert found["vector"] is inputs["vector"]
    assert to_memory_format(inputs, Recipe()) is inputs


def test_a_new_predictor_starts_equal_in_both_layouts_and_keeps_its_own() -> None:
    starts = []
    for layout in (torch.contiguous_format, torch.channels_last):
        predictor = nn.Conv2d(6, 1, 5, padding=2).to(memory_format=layout)
        model = Regressor.__new__(Regressor)
        nn.Module.__init__(model)
        model.predictor = predictor
        restart_predictor(model, seed=3)
        assert model.predictor is not predictor
        assert model.predictor.weight.stride() == predictor.weight.stride()
        starts.append(model.predictor.state_dict())
    assert same(*starts)


# --- Synchronized batch normalization


def test_batch_normalization_is_synchronized_for_several_workers_alone(
    configuration: Configure, toy: ResidentData
) -> None:
    config = configuration(model={"encoder": {"name": "resnet18"}}, recipe={"sync_batch_norm": True})
    one, two = (begin_training(config, toy, Ranks(0, world)).model for world in (1, 2))
    layers = [
        sum(isinstance(layer, kind) for layer in model.modules())
        for model in (one, two)
        for kind in (nn.BatchNorm2d, nn.SyncBatchNorm)
    ]
    assert layers == [20, 0, 0, 20]
    assert same(one.state_dict(), two.state_dict())
