"""`pytest tests/losses/test_pointwise.py`: each regression loss against its formula written as a loop."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import smooth_l1_loss

from dirtune.losses import LOSSES
from dirtune.losses.pointwise import L1, MSE, Huber, huber, l1, mse

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


every_loss = pytest.mark.parametrize(
    "loss", [pytest.param(LOSSES[n](), id=n) for n in sorted(LOSSES)]
)
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


def test_the_functions_are_what_the_values_call():
    predictions, labels, weights = _tensors()
    assert l1(predictions, labels, weights) == L1()(predictions, labels, weights)
    assert mse(predictions, labels, weights) == MSE()(predictions, labels, weights)
    expected = Huber(beta=0.3)(predictions, labels, weights)
    assert huber(predictions, labels, weights, beta=0.3) == expected


def test_huber_is_the_smooth_l1_of_torch():
    predictions, labels, _ = _tensors()
    expected = smooth_l1_loss(predictions, labels, beta=0.7)
    torch.testing.assert_close(huber(predictions, labels, beta=0.7), expected)


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
def test_a_perfect_prediction_has_no_loss_and_a_finite_gradient(loss):
    _, labels, weights = _tensors()
    predictions = labels.clone().requires_grad_()
    value = loss(predictions, labels, weights)
    value.backward()
    assert value == 0
    assert predictions.grad.abs().max() == 0


@every_loss
def test_the_gradient_is_the_slope_of_the_loss(loss):
    predictions, labels, weights = _tensors()
    labels[2] += 0.1  # away from the kink at a perfect prediction
    predictions[0] += 0.1  # and from Huber's change at an error of one
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
