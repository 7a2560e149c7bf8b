"""`pytest tests/losses/test_multi_similarity.py`: Multi-Similarity against loops, and against pytorch-metric-learning."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.losses import blocks
from dirtune.losses.multi_similarity import MultiSimilarity, multi_similarity

SETTINGS = {"alpha": 2.0, "beta": 50.0, "threshold": 0.5, "margin": 0.1}


def _multi_similarity_by_loops(inputs, *, alpha, beta, threshold, margin):
    z, bins = inputs.representations.tolist(), inputs.label_bins.tolist()
    rows, losses = range(len(z)), []
    for i in rows:
        cosine = {j: sum(a * b for a, b in zip(z[i], z[j], strict=True)) for j in rows if j != i}
        positives = [c for j, c in cosine.items() if bins[j] == bins[i]]
        negatives = [c for j, c in cosine.items() if bins[j] != bins[i]]
        if margin is not None:
            hardest = min(positives, default=math.inf), max(negatives, default=-math.inf)
            positives = [c for c in positives if c < hardest[1] + margin]
            negatives = [c for c in negatives if c > hardest[0] - margin]
        pull = sum(math.exp(-alpha * (c - threshold)) for c in positives)
        push = sum(math.exp(beta * (c - threshold)) for c in negatives)
        losses.append(math.log(1 + pull) / alpha + math.log(1 + push) / beta)
    return sum(losses) / len(losses)


def _multi_similarity(inputs, **changed):
    return multi_similarity(inputs.representations, inputs.label_bins, **{**SETTINGS, **changed})


def _on_a_circle(inputs, degrees):
    """The inputs with representations at these angles."""
    turns = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    inputs.representations.data = torch.stack([turns.cos(), turns.sin()], dim=1)
    return inputs


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 50.0), (10.0, 1.0)])
@pytest.mark.parametrize("threshold", [0.5, -0.2])
@pytest.mark.parametrize("margin", [None, 0.0, 0.1, 3.0])
def test_multi_similarity_equals_the_loops(seed, views, alpha, beta, threshold, margin, term_inputs):
    inputs = term_inputs(samples=12, views=views, seed=seed)
    changed = {"alpha": alpha, "beta": beta, "threshold": threshold, "margin": margin}
    expected = _multi_similarity_by_loops(inputs, **changed)
    assert expected > 0
    assert _multi_similarity(inputs, **changed).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 50.0), (10.0, 1.0)])
@pytest.mark.parametrize("margin", [None, 0.0, 0.1])
def test_loss_and_gradient_equal_pytorch_metric_learning(seed, views, alpha, beta, margin, term_inputs):
    inputs = term_inputs(samples=12, views=views, seed=seed)
    mined = None
    if margin is not None:
        mined = MultiSimilarityMiner(epsilon=margin)(inputs.representations, inputs.label_bins)
    reference = MultiSimilarityLoss(alpha=alpha, beta=beta, base=0.5)
    expected = reference(inputs.representations, inputs.label_bins, mined)
    gradient = torch.autograd.grad(expected, inputs.representations)[0]
    loss = _multi_similarity(inputs, alpha=alpha, beta=beta, margin=margin)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    ours = torch.autograd.grad(loss, inputs.representations)[0]
    # Its distance normalizes once more, which takes away the part of the gradient along the representation.
    z = inputs.representations.detach()
    tangent = ours - (ours * z).sum(dim=1, keepdim=True) * z
    torch.testing.assert_close(tangent, gradient, rtol=1e-9, atol=1e-12)


def test_pairs_easier_than_the_margin_are_not_mined(term_inputs):
    # Cosines of anchor 0: positive 0.985; negatives 0.940, 0.643.
    inputs = _on_a_circle(term_inputs(labels=[0, 0, 5, 7], views=1, dim=2), [0, 10, -20, -50])
    both = multi_similarity(inputs.representations, inputs.label_bins, **SETTINGS)
    both.backward()
    expected = _multi_similarity_by_loops(inputs, **SETTINGS)
    assert both.item() == pytest.approx(expected)
    assert inputs.representations.grad[2].abs().max() > 0
    assert inputs.representations.grad[3].abs().max() == 0


def test_well_separated_bins_cost_nothing(term_inputs):
    inputs = _on_a_circle(term_inputs(labels=[0, 0, 5, 5], views=1, dim=2), [0, 5, 90, 95])
    loss = _multi_similarity(inputs)
    loss.backward()
    assert loss == 0
    assert inputs.representations.grad.abs().max() == 0
    assert _multi_similarity(inputs, margin=None) > 0


@pytest.mark.parametrize("labels", [[4] * 6, list(range(6)), [4]], ids=["one bin", "distinct", "one row"])
def test_anchors_that_lack_a_kind_of_pair_give_zero_with_a_backward_pass(labels, term_inputs):
    inputs = term_inputs(labels=labels, views=1)
    loss = _multi_similarity(inputs)
    loss.backward()
    assert loss == 0
    assert inputs.representations.grad.abs().max() == 0


def test_without_mining_an_anchor_keeps_the_kind_of_pair_that_it_has(term_inputs):
    inputs = term_inputs(labels=list(range(6)), views=1)
    expected = _multi_similarity_by_loops(inputs, **{**SETTINGS, "margin": None})
    assert _multi_similarity(inputs, margin=None).item() == pytest.approx(expected) != 0


def test_duplicates_of_a_label_bin_remain_positives(term_inputs):
    inputs = _on_a_circle(term_inputs(labels=[0, 0, 5], views=1, dim=2), [0, 0, 1])
    expected = _multi_similarity_by_loops(inputs, **SETTINGS)
    pull_of_a_duplicate = math.log(1 + math.exp(-2 * 0.5)) / 2
    assert _multi_similarity(inputs).item() == pytest.approx(expected)
    assert expected > 2 / 3 * pull_of_a_duplicate


@pytest.mark.parametrize("beta", [50.0, 1000.0])
def test_sharp_weightings_stay_finite(beta, term_inputs):
    inputs = term_inputs(dtype=torch.float32)
    inputs.representations.data[:] = inputs.representations.detach()[0]
    loss = _multi_similarity(inputs, beta=beta, alpha=beta)
    loss.backward()
    assert loss.isfinite()
    assert inputs.representations.grad.isfinite().all()


@pytest.mark.parametrize("margin", [None, 0.1])
def test_blocks_of_anchors_give_the_same_loss_and_gradient(margin, term_inputs, monkeypatch):
    inputs = term_inputs(samples=12)
    whole = _multi_similarity(inputs, margin=margin)
    gradient = torch.autograd.grad(whole, inputs.representations)[0]
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 24 * 5)
    parts = _multi_similarity(inputs, margin=margin)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, inputs.representations)[0], gradient)


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = term_inputs()
    term = MultiSimilarity(gamma=0.5, alpha=3.0, beta=20.0, threshold=0.2, margin=0.3)
    expected = _multi_similarity(inputs, alpha=3.0, beta=20.0, threshold=0.2, margin=0.3)
    assert term.weight == 0.5
    assert term(inputs) == expected != _multi_similarity(inputs)
    assert MultiSimilarity()(inputs) == _multi_similarity(inputs)


def test_impossible_hyperparameters_are_all_named():
    given = {"alpha": 0, "beta": -1, "threshold": 2, "margin": -0.1, "gamma": -1, "tau": 0.1}
    with pytest.raises(InputError) as caught:
        read(MultiSimilarity, given, where="study.yaml")
    assert sorted(fault.key for fault in caught.value.faults) == sorted(given)
