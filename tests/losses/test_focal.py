"""`pytest tests/losses/test_focal.py`: Focal-R against its formula as a loop and the published vectors."""

import json
from math import exp, tanh

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dirtune.losses.focal import FocalL1, FocalMSE
from tests.golden.vectors import load_reweighting

PREDICTIONS = [3.0, -1.0, 2.5, 7.0, 4.0]
LABELS = [2.0, 1.0, 2.5, 3.0, 4.3]
WEIGHTS = [0.5, 2.0, 9.0, 1.5, 1.0]


def _factor(error, activation, beta):
    if activation == "tanh":
        return tanh(beta * error)
    sigmoid = 1 / (1 + exp(-beta * error))
    return sigmoid if activation == "unshifted" else 2 * sigmoid - 1


def _by_loops(loss):
    power = 2 if loss.name == "focal_mse" else 1
    total = 0.0
    for prediction, label, weight in zip(PREDICTIONS, LABELS, WEIGHTS, strict=True):
        error = abs(prediction - label)
        total += weight * _factor(error, loss.activation, loss.beta) ** loss.gamma * error**power
    return total / len(LABELS)


@pytest.mark.parametrize("kind", [FocalL1, FocalMSE])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "unshifted"])
@pytest.mark.parametrize(("beta", "gamma"), [(0.2, 1.0), (20.0, 1.0), (1.0, 2.0), (1.0, 0.5)])
def test_focal_losses_equal_their_formula_written_as_loops(kind, activation, beta, gamma):
    loss = kind(activation=activation, beta=beta, gamma=gamma)
    tensors = (torch.tensor(v, dtype=torch.float64) for v in (PREDICTIONS, LABELS, WEIGHTS))
    assert loss(*tensors).item() == pytest.approx(_by_loops(loss), rel=1e-12)


@pytest.mark.parametrize("kind", [FocalL1, FocalMSE])
@pytest.mark.parametrize("gamma", [1e-3, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_towards_an_error_of_zero_is_finite_and_vanishes(kind, gamma, dtype):
    smallest = torch.finfo(dtype).tiny
    predictions = torch.tensor([0.0, smallest, 1e3 * smallest, -smallest], dtype=dtype)
    predictions.requires_grad_()
    labels = torch.zeros(4, dtype=dtype)
    kind(gamma=gamma)(predictions, labels).backward()
    assert predictions.grad.isfinite().all()
    assert predictions.grad[0] == 0


def test_without_a_power_the_factor_is_gone():
    predictions, labels = torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])
    assert FocalL1(gamma=0.0)(predictions, labels) == 2.0
    assert FocalMSE(gamma=0.0)(predictions, labels) == 5.0


def test_a_large_error_counts_in_full():
    predictions, labels = torch.tensor([1000.0]), torch.tensor([0.0])
    assert FocalL1()(predictions, labels) == 1000.0


@pytest.mark.parametrize(("field", "value"), [("beta", 0.0), ("gamma", -0.1), ("activation", "relu")])
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValidationError, match=field):
        FocalL1(**{field: value})


def test_losses_and_gradients_are_the_published_ones_and_zero_where_those_are_nan():
    golden = load_reweighting("losses")
    kinds = {"weighted_focal_l1_loss": FocalL1, "weighted_focal_mse_loss": FocalMSE}
    compared, not_finite = 0, set()
    meta = json.loads(str(golden["meta"]))
    for key, call in meta["calls"].items():
        if call["fn"] not in kinds:
            continue
        predictions, labels, weights = (
            torch.from_numpy(golden[f"{key.split('_')[0]}_{name}"][:, 0]) for name in ("inputs", "targets", "weights")
        )
        predictions.requires_grad_()
        focal = kinds[call["fn"]](activation=call["activate"], beta=call["beta"], gamma=float(call["gamma"]))
        loss = focal(predictions, labels, weights if key.endswith("__w") else None)
        loss.backward()
        assert loss.item() == pytest.approx(float(golden[f"{key}__loss"]), rel=1e-12), key
        expected = golden[f"{key}__grad"][:, 0]
        if not np.isfinite(expected).all():
            not_finite.add(f"{key}__grad")
            assert (labels == predictions)[~np.isfinite(expected)].all()
        expected = np.nan_to_num(expected, nan=0.0)
        np.testing.assert_allclose(predictions.grad.numpy(), expected, rtol=1e-9, err_msg=key)
        compared += 1
    assert compared == 64
    assert not_finite == set(meta["non_finite_keys"])


@pytest.mark.parametrize("kind", [FocalL1, FocalMSE])
def test_sample_weights_do_not_count_where_they_are_not_to(kind):
    predictions, labels, weights = (torch.tensor(v, dtype=torch.float64) for v in (PREDICTIONS, LABELS, WEIGHTS))
    unweighted = kind(weighted=False)(predictions, labels, weights)
    assert torch.equal(unweighted, kind()(predictions, labels, torch.ones_like(weights)))
    assert unweighted != kind()(predictions, labels, weights)
