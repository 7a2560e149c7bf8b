"""`pytest tests/losses/test_dist_loss.py`: Dist Loss against loops, quantiles and a projection onto the permutahedron."""

import numpy as np
import pytest
import torch

from dirtune.batch import TrainingLabels
from dirtune.losses.dist_loss import DistLoss, estimate_density, select_pseudo_labels, soft_sort
from dirtune.manifest import LabelSpec

AGE = LabelSpec(name="age", unit="years", low=0.0, high=99.0, bin_width=1.0, num_bins=100)


def _ages(rows=400):
    return np.random.default_rng(0).normal(40, 15, size=rows).clip(1, 98).round()


def _fit(loss, ages, weights=None, label_scale=1.0):
    labels = torch.tensor(ages)
    weights = None if weights is None else torch.tensor(weights)
    given = TrainingLabels(labels=labels, label_bins=labels.long(), spec=AGE, label_scale=label_scale, weights=weights)
    return loss.fit(given)


def _pool_adjacent_violators(z):
    """Non-increasing isotonic regression, one block after the other."""
    blocks = []
    for value in z:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (first, n), (second, m) = blocks[-2:]
            blocks[-2:] = [[(first * n + second * m) / (n + m), n + m]]
    return np.concatenate([[value] * count for value, count in blocks])


@pytest.mark.parametrize("strength", [0.01, 0.3, 2.0])
def test_the_soft_sort_is_the_isotonic_projection(strength):
    values = torch.tensor(np.random.default_rng(1).normal(0, 5, size=15), requires_grad=True)
    rho = np.arange(15, 0, -1) / strength
    expected = _pool_adjacent_violators(np.sort(values.detach().numpy()) + rho) - rho
    np.testing.assert_allclose(soft_sort(values, strength).detach().numpy(), expected, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(lambda x: soft_sort(x, strength), values)


def test_without_a_wide_gap_it_is_a_sort_with_the_gradient_of_one():
    values = torch.tensor([3.0, -1.0, 2.0], requires_grad=True)
    ordered = soft_sort(values, 0.1)
    assert ordered.tolist() == [-1.0, 2.0, 3.0]
    (ordered * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert values.grad.tolist() == [3.0, 1.0, 2.0]


def test_pseudo_labels_have_the_mean_of_the_density_for_every_batch_size():
    fitted = _fit(DistLoss(), _ages())
    mean = (fitted.grid * fitted.density).sum().item()
    for rows in (1, 8, 64, 512):
        quantiles = fitted.grid[select_pseudo_labels(fitted.density, rows, form="quantile")]
        assert len(quantiles) == rows
        assert quantiles.mean().item() == pytest.approx(mean, abs=1.0)
    cumulative = np.cumsum(fitted.density.numpy())
    by_hand = [next(k for k in range(100) if cumulative[k] >= (i + 0.5) / 64) for i in range(64)]
    assert select_pseudo_labels(fitted.density, 64, form="quantile").tolist() == by_hand


def test_the_weight_of_a_rank_is_that_of_its_pseudo_label_and_not_of_its_row():
    ages = _ages()
    weights = 1.0 + ages / 50
    fitted = _fit(DistLoss(), ages, weights, label_scale=10.0)
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(ages[:12]) / 10
    predictions = labels + torch.randn(12, generator=generator, dtype=torch.float64)
    own = torch.tensor(weights[:12])
    quantiles = fitted.grid[select_pseudo_labels(fitted.density, 12, form="quantile")]
    nearest = np.array([weights[np.abs(ages / 10 - q).argmin()] for q in quantiles.numpy()])
    by_hand = (own * (predictions - labels).abs()).mean()
    by_hand += (torch.tensor(nearest) * (predictions.sort().values - quantiles).abs()).mean()
    torch.testing.assert_close(fitted(predictions, labels, own), by_hand)
    position = _fit(DistLoss(weights="position"), ages, weights, label_scale=10.0)
    assert not torch.isclose(position(predictions, labels, own), by_hand)


def test_labels_within_one_grid_step_are_at_the_nearest_grid_point():
    # The nearest grid point is 32 deviations of the kernel away, the next one 34: exp(-512) and exp(-578), in proportion.
    labels = 30.0 + np.array([-1.0, 1.0]) * 0.125 / np.sqrt(2)
    grid, density = estimate_density(labels, np.array([26.0, 34.25]), bandwidth=1.0)
    assert grid.tolist() == [26.0, 34.25]
    assert density[0] == pytest.approx(1.0)
    # A hundred times as far, both exponentials are zero.
    _, density = estimate_density(labels, np.array([26.0, 34.25]), bandwidth=0.01)
    assert density.tolist() == [1.0, 0.0]


def test_one_label_is_every_pseudo_label():
    fitted = _fit(DistLoss(), np.full(5, 7.0))
    predictions = torch.tensor([6.0, 9.0], dtype=torch.float64, requires_grad=True)
    assert fitted(predictions, torch.full((2,), 7.0).double()).item() == pytest.approx(3.0)
