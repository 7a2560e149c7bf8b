"""`pytest tests/losses/test_tukey.py`: Tukey's biweight against its formula as a loop."""

from statistics import median_low

import pytest
import torch
from pydantic import ValidationError

from dirtune.losses.tukey import Tukey

PREDICTIONS = [3.0, -1.0, 2.5, 70.0, 4.0, 1.2]
LABELS = [2.0, 1.0, 2.5, 3.0, 4.3, 1.9]
WEIGHTS = [0.5, 2.0, 9.0, 1.5, 1.0, 0.3]


def _by_loops(c, scale):
    residuals = [p - y for p, y in zip(PREDICTIONS, LABELS, strict=True)]
    if scale == "mad":
        middle = median_low(residuals)
        deviation = 1.4826 * median_low([abs(r - middle) for r in residuals])
        residuals = [r / deviation for r in residuals]
    total = 0.0
    for residual, weight in zip(residuals, WEIGHTS, strict=True):
        flat = abs(residual) > c
        total += weight * c**2 / 6 * (1 if flat else 1 - (1 - (residual / c) ** 2) ** 3)
    return total / len(residuals)


def _tensors():
    return [torch.tensor(values, dtype=torch.float64) for values in (PREDICTIONS, LABELS, WEIGHTS)]


@pytest.mark.parametrize("c", [0.9, 4.685])
@pytest.mark.parametrize("scale", ["mad", "none"])
def test_the_loss_equals_its_formula_written_as_loops(c, scale):
    loss = Tukey(c=c, scale=scale)(*_tensors())
    assert loss.item() == pytest.approx(_by_loops(c, scale), rel=1e-12)


def test_the_published_constants_are_the_default():
    assert Tukey() == Tukey(c=4.685, scale="mad")


def test_near_zero_it_is_half_the_squared_error():
    residuals = torch.tensor([1e-3, -2e-3])
    loss = Tukey(scale="none")(residuals, torch.zeros(2))
    torch.testing.assert_close(loss, 0.5 * residuals.square().mean(), rtol=1e-6, atol=0)


def test_an_outlier_has_no_gradient_and_costs_a_constant():
    predictions = torch.tensor([1.0, 10.0], requires_grad=True)
    loss = Tukey(c=3.0, scale="none")(predictions, torch.zeros(2), torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss == 9 / 6 / 2
    assert predictions.grad[1] == 0


@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_the_robust_scale_takes_the_unit_out(factor):
    predictions, labels, weights = _tensors()
    scaled = Tukey()(factor * predictions, factor * labels, weights)
    torch.testing.assert_close(scaled, Tukey()(predictions, labels, weights))


def test_each_label_dimension_has_its_own_robust_scale():
    predictions, labels, weights = _tensors()
    two = torch.stack([predictions, 9 * predictions], 1), torch.stack([labels, 9 * labels], 1)
    torch.testing.assert_close(Tukey()(*two, weights), Tukey()(predictions, labels, weights))


def test_the_robust_scale_is_a_constant_for_the_gradient():
    predictions, labels, weights = _tensors()
    predictions.requires_grad_()
    residuals = (predictions - labels).detach()
    deviation = 1.4826 * (residuals - residuals.median()).abs().median()
    (gradient,) = torch.autograd.grad(Tukey()(predictions, labels, weights), predictions)
    scaled = Tukey(scale="none")(predictions / deviation, labels / deviation, weights)
    (expected,) = torch.autograd.grad(scaled, predictions)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("residuals", [[2.0], [2.0, 2.0, 2.0, 5.0]])
def test_without_a_spread_errors_stay_as_they_are(residuals):
    predictions = torch.tensor(residuals)
    labels = torch.zeros(len(residuals))
    assert Tukey()(predictions, labels) == Tukey(scale="none")(predictions, labels)


@pytest.mark.parametrize(("field", "value"), [("c", 0.0), ("scale", "std")])
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValidationError, match=field):
        Tukey(**{field: value})
