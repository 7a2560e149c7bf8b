"""`pytest tests/models/encoders/test_mlp.py`: the layers against matrices multiplied by hand, and dropout."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from dirtune.manifest import InputSpec
from dirtune.models.encoders.mlp import MLP

INPUTS = {"features": InputSpec(kind="vector", shape=(3,))}


def test_the_layers_are_linear_maps_and_relus():
    encoder = MLP(hidden=(4, 2)).build(INPUTS)
    features = torch.randn(5, 3)
    expected = features
    weights = list(encoder.parameters())
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        expected = (expected @ weight.T + bias).clamp(min=0)
    torch.testing.assert_close(encoder({"features": features}), expected)


def test_dropout_makes_two_views_differ_in_training_only():
    encoder = MLP(hidden=(32,), dropout=0.5).build(INPUTS)
    inputs = {"features": torch.ones(4, 3)}
    torch.manual_seed(0)
    encoder.train()
    assert not torch.equal(encoder(inputs), encoder(inputs))
    encoder.eval()
    assert torch.equal(encoder(inputs), encoder(inputs))


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_layers_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MLP(**wrong)
