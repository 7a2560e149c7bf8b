"""`pytest tests/losses/test_prime.py`: the formulas of the rewrites as loops."""

import numpy as np
import pytest
import torch

from dirtune.losses.prime import PRIME, align, compare_proxies
from dirtune.testing import fit, make_term_inputs


def _distance(one, other):
    return 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_proxies_and_alignment_are_those_of_loops():
    rng = np.random.default_rng(0)
    proxies, grid = rng.normal(size=(4, 3)), np.linspace(0, 1, 4)
    vectors, labels = rng.normal(size=(5, 3)), rng.uniform(size=5)
    ordered = [(i, j) for i in range(4) for j in range(4) if i != j]
    gaps = np.array([abs(grid[i] - grid[j]) for i, j in ordered])
    apart = np.array([_distance(proxies[i], proxies[j]) for i, j in ordered])
    p, q = np.exp(-5 * gaps) / np.exp(-5 * gaps).sum(), np.exp(-3 * apart) / np.exp(-3 * apart).sum()
    kl, repulsion = compare_proxies(torch.tensor(proxies), torch.tensor(grid), tau_labels=5.0, tau_features=3.0)
    assert kl.item() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-10)
    assert repulsion.item() == pytest.approx((gaps * apart**2).sum(), rel=1e-10)
    total = 0.0
    for vector, label in zip(vectors, labels, strict=True):
        targets = np.exp(-5 * np.abs(label - grid))
        shares = np.exp([-3 * _distance(vector, proxy) for proxy in proxies])
        total -= (targets / targets.sum() * np.log(shares / shares.sum())).sum() / 5
    found = align(*map(torch.tensor, (vectors, labels, proxies, grid)), tau_labels=5.0, tau_features=3.0)
    assert found.item() == pytest.approx(total, rel=1e-10)


def test_a_proxy_beyond_the_reach_of_the_batch_adds_nothing_to_balanced_targets():
    generator = torch.Generator().manual_seed(0)
    vectors, proxies = (torch.randn(rows, 3, generator=generator) for rows in (5, 2))
    taus = {"tau_labels": 300.0, "tau_features": 3.0}
    # exp(-300) is zero in float32: the target is the proxy at the label alone, times the mean mass over its own.
    found = align(vectors, torch.zeros(5), proxies, torch.tensor([0.0, 1.0]), balanced=True, **taus)
    plain = align(vectors, torch.zeros(5), proxies, torch.tensor([0.0, 1.0]), **taus)
    torch.testing.assert_close(found, plain / 2)


def test_the_proxies_are_trained():
    fitted = fit(PRIME(proxies=6))
    fitted(make_term_inputs()).backward()
    assert fitted.proxies.grad.abs().max() > 0
    assert fitted.learning_rate == 1e-3
