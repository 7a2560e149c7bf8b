"""`pytest tests/losses/test_ordinal_entropy.py`: Ordinal Entropy against loops over labels."""

import math
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import pytest
import torch

from dirtune.errors import InputError
from dirtune.losses.ordinal_entropy import OrdinalEntropy, ordinal_entropy


def _direction(vector):
    length = math.hypot(*vector)
    return [each / length for each in vector]


def _parts_by_loops(vectors, labels):
    """Diversity and tightness."""
    centers = {}
    for label in set(labels):
        members = [v for v, y in zip(vectors, labels, strict=True) if y == label]
        centers[label] = _direction([fmean(column) for column in zip(*members, strict=True)])
    away = [math.dist(_direction(v), centers[y]) for v, y in zip(vectors, labels, strict=True) if labels.count(y) > 1]
    pairs = list(combinations(sorted(centers), 2))
    gaps = [v - u for u, v in pairs]
    spread = [
        (gap - min(gaps)) / max(gaps) * math.dist(centers[u], centers[v])
        for gap, (u, v) in zip(gaps, pairs, strict=True)
    ]
    return fmean(spread) if spread else 0.0, fmean(away) if away else 0.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 1.0), (0.3, 0.0), (2.0, 5.0)])
@pytest.mark.parametrize(
    "labels",
    [None, [0, 5, 0, 5], [4] * 5, [1, 2, 3.5, 7, 11], [1, 2]],
    ids=["usual", "two", "equal", "distinct", "two distinct"],
)
def test_ordinal_entropy_equals_the_loops(seed, views, weights, labels, term_inputs):
    inputs = term_inputs(views=views, seed=seed, labels=labels)
    vectors = 3.0 * inputs.representations.detach()
    spread, away = _parts_by_loops(vectors.tolist(), inputs.labels.tolist())
    diversity, tightness = weights
    loss = ordinal_entropy(vectors, inputs.labels, diversity=diversity, tightness=tightness)
    assert loss.item() == pytest.approx(tightness * away - diversity * spread, rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("labels", [[0, 3, 0, 7, 3], [1, 2, 4, 8, 16]])
def test_the_gradient_is_the_slope_of_the_loss(labels, term_inputs):
    inputs = term_inputs(labels=labels, views=1, dim=3)

    def loss(vectors):
        return ordinal_entropy(vectors, inputs.labels, diversity=0.7, tightness=1.3)

    assert torch.autograd.gradcheck(loss, (inputs.representations,))


def test_samples_at_their_center_do_not_count(term_inputs):
    inputs = term_inputs(labels=[2, 2, 6, 6], views=1)
    vectors = inputs.representations.detach().clone()
    vectors[3] = vectors[2]
    alone = ordinal_entropy(vectors[:2], inputs.labels[:2])
    together = ordinal_entropy(vectors, inputs.labels, diversity=0.0)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_are_at_their_center_within_rounding(dtype):
    row = torch.randn(1, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    vectors = row.repeat(7, 1).requires_grad_()
    loss = ordinal_entropy(vectors, torch.zeros(7, dtype=dtype))
    loss.backward()
    assert loss == 0
    assert vectors.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_zeros_antipodes_and_coinciding_centers_have_finite_gradients(dtype, term_inputs):
    vectors = term_inputs(samples=10, views=1).representations.detach().to(dtype)
    vectors[0] = 0
    # A center without direction
    vectors[3] = -vectors[2]
    # Two labels with one center
    vectors[4:8] = vectors[4]
    vectors.requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 9, 9]).to(dtype)
    loss = ordinal_entropy(vectors, labels)
    loss.backward()
    assert loss.isfinite()
    assert vectors.grad.isfinite().all()
    assert vectors.grad[0].abs().max() < 100


def test_the_order_of_rows_has_no_effect(term_inputs):
    inputs = term_inputs()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        ordinal_entropy(inputs.representations[order], inputs.labels[order]),
        ordinal_entropy(inputs.representations, inputs.labels),
        rtol=1e-12,
        atol=0,
    )


def test_many_labels_take_one_number_per_pair_and_not_one_vector():
    vectors = torch.randn(200, 300, generator=torch.Generator().manual_seed(0)).requires_grad_()
    saved = []

    def note(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ordinal_entropy(vectors, torch.arange(200.0))
    assert max(saved) <= max(200 * 199 // 2, 200 * 300)


def test_labels_of_several_dimensions_are_refused_by_the_terms_name(term_inputs):
    inputs = term_inputs()
    inputs = replace(inputs, labels=inputs.labels[:, None].repeat(1, 3))
    with pytest.raises(InputError, match=r"term ordinal_entropy: needs labels of one dimension, got \(3,\)"):
        OrdinalEntropy()(inputs)


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = term_inputs()
    term = OrdinalEntropy(gamma=1e-3, diversity=0.2, tightness=0.6)
    expected = ordinal_entropy(inputs.representations, inputs.labels, diversity=0.2, tightness=0.6)
    assert term.weight == 1e-3
    assert term.reads == "embedding"
    assert term(inputs) == expected
