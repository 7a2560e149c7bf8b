"""Run with `pytest tests/training/test_two_passes.py`: sharpness-aware steps, by plain loops and the official code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dirtune.batch import Batch
from dirtune.data.cache import ResidentData, make_epoch_order
from dirtune.errors import InputError
from dirtune.nested import merge
from dirtune.sharpness import ASAM, SAM
from dirtune.training import loop, numerics, two_passes
from dirtune.training.state import begin_training
from tests.golden.vectors import list_newest, read_newest
from tests.training.runs import Configure, in_float64, same, weights_of
from tests.training.toy_inputs import make_case_config, make_data

SGD = {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.01, "epochs": 1}


@pytest.mark.parametrize(
    ("recipe", "weights"),
    [({"batch_size": 67}, "both"), ({"batch_size": 66, "accumulation": 3, "gradient_clip": 0.5}, "ascent")],
)
def test_steps_equal_a_plain_loop(
    configuration: Configure, toy: ResidentData, recipe: dict[str, Any], weights: str
) -> None:
    data = in_float64(toy)
    config = configuration(
        sharpness={"name": "sam", "rho": 0.3, "weights": weights},
        reweighting={"scheme": "sqrt_inverse"},
        recipe=SGD | recipe,
    )
    training, plain = begin_training(config, data), begin_training(config, data)
    training.model.double()
    model = plain.model.double()
    list(loop.run_epochs(training))
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=0.01)
    split = data.splits["train"]
    counts = np.sqrt(np.bincount(split.label_bins))[split.label_bins]
    factors = torch.from_numpy((1 / counts) / (1 / counts).mean()).float()

    def compute_gradient(rows: Tensor, factor: Tensor) -> Sequence[Tensor]:
        errors = model({"vector": split.inputs["vector"][rows]}).predictions - split.labels[rows]
        return torch.autograd.grad((factor * errors.abs()).mean(), parameters)

    for rows in make_epoch_order(0, 1, 202).split(recipe["batch_size"]):
        first = compute_gradient(rows, factors[rows])
        length = sum(each.square().sum() for each in first).sqrt()
        with torch.no_grad():
            moved = [0.3 * each / length for each in first]
            for parameter, step in zip(parameters, moved, strict=True):
                parameter += step
        second = compute_gradient(rows, factors[rows] if weights == "both" else torch.ones(len(rows)))
        with torch.no_grad():
            for parameter, step, gradient in zip(parameters, moved, second, strict=True):
                parameter -= step
                parameter.grad = gradient
        if "gradient_clip" in recipe:
            nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
    torch.testing.assert_close(weights_of(training), weights_of(plain), rtol=1e-11, atol=1e-12)


class TwoLayers(nn.Module):
    """The network of the golden vectors, in place of the encoder and predictor."""

    def __init__(self, golden: Any) -> None:
        super().__init__()
        for name in ("w1", "b1", "w2", "b2"):
            self.register_parameter(name, nn.Parameter(golden[f"{name}_before"].clone()))

    def predict(self, inputs: Tensor) -> Tensor:
        return (torch.tanh(inputs @ self.w1.T + self.b1) @ self.w2.T + self.b2).squeeze(1)


@pytest.mark.parametrize("name", list_newest("bsam"))
def test_parameters_and_gradients_are_those_of_the_official_code(
    configuration: Configure, toy: ResidentData, name: str
) -> None:
    golden = read_newest(name)
    settings = golden.hyperparameters
    model = TwoLayers(golden)
    weighted = "both" if settings["weighted_descent"] else "ascent"
    sharpness = {"name": "sam", "rho": settings["rho"], "weights": weighted}
    recipe = {"optimizer": "sgd", **{key: settings[key] for key in ("momentum", "weight_decay")}}
    training = begin_training(configuration(sharpness=sharpness, recipe={**recipe, "learning_rate": 0.2}), toy)
    training.model = model
    (group,) = training.optimizer.param_groups
    group["params"] = list(model.parameters())
    for step in range(settings["steps"]):
        inputs, targets, weights = (golden[f"{key}_{step}"] for key in ("inputs", "targets", "weights"))
        passes: list[dict[str, Tensor]] = []

        def add_gradient(
            batch: Any, inputs: Tensor = inputs, targets: Tensor = targets, passes: list[dict[str, Tensor]] = passes
        ) -> None:
            at = {name: each.detach().clone() for name, each in model.named_parameters()}
            loss = (batch.weights * (model.predict(inputs) - targets).abs()).mean()
            loss.backward()
            gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
            passes.append({"loss": loss.detach(), **{f"grad_{key}": each for key, each in gradients.items()}, **at})

        batch = _make_batch(inputs, targets, weights)
        training.optimizer.zero_grad()
        add_gradient(batch)
        two_passes.replace_gradient(training, [batch], add_gradient)
        training.optimizer.step()
        expected = {"loss": golden[f"loss_ascent_{step}"], "perturbed": golden[f"loss_descent_{step}"]}
        found = {"loss": passes[0]["loss"], "perturbed": passes[1]["loss"]}
        for key, parameter in model.named_parameters():
            for index, kind in enumerate(("ascent", "descent")):
                expected[f"{kind} {key}"] = golden[f"grad_{kind}_{key}_{step}"]
                found[f"{kind} {key}"] = passes[index][f"grad_{key}"]
            expected[f"perturbed {key}"] = golden[f"out_perturbed_{key}_{step}"]
            found[f"perturbed {key}"] = passes[1][key]
            expected[key], found[key] = golden[f"out_{key}_{step}"], parameter.detach()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def _make_batch(inputs: Tensor, targets: Tensor, weights: Tensor) -> Batch:
    rows = torch.arange(len(targets))
    return Batch(views=({"vector": inputs},), labels=targets, label_bins=rows, weights=weights, rows=rows)


def test_an_overflow_of_either_pass_leaves_the_parameters_and_skips_the_step(
    configuration: Configure, toy: ResidentData
) -> None:
    training = begin_training(configuration(sharpness={"name": "sam", "rho": 0.5}, recipe=SGD), toy)
    # A scaler of this machine's CPU, as fp16 training has one of the GPU
    training.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    start = weights_of(training)
    for overflowing in (1, 2, 0):
        passes = []

        def add_gradient(batch: Any, overflowing: int = overflowing, passes: list[dict[str, Tensor]] = passes) -> None:
            passes.append(weights_of(training))
            output = training.model(batch.views[0])
            factor = float("inf") if len(passes) == overflowing else 1.0
            training.scaler.scale(factor * (output.predictions - batch.labels).abs().mean()).backward()

        split = toy.splits["train"]
        rows = torch.arange(20)
        batch = _make_batch(split.inputs["vector"][rows], split.labels[rows], torch.ones(20))
        training.optimizer.zero_grad()
        add_gradient(batch)
        two_passes.replace_gradient(training, [batch], add_gradient)
        assert same(weights_of(training), start)
        training.scaler.step(training.optimizer)
        training.scaler.update()
        assert same(weights_of(training), start) is bool(overflowing)
        assert len(passes) == (1 if overflowing == 1 else 2)
        # The perturbation does not depend on the scale of the loss.
        moved = [(passes[-1][name] - start[name]).square().sum() for name in start]
        assert float(sum(moved)) ** 0.5 == pytest.approx(0.5 * (overflowing != 1), rel=1e-4)


def test_an_adaptive_perturbation_is_in_units_of_the_parameters() -> None:
    parameters = [torch.tensor([3.0, -1.0]), torch.tensor([[0.0]])]
    gradients = [torch.tensor([1.0, 2.0]), torch.tensor([[5.0]])]
    found = ASAM(rho=0.5, eta=0.1).compute_perturbations(parameters, gradients)
    size = [3.1, 1.1, 0.1]
    length = ((3.1 * 1) ** 2 + (1.1 * 2) ** 2 + (0.1 * 5) ** 2) ** 0.5
    expected = [0.5 * t * t * g / length for t, g in zip(size, (1.0, 2.0, 5.0), strict=True)]
    assert [*found[0].tolist(), found[1].item()] == pytest.approx(expected)
    assert all((each == 0).all() for each in SAM().compute_perturbations(parameters, [0 * each for each in gradients]))


def test_frozen_parameters_and_those_of_losses_are_not_perturbed(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, compute = [], SAM.compute_perturbations

    def record(self: SAM, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        sizes.append(sum(each.numel() for each in parameters))
        return compute(self, parameters, gradients)

    monkeypatch.setattr(SAM, "compute_perturbations", record)
    scheme = {"name": "rrt", "epochs": 1}
    config = configuration(
        sharpness={"name": "sam"}, loss={"name": "bmc"}, scheme=scheme, recipe=SGD | {"batch_size": 202}
    )
    training = begin_training(config, toy)
    assert list(training.loss.parameters())
    list(loop.run_epochs(training))
    whole, predictor = (
        sum(each.numel() for each in part.parameters()) for part in (training.model, training.model.predictor)
    )
    assert sizes == [whole, predictor]


def test_the_second_pass_moves_the_statistics_of_batch_normalization_unless_asked_not_to() -> None:
    data = make_data("image", torch.device("cpu"))
    settings = {"model": {"encoder": {"name": "resnet18"}}, "recipe": {"epochs": 1, "batch_size": 24}}
    moved = {}
    for passes in ("none", "both", "first"):
        chosen = None if passes == "none" else {"name": "sam", "batch_norm": passes}
        training = begin_training(make_case_config("image", merge(settings, {"sharpness": chosen})), data)
        list(loop.run_epochs(training))
        moved[passes] = {name: each for name, each in training.model.named_buffers() if "running" in name}
        assert all(layer.track_running_stats for layer in numerics.list_batch_norms(training.model))
    assert same(moved["first"], moved["none"])
    assert not same(moved["both"], moved["none"])


def test_weights_in_one_pass_are_refused_where_samples_have_none() -> None:
    config = make_case_config("dense", {"sharpness": {"name": "sam", "weights": "ascent"}})
    with pytest.raises(
        InputError, match=r"sharpness.weights: is not defined for per-pixel labels; both is, got 'ascent'"
    ):
        begin_training(config, make_data("dense", torch.device("cpu")))
