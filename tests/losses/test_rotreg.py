"""`pytest tests/losses/test_rotreg.py`: the transport term against plain scalings, differentiated by autograd."""

from dataclasses import replace

import pytest
import torch

from dirtune.losses.rotreg import ROTReg, rotreg
from dirtune.testing import make_term_inputs


def _plan_by_scalings(costs):
    """Sinkhorn's scalings as they are written in textbooks, without logarithms; autograd unrolls them."""
    n = len(costs)
    kernel = torch.exp(-(costs + 999.0 * torch.eye(n)) / 0.1) * (1 - torch.eye(n))
    rows = columns = torch.full((n,), 1 / n, dtype=costs.dtype)
    for _ in range(300):
        columns = 1 / n / (kernel.T @ rows)
        rows = 1 / n / (kernel @ columns)
    return rows[:, None] * kernel * columns


def _by_hand(features, labels):
    scaled = features / features.norm(dim=1).mean()
    costs = torch.stack([torch.stack([(a - b).square().sum().clamp(min=1e-12).sqrt() for b in scaled]) for a in scaled])
    gaps = (labels[:, None] - labels).abs()
    plans = _plan_by_scalings(gaps / gaps.max()), _plan_by_scalings(costs)
    return ((costs * plans[0]).sum() - (costs * plans[1]).sum()).abs()


def test_the_term_and_its_gradient_are_those_of_plain_scalings():
    inputs = make_term_inputs(samples=9, views=1, dim=4, reads="embedding")
    features, labels = inputs.representations, inputs.labels
    expected = _by_hand(features, labels)
    (gradient,) = torch.autograd.grad(expected, features)
    loss = ROTReg()(inputs)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, features)[0], gradient, rtol=1e-5, atol=1e-7)


def test_a_plan_held_constant_has_the_value_and_another_gradient():
    inputs = make_term_inputs(samples=9, views=1, reads="embedding")
    found = []
    for kind in ("unrolled", "envelope"):
        loss = ROTReg(plan_gradient=kind)(inputs)
        found.append((loss, torch.autograd.grad(loss, inputs.representations)[0]))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1], rtol=1e-3)


def test_large_costs_are_finite_in_float32():
    features = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    features[0] *= 1e4
    features.requires_grad_()
    loss = rotreg(features, torch.arange(12.0), torch.arange(12), entropy=0.1)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()


def test_more_rows_than_asked_for_are_drawn_by_the_seed_whatever_their_order():
    inputs = make_term_inputs(samples=20, views=2, reads="embedding")
    term = ROTReg(rows=10)
    losses = [term(replace(inputs, draw_seed=seed)).item() for seed in (1, 2, 1)]
    assert losses[0] == losses[2] != losses[1]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    order = torch.cat([order, order + 20])
    rows = {name: getattr(inputs, name)[order] for name in ("representations", "labels", "samples")}
    assert term(replace(inputs, **rows, draw_seed=1)).item() == pytest.approx(losses[0], rel=1e-9)
