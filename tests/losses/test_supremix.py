"""`pytest tests/losses/test_supremix.py`: mixtures that are built one by one."""

from dataclasses import replace

import pytest
import torch

from dirtune.losses import supremix as module
from dirtune.losses.supremix import SupReMix, supremix
from dirtune.testing import make_term_inputs


def _by_hand(f, labels, shares, *, tau, window, growth):
    total = 0.0
    for i, own in enumerate(labels):
        positives, summands = [], []
        for k, label in enumerate(labels):
            s = f[i] @ f[k] / tau
            if k != i:
                summands.append((growth * abs(own - label) + 1) * s.exp())
                positives += [s] if label == own else []
            if label != own:
                b = shares[i, k]
                mixed, mixed_label = b * f[i] + (1 - b) * f[k], b * own + (1 - b) * label
                summands.append((growth * abs(own - mixed_label) + 1) * (f[i] @ mixed.detach() / tau).exp())
        for j, low in enumerate(labels):
            for k, high in enumerate(labels):
                if low < own < high and own - low < window and high - own < window:
                    a = (high - own) / (high - low)
                    s = f[i] @ (a * f[j] + (1 - a) * f[k]).detach() / tau
                    positives.append(s)
                    summands.append(s.exp())
        total = total + sum(torch.stack(summands).sum().log() - s for s in positives) / max(len(positives), 1)
    return total / len(labels)


@pytest.mark.parametrize("most", [1 << 22, 1])
def test_loss_and_gradient_are_those_of_mixtures_one_by_one(most, monkeypatch):
    monkeypatch.setattr(module, "_MOST_ENTRIES", most)
    inputs = make_term_inputs(samples=5)
    f, labels = inputs.representations, inputs.labels
    shares = torch.rand(10, 10, generator=torch.Generator().manual_seed(0)).double()
    settings = {"tau": 0.5, "window": 4.0, "growth": 0.7}
    expected = _by_hand(f, labels, shares, **settings)
    (gradient,) = torch.autograd.grad(expected, f)
    loss = supremix(f, labels, inputs.label_bins, lambda anchors: shares[anchors], **settings)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, f)[0], gradient, rtol=1e-10, atol=1e-12)


def test_shares_are_drawn_from_a_beta_distribution_by_the_seed():
    quantiles = module._compute_quantiles((2.0, 8.0))
    beta = torch.distributions.Beta(2.0, 8.0)
    assert quantiles.mean().item() == pytest.approx(beta.mean.item(), abs=1e-4)
    assert quantiles.std().item() == pytest.approx(beta.stddev.item(), abs=1e-3)
    inputs, term = make_term_inputs(), SupReMix()
    first, second, again = (term(replace(inputs, draw_seed=seed)).item() for seed in (1, 2, 1))
    assert first == again != second
