"""`pytest tests/models/encoders/test_encoder.py`: the contract that every registered encoder keeps."""

from __future__ import annotations

import pytest
import torch

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.manifest import InputSpec
from dirtune.models.encoders import ENCODERS
from dirtune.models.encoders.encoder import find_only_input
from tests.models.encoders.cases import CASES, IMAGE, VECTOR, random_inputs

every_encoder = pytest.mark.parametrize("name", sorted(ENCODERS))


def _built(name: str, seed: int = 0):
    spec, inputs = CASES[name]
    torch.manual_seed(seed)
    return spec.build(inputs)


def _inputs(name: str, batch: int):
    return random_inputs(CASES[name][1], batch)


def test_every_encoder_has_a_case():
    assert CASES.keys() == ENCODERS.keys()


@every_encoder
def test_the_registry_knows_an_encoder_by_its_name(name):
    spec, _ = CASES[name]
    assert isinstance(spec, ENCODERS[name])
    assert spec.name == name
    assert read(ENCODERS[name], {"name": name}, where="model.encoder") == ENCODERS[name]()


@every_encoder
@pytest.mark.parametrize("batch", [1, 3])
def test_embeddings_have_the_announced_size(name, batch):
    encoder = _built(name).eval()
    embeddings = encoder(_inputs(name, batch))
    assert embeddings.shape[:2] == (batch, encoder.embedding_dim)
    assert embeddings.ndim == (4 if encoder.is_dense else 2)


@every_encoder
def test_the_gradient_reaches_every_parameter(name):
    encoder = _built(name).train()
    torch.manual_seed(1)
    embeddings = encoder(_inputs(name, 4))
    (embeddings * torch.randn_like(embeddings)).sum().backward()
    for part, parameter in encoder.named_parameters():
        assert parameter.grad is not None, part
        assert torch.isfinite(parameter.grad).all(), part
        assert parameter.grad.abs().max() > 0, part


@every_encoder
def test_one_sample_can_be_trained_on(name):
    encoder = _built(name).train()
    embeddings = encoder(_inputs(name, 1))
    embeddings.square().sum().backward()
    assert torch.isfinite(embeddings).all()


@every_encoder
def test_evaluation_repeats_itself_and_does_not_mix_samples(name):
    encoder = _built(name).eval()
    inputs = _inputs(name, 3)
    embeddings = encoder(inputs)
    assert torch.equal(encoder(inputs), embeddings)
    alone = encoder({key: value[1:2] for key, value in inputs.items()})
    torch.testing.assert_close(alone, embeddings[1:2], rtol=1e-4, atol=1e-5)


@every_encoder
def test_one_seed_gives_one_start_and_another_seed_another(name):
    first, same, other = (_built(name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[part], same[part]) for part in first)
    assert any(not torch.equal(first[part], other[part]) for part in first)


@every_encoder
def test_an_encoder_survives_a_round_trip_of_its_state(name):
    encoder, other = _built(name, 0).eval(), _built(name, 1).eval()
    other.load_state_dict(encoder.state_dict())
    inputs = _inputs(name, 2)
    assert torch.equal(encoder(inputs), other(inputs))


@every_encoder
def test_a_data_set_without_fitting_inputs_is_refused(name):
    spec, fitting = CASES[name]
    unfitting = IMAGE if next(iter(fitting.values())).kind != "image" else VECTOR
    for inputs in ({}, unfitting):
        with pytest.raises(InputError, match=f"model.encoder: encoder '{name}' needs"):
            spec.build(inputs)


@every_encoder
def test_further_inputs_of_another_kind_do_no_harm(name):
    spec, fitting = CASES[name]
    spare = InputSpec(kind="vector", shape=(2,))
    if name == "mlp":
        spare = InputSpec(kind="image", shape=(1, 8, 8))
    encoder = spec.build({**fitting, "spare": spare}).eval()
    assert encoder(_inputs(name, 2)).shape[:2] == (2, encoder.embedding_dim)


def test_two_inputs_of_one_kind_leave_no_choice():
    twice = {"left": IMAGE["image"], "right": IMAGE["image"]}
    with pytest.raises(InputError, match=r"needs one image input, got .*left.*right"):
        find_only_input("cnn", "image", twice)
