"""`pytest tests/models/test_regressor.py`: outputs against the formulas, heads, label dimensions, smoothing, gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.models.build import build_regressor
from dirtune.models.encoders.cnn import CNN
from dirtune.models.encoders.mlp import MLP
from dirtune.models.regressor import ModelSpec
from dirtune.reweighting.fds import FDS
from dirtune.testing import make_inputs
from tests.models.encoders.cases import CASES, VECTOR
from tests.training.gloo import on_ranks

MLP_SPEC = ModelSpec(encoder=MLP(hidden=(8, 5)), label_scale=1.0, label_offset=0.0)
BINS = 4


def _spec(**changes):
    return MLP_SPEC.model_copy(update=changes)


def _regressor(spec: ModelSpec = MLP_SPEC, seed: int = 0):
    return build_regressor(spec, VECTOR, seed)


def _take(output):
    return output.embeddings, output.representations, output.predictions


def _by_hand(regressor, inputs):
    return _from_embeddings(regressor, regressor.encoder(inputs))


def _from_embeddings(regressor, e):
    spec = regressor.spec
    g = e if regressor.projection is None else e @ regressor.projection.weight.T + regressor.projection.bias
    heads = g.reshape(len(g), spec.projection_heads, -1)
    z = torch.stack([torch.cat([head / head.square().sum().sqrt() for head in row]) for row in heads]) / (
        spec.projection_heads**0.5
    )
    read = {"embedding": e, "projection": g, "representation": z}
    h = read["embedding" if regressor.projection is None else spec.predictor_input]
    raw = h @ regressor.predictor.weight.T + regressor.predictor.bias
    raw = raw[:, 0] if len(regressor.predictor.bias) == 1 else raw
    return e, z, spec.label_offset + spec.label_scale * raw


@pytest.mark.parametrize("predictor_input", ["representation", "projection", "embedding"])
@pytest.mark.parametrize("projection_dim", [None, 3])
def test_the_output_equals_the_formula(predictor_input, projection_dim):
    spec = _spec(predictor_input=predictor_input, projection_dim=projection_dim, label_scale=5.0, label_offset=-2.0)
    regressor, inputs = _regressor(spec), make_inputs(VECTOR, 4)
    output = regressor(inputs)
    for ours, theirs in zip(_take(output), _by_hand(regressor, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert output.predictions.shape == (4,)


@pytest.mark.parametrize("predictor_input", ["representation", "projection", "embedding"])
@pytest.mark.parametrize("heads", [2, 3])
def test_heads_are_normalized_apart_and_read_together(predictor_input, heads):
    spec = _spec(predictor_input=predictor_input, projection_dim=3, projection_heads=heads)
    regressor, inputs = _regressor(spec), make_inputs(VECTOR, 4)
    output = regressor(inputs)
    for ours, theirs in zip(_take(output), _by_hand(regressor, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert output.representations.shape == (4, 3 * heads)
    torch.testing.assert_close(output.representations.norm(dim=1), torch.ones(4))


def test_the_cosine_is_the_mean_of_the_cosines_of_the_heads():
    regressor = _regressor(_spec(projection_dim=3, projection_heads=2))
    one, other = regressor(make_inputs(VECTOR, 2)).representations
    cosine = torch.nn.functional.cosine_similarity
    heads = [cosine(one[part], other[part], dim=0) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(one @ other, sum(heads) / 2)


def test_one_label_dimension_more_gives_one_column_more():
    inputs = make_inputs(VECTOR, 4)
    spec = _spec(projection_dim=3, label_scale=2.0, label_offset=1.0)
    regressor = build_regressor(spec, VECTOR, 0, label_dim=2)
    predictions = regressor(inputs).predictions
    assert predictions.shape == (4, 2)
    torch.testing.assert_close(predictions, _by_hand(regressor, inputs)[2])
    assert _start_equal(regressor, _regressor(spec), "encoder")


def _smoothing(spec, *, epochs: int = 3, **settings):
    """A regressor in training whose feature smoothing has seen some epochs, and label bins for 6 samples."""
    regressor = build_regressor(spec, VECTOR, 0, smoothing=FDS(size=3, **settings), num_bins=BINS)
    label_bins = torch.arange(6) % BINS
    for epoch in range(epochs):
        embeddings = regressor.encoder(make_inputs(VECTOR, 24, seed=epoch + 1)).detach()
        statistics = regressor.smoothing.compute_statistics(embeddings, label_bins.repeat(4))
        regressor.smoothing.end_epoch(statistics)
    return regressor, label_bins


@pytest.mark.parametrize("predictor_input", ["representation", "projection", "embedding"])
@pytest.mark.parametrize("projection_dim", [None, 3])
def test_the_predictor_reads_smoothed_embeddings_and_the_terms_plain_ones(predictor_input, projection_dim):
    spec = _spec(predictor_input=predictor_input, projection_dim=projection_dim)
    regressor, label_bins = _smoothing(spec)
    inputs = make_inputs(VECTOR, 6)
    output, plain = regressor(inputs, label_bins), regressor(inputs)
    assert torch.equal(output.embeddings, plain.embeddings)
    assert torch.equal(output.representations, plain.representations)
    smoothed = regressor.smoothing(output.embeddings, label_bins)
    expected = _from_embeddings(regressor, smoothed)[2]
    torch.testing.assert_close(output.predictions, expected)
    assert not torch.allclose(output.predictions, plain.predictions)


@pytest.mark.parametrize("projection_dim", [None, 3])
def test_terms_read_smoothed_embeddings_if_they_are_asked_to(projection_dim):
    regressor, label_bins = _smoothing(_spec(projection_dim=projection_dim), smooths_terms=True)
    inputs = make_inputs(VECTOR, 6)
    output, plain = regressor(inputs, label_bins), regressor(inputs)
    smoothed = regressor.smoothing(plain.embeddings, label_bins)
    for found, expected in zip(_take(output), _from_embeddings(regressor, smoothed), strict=True):
        torch.testing.assert_close(found, expected)
    assert not torch.allclose(output.embeddings, plain.embeddings)
    # The views of the terms alone, and evaluation, are as without.
    torch.testing.assert_close(regressor(inputs, label_bins - BINS).embeddings, plain.embeddings)
    assert torch.equal(regressor.eval()(inputs, label_bins).embeddings, plain.embeddings)


@pytest.mark.parametrize("predictor_input", ["projection", "embedding"])
def test_a_projection_of_two_layers_is_that_of_the_contrastive_baselines(predictor_input):
    spec = _spec(projection_dim=3, projection_layers=2, predictor_input=predictor_input)
    regressor, inputs = _regressor(spec), make_inputs(VECTOR, 4)
    first, second = regressor.projection[0], regressor.projection[2]
    assert (first.weight.shape, second.weight.shape) == ((5, 5), (3, 5))
    e = regressor.encoder(inputs)
    g = (e @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    z = g / g.square().sum(dim=1, keepdim=True).sqrt()
    read = e if predictor_input == "embedding" else g
    predictions = (read @ regressor.predictor.weight.T + regressor.predictor.bias)[:, 0]
    for found, expected in zip(_take(regressor(inputs)), (e, z, predictions), strict=True):
        torch.testing.assert_close(found, expected)
    assert _start_equal(regressor, _regressor(_spec(projection_dim=3, predictor_input=predictor_input)), "encoder")


def test_a_relu_cuts_off_the_outputs_below_zero():
    inputs = make_inputs(VECTOR, 32)
    linear = _regressor(_spec(label_scale=2.0))
    relu = _regressor(_spec(label_scale=2.0, predictor_output="relu"))
    expected = linear(inputs).predictions
    assert (expected < 0).any()
    assert (expected > 0).any()
    assert torch.equal(relu(inputs).predictions, expected.clamp(min=0.0))
    relu(inputs).predictions.sum().backward()
    # Each row with an output above zero has a gradient of the label scale.
    assert relu.predictor.bias.grad.item() == 2.0 * (expected > 0).sum().item()


def test_layers_of_a_projection_need_one():
    with pytest.raises(InputError, match="projection_layers > 1 needs a projection_dim"):
        read(ModelSpec, {"encoder": {"name": "mlp"}, "projection_layers": 2}, where="test")


def test_smoothing_stays_out_of_evaluation_and_of_rows_without_a_bin():
    regressor, label_bins = _smoothing(_spec(projection_dim=3))
    inputs = make_inputs(VECTOR, 6)
    plain = regressor(inputs).predictions
    torch.testing.assert_close(regressor(inputs, label_bins - BINS).predictions, plain)
    assert torch.equal(regressor.eval()(inputs, label_bins).predictions, plain)


def test_an_arm_with_smoothing_starts_equal_to_one_without():
    regressor, _ = _smoothing(_spec(projection_dim=3), epochs=0)
    for part in ("encoder", "projection", "predictor"):
        assert _start_equal(regressor, _regressor(_spec(projection_dim=3)), part)


def test_smoothing_that_does_not_fit_the_label_bins_is_refused():
    with pytest.raises(InputError, match=r"reweighting.fds: size: half the window"):
        build_regressor(MLP_SPEC, VECTOR, 0, smoothing=FDS(), num_bins=2)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_encoder_makes_a_regressor(name):
    encoder, inputs = CASES[name]
    if encoder.build(inputs).is_dense:
        # Tested in tests/models/test_dense_regressor.py
        return
    regressor = build_regressor(_spec(encoder=encoder, projection_dim=6), inputs, 0)
    output = regressor(make_inputs(inputs, 2))
    assert output.embeddings.shape == (2, regressor.encoder.embedding_dim)
    assert output.representations.shape == (2, 6)
    assert output.predictions.shape == (2,)


def test_the_head_computes_in_float32_on_the_embeddings_of_half_precision():
    regressor = _regressor(_spec(projection_dim=3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = regressor(make_inputs(VECTOR, 4))
    # Rounded by the encoder, and no more after it
    torch.testing.assert_close(output.embeddings.bfloat16().float(), output.embeddings, rtol=0, atol=0)
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
    encoder_weight = regressor.encoder.layers[0].weight
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
        ({"encoder": {"name": "cnn"}, "projection_heads": 2}, "model: projection_heads > 1 needs a projection_dim"),
    ],
)
def test_a_wrong_spec_is_refused_at_its_key(raw, message):
    with pytest.raises(InputError, match=message):
        read(ModelSpec, raw, where="study.yaml", prefix="model")


def test_inputs_that_do_not_fit_the_encoder_are_refused():
    with pytest.raises(InputError, match=r"model.encoder: encoder 'cnn' needs one image input"):
        build_regressor(_spec(encoder=CNN()), VECTOR, 0)


def _gradients(model, inputs):
    model(inputs).predictions.square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _gradients_of_rank(rank: int, world: int, spec: ModelSpec):
    model = DistributedDataParallel(build_regressor(spec, VECTOR, 0), static_graph=True)
    inputs = make_inputs(VECTOR, 6)
    share = {name: value.chunk(world)[rank] for name, value in inputs.items()}
    return {name.removeprefix("module."): g for name, g in _gradients(model, share).items()}


@pytest.mark.slow
def test_several_ranks_have_the_gradient_of_the_whole_batch_from_the_first_step():
    spec = _spec(projection_dim=3)
    expected = _gradients(_regressor(spec), make_inputs(VECTOR, 6))
    assert len(expected) == 8
    for found in on_ranks(2, _gradients_of_rank, spec):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)


def _gradients_while_smoothing_begins(model):
    """Gradients of each epoch of a run in which smoothing begins; all ranks see the same statistics."""
    regressor = getattr(model, "module", model)
    rank, world = (model.process_group.rank(), 2) if regressor is not model else (0, 1)
    inputs, label_bins, found = make_inputs(VECTOR, 6), torch.arange(6) % BINS, []
    share = {name: value.chunk(world)[rank] for name, value in inputs.items()}
    for _ in range(4):
        model.zero_grad()
        output = model(share, label_bins.chunk(world)[rank])
        output.predictions.square().mean().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
        with torch.no_grad():
            embeddings = regressor.encoder(inputs)
        statistics = regressor.smoothing.compute_statistics(embeddings.repeat(2, 1), label_bins.repeat(2))
        regressor.smoothing.end_epoch(statistics)
    return found


def _smoothed_gradients_of_rank(rank: int, world: int, spec: ModelSpec):
    regressor, _ = _smoothing(spec, epochs=0)
    return _gradients_while_smoothing_begins(DistributedDataParallel(regressor, static_graph=True))


@pytest.mark.slow
def test_several_ranks_have_the_gradient_of_the_whole_batch_while_smoothing_begins():
    spec = _spec(projection_dim=3)
    expected = _gradients_while_smoothing_begins(_smoothing(spec, epochs=0)[0])
    assert not torch.allclose(expected[1][0], expected[2][0])
    for found in on_ranks(2, _smoothed_gradients_of_rank, spec):
        for gradients, whole in zip(found, expected, strict=True):
            torch.testing.assert_close(gradients, whole, rtol=1e-4, atol=1e-7)
