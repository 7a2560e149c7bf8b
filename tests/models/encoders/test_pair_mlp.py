"""`pytest tests/models/encoders/test_pair_mlp.py`: the comparison of two vectors, written out by hand."""

from __future__ import annotations

import pytest
import torch

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.encoders.pair_mlp import PairMLP, compare_pair
from dirtune.testing import make_inputs
from tests.models.encoders.cases import VECTORS


def test_a_pair_is_both_vectors_their_distance_and_their_product():
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    assert compare_pair(first, second).tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]


def test_equal_vectors_have_finite_gradients():
    vector = torch.ones(1, 3, requires_grad=True)
    compare_pair(vector, vector.clone()).sum().backward()
    assert torch.isfinite(vector.grad).all()


@pytest.mark.parametrize("shared", [None, 4])
def test_both_vectors_pass_the_same_layer(shared):
    encoder = PairMLP(shared=shared, hidden=(5,)).build(VECTORS).eval()
    inputs = make_inputs(VECTORS, 3)
    sides = [inputs["first_features"], inputs["second_features"]]
    if shared:
        weight, bias = encoder.shared.parameters()
        sides = [(side @ weight.T + bias).clamp(min=0) for side in sides]
    compared = torch.cat([*sides, (sides[0] - sides[1]).abs(), sides[0] * sides[1]], dim=1)
    weight, bias = encoder.layers.parameters()
    expected = (compared @ weight.T + bias).clamp(min=0)
    torch.testing.assert_close(encoder(inputs), expected)


def test_vectors_of_two_sizes_are_refused_with_the_known_names():
    unequal = {**VECTORS, "second_features": InputSpec(kind="vector", shape=(5,))}
    with pytest.raises(InputError, match="known: first_features, second_features"):
        PairMLP().build(unequal)
