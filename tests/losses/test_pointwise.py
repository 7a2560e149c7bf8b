"""`pytest tests/losses/test_pointwise.py`: L1, MSE and Huber against loops; what all losses of single errors promise."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import smooth_l1_loss

from dirtune.losses.focal import FocalL1, FocalMSE
from dirtune.losses.pointwise import L1, MSE, Huber
from dirtune.losses.tukey import Tukey
from tests.golden.vectors import load_reweighting

PREDICTIONS = [3.0, -1.0, 2.5, 7.0, 4.0]
LABELS = [2.0, 1.0, 2.5, 3.0, 4.3]
WEIGHTS = [0.5, 2.0, 9.0, 1.5, 1.0]


def _l1_of(error):
    return error


def _mse_of(error):
    return error**2


def _huber_of(error, beta=1.0):
    return error**2 / (2 * beta) if error < beta else error - beta / 2


def _by_loops(loss_of, weights=(1.0,) * 5):
    pairs = zip(PREDICTIONS, LABELS, weights, strict=True)
    return sum(w * loss_of(abs(p - y)) for p, y, w in pairs) / len(PREDICTIONS)


def _tensors(dtype=torch.float64):
    return [torch.tensor(values, dtype=dtype) for values in (PREDICTIONS, LABELS, WEIGHTS)]


SLOPED = [
    pytest.param(L1(), id="l1"),
    pytest.param(MSE(), id="mse"),
    pytest.param(Huber(), id="huber"),
    pytest.param(FocalL1(), id="focal_l1"),
    pytest.param(FocalL1(gamma=0.5), id="focal_l1-gamma_0.5"),
    pytest.param(FocalL1(gamma=0.0), id="focal_l1-gamma_0"),
    pytest.param(FocalMSE(activation="tanh"), id="focal_mse-tanh"),
    pytest.param(FocalMSE(activation="unshifted", gamma=2.0), id="focal_mse-unshifted"),
    pytest.param(Tukey(scale="none"), id="tukey-none"),
]
TAKES_ITS_SCALE_FOR_A_CONSTANT = pytest.param(Tukey(), id="tukey-mad")
every_loss = pytest.mark.parametrize("loss", [*SLOPED, TAKES_ITS_SCALE_FOR_A_CONSTANT])
every_formula = pytest.mark.parametrize(
    ("loss", "loss_of"),
    [
        pytest.param(L1(), _l1_of, id="l1"),
        pytest.param(MSE(), _mse_of, id="mse"),
        pytest.param(Huber(), _huber_of, id="huber"),
        pytest.param(Huber(beta=0.25), lambda e: _huber_of(e, 0.25), id="huber_0.25"),
    ],
)


@every_formula
def test_weighted_loss_is_the_mean_over_samples_of_weight_times_loss(loss, loss_of):
    assert loss(*_tensors()).item() == pytest.approx(_by_loops(loss_of, WEIGHTS), rel=1e-12)


@every_formula
def test_no_weights_means_the_plain_mean(loss, loss_of):
    predictions, labels, _ = _tensors()
    assert loss(predictions, labels, None).item() == pytest.approx(_by_loops(loss_of), rel=1e-12)


def test_huber_is_the_smooth_l1_of_torch():
    predictions, labels, _ = _tensors()
    expected = smooth_l1_loss(predictions, labels, beta=0.7)
    torch.testing.assert_close(Huber(beta=0.7)(predictions, labels), expected)


@every_loss
def test_labels_of_two_dimensions_give_the_mean_of_the_dimensions(loss):
    predictions, labels, weights = _tensors()
    two = torch.stack([predictions, 2 - predictions], 1), torch.stack([labels, 3 * labels], 1)
    expected = [loss(two[0][:, dim], two[1][:, dim], weights) for dim in (0, 1)]
    torch.testing.assert_close(loss(*two, weights), sum(expected) / 2)


@every_loss
def test_a_column_of_labels_is_a_vector_of_labels(loss):
    predictions, labels, weights = _tensors()
    column = loss(predictions[:, None], labels[:, None], weights)
    assert column == loss(predictions, labels, weights)


@every_loss
def test_twice_the_weights_is_twice_the_loss(loss):
    predictions, labels, weights = _tensors()
    doubled = loss(predictions, labels, 2 * weights)
    torch.testing.assert_close(doubled, 2 * loss(predictions, labels, weights))


@every_loss
def test_permuting_the_samples_changes_nothing(loss):
    order = torch.tensor([4, 2, 0, 1, 3])
    permuted = loss(*(values[order] for values in _tensors()))
    torch.testing.assert_close(permuted, loss(*_tensors()))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_perfect_prediction_has_no_loss_and_no_gradient(loss, dtype):
    _, labels, weights = _tensors(dtype)
    predictions = labels.clone().requires_grad_()
    value = loss(predictions, labels, weights)
    value.backward()
    assert value == 0
    assert predictions.grad.abs().max() == 0


@pytest.mark.parametrize("loss", SLOPED)
def test_the_gradient_is_the_slope_of_the_loss(loss):
    predictions, labels, weights = _tensors()
    # Away from the kink at a perfect prediction
    labels[2] += 0.1
    # And from Huber's change at an error of one
    predictions[0] += 0.1
    predictions.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, labels, weights), (predictions,))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    predictions, labels, weights = _tensors(dtype)
    value = loss(predictions, labels, weights)
    assert value.dtype == torch.float32
    assert value == loss(predictions.float(), labels.float(), weights.float())


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_huber_refuses_a_beta_that_is_not_positive(beta):
    with pytest.raises(ValidationError, match="greater than 0"):
        Huber(beta=beta)


def test_losses_and_gradients_are_the_published_ones():
    golden = load_reweighting("losses")
    kinds = {"weighted_l1_loss": L1, "weighted_mse_loss": MSE, "weighted_huber_loss": Huber}
    compared = 0
    for key, call in json.loads(str(golden["meta"]))["calls"].items():
        kind = kinds.get(call.pop("fn"))
        # A focal one
        if kind is None:
            continue
        predictions, labels, weights = (
            torch.from_numpy(golden[f"{key.split('_')[0]}_{name}"][:, 0]) for name in ("inputs", "targets", "weights")
        )
        predictions.requires_grad_()
        loss = kind(**call)(predictions, labels, weights if key.endswith("__w") else None)
        loss.backward()
        assert loss.item() == pytest.approx(float(golden[f"{key}__loss"]), rel=1e-12), key
        expected = golden[f"{key}__grad"][:, 0]
        np.testing.assert_allclose(predictions.grad.numpy(), expected, rtol=1e-12, err_msg=key)
        compared += 1
    assert compared == 18
