"""`pytest tests/models/test_regressor.py`: what the predictor reads, the hypersphere, and paired starts."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.models.encoders import CNN, MLP
from dirtune.models.regressor import ModelSpec, build_regressor, normalised
from tests.models.encoders.cases import CASES, VECTOR, random_inputs
from tests.training.gloo import on_ranks

MLP_SPEC = ModelSpec(encoder=MLP(hidden=(8, 5)))


def _spec(**changes):
    return MLP_SPEC.model_copy(update=changes)


def _regressor(spec: ModelSpec = MLP_SPEC, seed: int = 0):
    return build_regressor(spec, VECTOR, seed)


def _by_hand(regressor, inputs):
    spec, e = regressor.spec, regressor.encoder(inputs)
    g = (
        e
        if regressor.projection is None
        else e @ regressor.projection.weight.T + regressor.projection.bias
    )
    z = torch.stack([row / row.square().sum().sqrt() for row in g])
    read = {"embedding": e, "projection": g, "representation": z}
    h = read["embedding" if regressor.projection is None else spec.predictor_input]
    raw = (h * regressor.predictor.weight).sum(dim=1) + regressor.predictor.bias
    return e, z, spec.label_offset + spec.label_scale * raw


@pytest.mark.parametrize("predictor_input", ["representation", "projection", "embedding"])
@pytest.mark.parametrize("projection_dim", [None, 3])
def test_the_output_equals_the_formula(predictor_input, projection_dim):
    spec = _spec(
        predictor_input=predictor_input,
        projection_dim=projection_dim,
        label_scale=5.0,
        label_offset=-2.0,
    )
    regressor, inputs = _regressor(spec), random_inputs(VECTOR, 4)
    output = regressor(inputs)
    for ours, theirs in zip(output, _by_hand(regressor, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert output.predictions.shape == (4,)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_encoder_makes_a_regressor(name):
    encoder, inputs = CASES[name]
    regressor = build_regressor(ModelSpec(encoder=encoder, projection_dim=6), inputs, 0)
    output = regressor(random_inputs(inputs, 2))
    assert output.embeddings.shape == (2, regressor.encoder.embedding_dim)
    assert output.representations.shape == (2, 6)
    assert output.predictions.shape == (2,)


def test_normalised_rows_have_length_one():
    rows = normalised(torch.randn(5, 7, dtype=torch.float64) * 100)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8])
def test_a_vector_without_length_is_zero_and_passes_no_gradient(scale):
    vectors = torch.tensor([[1.0, -1.0, 2.0], [3.0, 0.0, 4.0]]) * torch.tensor([[scale], [1.0]])
    vectors.requires_grad_()
    rows = normalised(vectors)
    (rows * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert rows[0].tolist() == [0.0, 0.0, 0.0]
    assert vectors.grad[0].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(rows[1], torch.tensor([0.6, 0.0, 0.8]))
    assert vectors.grad[1].abs().max() > 0


def test_the_gradient_of_normalisation_is_right():
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalised, vectors)


def test_half_precision_embeddings_give_float32_outputs():
    regressor = _regressor(_spec(projection_dim=3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = regressor(random_inputs(VECTOR, 4))
    assert output.embeddings.dtype == torch.bfloat16
    assert output.representations.dtype == torch.float32
    assert output.predictions.dtype == torch.float32
    lengths = output.representations.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4), rtol=1e-5, atol=1e-5)


def _parts(regressor, part):
    return getattr(regressor, part).state_dict().values()


def _start_equal(one, other, part):
    pairs = zip(_parts(one, part), _parts(other, part), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_arms_that_differ_in_the_projection_start_equal_in_the_rest():
    without, with_projection = _regressor(), _regressor(_spec(projection_dim=5))
    assert _start_equal(without, with_projection, "encoder")
    assert _start_equal(without, with_projection, "predictor")


def test_arms_that_differ_in_the_encoder_start_equal_in_projection_and_predictor():
    one = _regressor(_spec(projection_dim=3))
    other = _regressor(_spec(projection_dim=3, encoder=MLP(hidden=(9, 9, 5))))
    assert _start_equal(one, other, "projection")
    assert _start_equal(one, other, "predictor")


def test_a_seed_determines_the_start_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = _regressor(_spec(projection_dim=3), seed=7)
    torch.rand(5)
    second = _regressor(_spec(projection_dim=3), seed=7)
    other = _regressor(_spec(projection_dim=3), seed=8)
    for part in ("encoder", "projection", "predictor"):
        assert _start_equal(first, second, part)
        assert not _start_equal(first, other, part)


def test_building_leaves_the_callers_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    _regressor(_spec(projection_dim=3))
    assert torch.equal(torch.rand(4), expected)


def test_parts_of_one_shape_do_not_start_alike():
    regressor = _regressor(_spec(encoder=MLP(hidden=(6,)), projection_dim=6))
    encoder_weight = regressor.encoder.layers[1].weight
    assert encoder_weight.shape == regressor.projection.weight.shape
    assert not torch.equal(encoder_weight, regressor.projection.weight)


def test_a_spec_is_read_from_plain_data_by_the_encoders_name():
    raw = {"encoder": {"name": "cnn", "channels": 8}, "projection_dim": 128}
    spec = read(ModelSpec, raw, where="study.yaml", prefix="model")
    assert spec == ModelSpec(encoder=CNN(channels=8), projection_dim=128)
    assert read(ModelSpec, spec.model_dump(mode="json"), where="again") == spec


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"encoder": {"name": "ccn"}}, "model.encoder.name: unknown name, got 'ccn'.*mean 'cnn'"),
        ({"encoder": {"name": "cnn", "chanels": 8}}, "unknown key.*mean 'channels'"),
        ({"encoder": {"name": "cnn"}, "projection_dim": 0}, "model.projection_dim"),
        ({"encoder": {"name": "cnn"}, "label_scale": 0.0}, "model.label_scale"),
    ],
)
def test_a_wrong_spec_is_refused_at_its_key(raw, message):
    with pytest.raises(InputError, match=message):
        read(ModelSpec, raw, where="study.yaml", prefix="model")


def test_inputs_that_do_not_fit_the_encoder_are_refused():
    with pytest.raises(InputError, match=r"model.encoder: encoder 'cnn' needs one image input"):
        build_regressor(ModelSpec(encoder=CNN()), VECTOR, 0)


def _gradients(model, inputs):
    model(inputs).predictions.square().mean().backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def _gradients_of_rank(rank: int, world: int, spec: ModelSpec):
    model = DistributedDataParallel(build_regressor(spec, VECTOR, 0), static_graph=True)
    inputs = random_inputs(VECTOR, 6)
    share = {name: value.chunk(world)[rank] for name, value in inputs.items()}
    return {name.removeprefix("module."): g for name, g in _gradients(model, share).items()}


def test_several_ranks_have_the_gradient_of_the_whole_batch_from_the_first_step():
    spec = _spec(projection_dim=3)
    expected = _gradients(_regressor(spec), random_inputs(VECTOR, 6))
    assert len(expected) == 8
    for found in on_ranks(2, _gradients_of_rank, spec):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)
