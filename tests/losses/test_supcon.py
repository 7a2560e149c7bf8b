"""`pytest tests/losses/test_supcon.py`: SupCon against the formula written as loops over anchors."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.losses.supcon import SupCon, supcon


def _supcon_by_loops(z, bins, *, tau, smoothing, reduction):
    rows, losses = range(len(z)), []
    for i in rows:
        c = [sum(a * b for a, b in zip(z[i], z[j], strict=True)) for j in rows]
        positives = [j for j in rows if j != i and bins[j] == bins[i]]
        if not positives:
            if reduction == "all":
                losses.append(-1.0 if smoothing else 0.0)
            continue
        total = sum(math.exp(c[k] / tau) for k in rows if k != i)
        log_shares = [math.log(math.exp(c[j] / tau) / total) for j in positives]
        losses.append(-(sum(log_shares) + smoothing) / (len(positives) + smoothing))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 1e-5])
@pytest.mark.parametrize("reduction", ["all", "valid"])
def test_supcon_equals_the_loops(seed, views, tau, smoothing, reduction, term_inputs):
    inputs = term_inputs(views=views, seed=seed)
    z, bins = inputs.representations.detach(), inputs.label_bins
    settings = {"tau": tau, "smoothing": smoothing, "reduction": reduction}
    expected = _supcon_by_loops(z.tolist(), bins.tolist(), **settings)
    assert supcon(z, bins, **settings).item() == pytest.approx(expected, rel=1e-10)


def test_the_term_hands_its_hyperparameters_on(term_inputs):
    inputs = term_inputs()
    z, bins = inputs.representations, inputs.label_bins
    official = SupCon(gamma=3.0, tau=0.2, epsilon=0.1, reduction="valid")
    paper = SupCon(tau=0.2, epsilon=0.1, variant="paper")
    assert official.weight == 3.0
    assert official(inputs) == supcon(z, bins, tau=0.2, smoothing=0.1, reduction="valid")
    assert paper(inputs) == supcon(z, bins, tau=0.2, smoothing=0.0, reduction="all")


@pytest.mark.parametrize(("variant", "constant"), [("official", -1.0), ("paper", 0.0)])
def test_anchors_without_positives_give_a_constant_without_gradient(variant, constant, term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1)
    loss = SupCon(variant=variant)(inputs)
    loss.backward()
    assert loss == constant
    assert inputs.representations.grad.abs().max() == 0


def test_without_valid_anchors_the_mean_over_them_is_zero(term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1)
    assert SupCon(reduction="valid")(inputs) == 0


def test_equal_labels_and_equal_vectors_reach_the_minimum():
    z = normalize(torch.ones(7, 3, dtype=torch.float64), dim=1)
    loss = supcon(z, torch.zeros(7, dtype=torch.long), tau=0.05)
    assert loss.item() == pytest.approx(math.log(6))


def test_pulling_a_positive_nearer_lowers_the_loss():
    turns = torch.tensor([0.0, 0.4, 2.0, 2.5], dtype=torch.float64)
    nearer = torch.tensor([0.0, 0.2, 2.0, 2.5], dtype=torch.float64)
    bins = torch.tensor([0, 0, 1, 1])
    losses = [supcon(torch.stack([t.cos(), t.sin()], 1), bins, tau=0.5) for t in (turns, nearer)]
    assert losses[1] < losses[0]
