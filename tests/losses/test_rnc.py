"""`pytest tests/losses/test_rnc.py`: Rank-N-Contrast against the formula as loops over pairs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dirtune.losses import blocks
from dirtune.losses.rnc import RnC, rnc

DISTANCES = {
    "l1": lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)),
    "l2": math.dist,
    "max": lambda p, q: max(abs(a - b) for a, b in zip(p, q, strict=True)),
}


def _similarity(p, q, similarity):
    if similarity == "neg_euclidean":
        return -math.dist(p, q)
    return sum(a * b for a, b in zip(p, q, strict=True)) / (math.hypot(*p) * math.hypot(*q))


def _rnc_by_loops(vectors, labels, *, tau, similarity="neg_euclidean", label_distance="l1"):
    rows, far, terms = range(len(vectors)), DISTANCES[label_distance], []
    for i in rows:
        others = [k for k in rows if k != i]
        s = {k: _similarity(vectors[i], vectors[k], similarity) / tau for k in others}
        d = {k: far(labels[i], labels[k]) for k in others}
        for j in others:
            farther = [s[k] for k in others if d[k] >= d[j]]
            peak = max(farther)
            terms.append(peak + math.log(sum(math.exp(each - peak) for each in farther)) - s[j])
    return math.fsum(terms) / len(terms)


def _batch(rows=14, *, dim=4, label_dim=1, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    vectors = scale * torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 6, (rows, label_dim), generator=generator).double()
    return vectors.requires_grad_(), labels


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("tau", [0.01, 2.0])
@pytest.mark.parametrize("similarity", ["neg_euclidean", "cosine"])
@pytest.mark.parametrize("label_distance", ["l1", "l2", "max"])
@pytest.mark.parametrize("label_dim", [1, 3])
def test_rnc_equals_the_loops(seed, tau, similarity, label_distance, label_dim):
    vectors, labels = _batch(label_dim=label_dim, seed=seed)
    settings = {"tau": tau, "similarity": similarity, "label_distance": label_distance}
    expected = _rnc_by_loops(vectors.tolist(), labels.tolist(), **settings)
    assert rnc(vectors, labels, **settings).item() == pytest.approx(expected, rel=1e-11)
    if label_dim == 1:
        assert rnc(vectors, labels[:, 0], **settings).item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("scale", [1.0, 2000.0], ids=["sums", "logarithms"])
@pytest.mark.parametrize("similarity", ["neg_euclidean", "cosine"])
def test_the_gradient_is_the_slope_of_the_loss(scale, similarity):
    vectors, labels = _batch(7, dim=3, scale=scale)
    tau = 1.0 if similarity == "neg_euclidean" else 1.0 / scale

    def loss(vectors):
        return rnc(vectors, labels, tau=tau, similarity=similarity)

    assert torch.autograd.gradcheck(loss, (vectors,), eps=1e-6 * scale, rtol=1e-4)


@pytest.mark.parametrize("tau", [0.02, 2.0])
def test_sums_and_logarithms_agree(tau, monkeypatch):
    vectors, labels = _batch(20)
    results = []
    # Always logarithms, never
    for spread in (-1.0, math.inf):
        monkeypatch.setattr("dirtune.losses.rnc._SPREAD_OF_FLOAT64", spread)
        loss = rnc(vectors, labels, tau=tau)
        results.append((loss, torch.autograd.grad(loss, vectors)[0]))
    (loss, gradient), (expected, expected_gradient) = results
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("entries", [1, 60, 100])
@pytest.mark.parametrize("similarity", ["neg_euclidean", "cosine"])
def test_blocks_of_anchors_change_nothing(entries, similarity, monkeypatch):
    vectors, labels = _batch(20, label_dim=2)
    whole = rnc(vectors, labels, tau=0.5, similarity=similarity)
    expected = torch.autograd.grad(whole, vectors)[0]
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
    blocked = rnc(vectors, labels, tau=0.5, similarity=similarity)
    torch.testing.assert_close(blocked, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(blocked, vectors)[0], expected)


def test_a_large_batch_keeps_no_pair_matrix():
    vectors = torch.randn(1500, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(1500.0)
    saved = []

    def note(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        rnc(vectors, labels, tau=2.0)
    assert max(saved) < 1500 * 1500 // 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.01, 2.0])
def test_equal_vectors_have_distance_zero_and_no_gradient_between_them(dtype, tau):
    vectors = torch.randn(1, 300, generator=torch.Generator().manual_seed(2)).to(dtype)
    leaf = (1e3 * vectors).repeat(6, 1).requires_grad_()
    loss = rnc(leaf, torch.arange(6.0).to(dtype), tau=tau)
    loss.backward()
    # All similarities are 0: every denominator is the number of rows it sums over.
    expected = np.mean([math.log(n) for n in _set_sizes(6)])
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert leaf.grad.abs().max() == 0


def _set_sizes(rows):
    """How many rows are at least as far from i as j is, for labels 0, 1, 2, ..."""
    for i in range(rows):
        for j in range(rows):
            if j != i:
                yield sum(abs(k - i) >= abs(j - i) for k in range(rows) if k != i)


def test_near_neighbors_in_float32_keep_their_direction():
    generator = torch.Generator().manual_seed(3)
    exact = torch.randn(6, 64, generator=generator, dtype=torch.float64)
    exact[3:] = exact[:3] + 1e-3 * torch.randn(3, 64, generator=generator, dtype=torch.float64)
    # Far from the origin, where cancellation is worst
    single = (exact + 5).float().requires_grad_()
    double = single.detach().double().requires_grad_()
    labels = torch.tensor([0.0, 3.0, 7.0, 1.0, 3.0, 9.0])
    rnc(single, labels, tau=0.1).backward()
    rnc(double, labels.double(), tau=0.1).backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-6)


def test_the_order_of_rows_has_no_effect_and_any_number_of_views_is_allowed():
    # Three views of five samples
    vectors, labels = _batch(15, label_dim=2)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    expected = rnc(vectors, labels, tau=2.0)
    torch.testing.assert_close(rnc(vectors[order], labels[order], tau=2.0), expected, rtol=1e-12, atol=0)


def test_vectors_in_the_order_of_their_labels_have_a_lower_loss():
    positions = torch.arange(8, dtype=torch.float64)[:, None]
    labels = torch.arange(8.0).double()
    shuffled = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
    ordered = rnc(positions, labels, tau=0.1)
    assert ordered < rnc(positions[shuffled], labels, tau=0.1)


def test_one_row_gives_a_zero_that_is_connected_to_the_graph():
    vectors, labels = _batch(1)
    loss = rnc(vectors, labels, tau=2.0)
    loss.backward()
    assert loss == 0
    assert vectors.grad.abs().max() == 0


@pytest.mark.parametrize("label_distance", ["l1", "angular"])
def test_the_term_passes_its_hyperparameters_to_the_formula(label_distance, term_inputs):
    inputs = term_inputs()
    gaze = torch.stack([inputs.labels, inputs.labels.flip(0)], dim=1) / 10
    inputs = replace(inputs, labels=gaze)
    term = RnC(gamma=0.3, tau=0.7, similarity="cosine", label_distance=label_distance)
    expected = rnc(inputs.representations, gaze, tau=0.7, similarity="cosine", label_distance=label_distance)
    assert term.weight == 0.3
    assert term.reads == "embedding"
    assert term(inputs) == expected
