"""`pytest tests/losses/test_ccc.py`: the concordance correlation against its plain definition."""

import numpy as np
import pytest
import torch

from dirtune.losses.ccc import CCC, ccc


def _concordance(p, y, shares):
    mean_p, mean_y = sum(shares * p), sum(shares * y)
    covariance = sum(shares * (p - mean_p) * (y - mean_y))
    spread = sum(shares * (p - mean_p) ** 2) + sum(shares * (y - mean_y) ** 2)
    return 2 * covariance / (spread + (mean_p - mean_y) ** 2)


@pytest.mark.parametrize("dims", [None, 2])
def test_it_is_one_minus_the_weighted_concordance(dims):
    rng = np.random.default_rng(0)
    labels, noise = rng.normal(40, 15, size=(2, 20, dims or 1))
    predictions, weights = 0.5 * labels + 0.3 * noise, rng.uniform(0.5, 2, size=20)
    expected = np.mean(
        [1 - _concordance(p, y, weights / weights.sum()) for p, y in zip(predictions.T, labels.T, strict=True)]
    )
    p, y = (torch.tensor(each if dims else each[:, 0]) for each in (predictions, labels))
    assert ccc(p, y, torch.tensor(weights)).item() == pytest.approx(expected, rel=1e-12)
    found = CCC(weight=3.0)(p, y, torch.tensor(weights)).item()
    point = np.mean(weights[:, None] * np.abs(predictions - labels))
    assert found == pytest.approx(point + 3 * expected, rel=1e-12)


def test_a_constant_prediction_costs_one_and_an_exact_one_nothing():
    labels = torch.tensor([1.0, 2.0, 9.0])
    assert ccc(torch.full((3,), 4.0), labels).item() == 1.0
    assert ccc(labels, labels).item() == pytest.approx(0.0, abs=1e-6)
    constant = torch.full((3,), 0.1, requires_grad=True)
    loss = ccc(constant, torch.full((3,), 0.1))
    loss.backward()
    assert loss.item() == 0.0
    assert constant.grad.abs().max() == 0
