"""`pytest tests/training/test_smoothing.py`: the pass that ends an epoch of feature smoothing, on one rank and several."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dirtune.data.cache import ResidentSplit
from dirtune.manifest import LabelSpec, Manifest
from dirtune.models.build import build_regressor
from dirtune.models.encoders.cnn import CNN
from dirtune.models.encoders.mlp import MLP
from dirtune.models.regressor import ModelSpec
from dirtune.reweighting.fds import FDS
from dirtune.testing import make_inputs
from dirtune.training.distributed import Ranks
from dirtune.training.smoothing import update_smoothing
from dirtune.training.task import SampleTask
from tests.models.encoders.cases import IMAGE, VECTOR
from tests.training.gloo import on_ranks

BINS = 4
TASK = SampleTask(
    Manifest(
        name="toy",
        inputs=VECTOR,
        label=LabelSpec(name="length", unit="m", low=0, high=4, bin_width=1, num_bins=BINS),
        shot_rules={},
        default_shot_rule="",
        splits={},
        content_hash="",
        split_fingerprint="",
    )
)


def _split(rows, inputs=VECTOR):
    columns = make_inputs(inputs, rows)
    if "image" in columns:
        columns = {"image": (columns["image"] * 255).to(torch.uint8)}
    label_bins = torch.arange(rows) * 7 % BINS
    return ResidentSplit(
        sample_ids=tuple(f"{row:03d}" for row in range(rows)),
        inputs=columns,
        labels=label_bins.float(),
        label_bins=label_bins,
        exact_labels=label_bins.numpy().astype(np.float64),
    )


def _model(settings=FDS(size=3), *, encoder=None, inputs=VECTOR):  # noqa: B008 - frozen
    spec = ModelSpec(encoder=encoder or MLP(hidden=(8, 5)), projection_dim=3, label_scale=1.0, label_offset=0.0)
    return build_regressor(spec, inputs, 0, smoothing=settings, num_bins=BINS)


def _embeddings(model, split):
    with torch.no_grad():
        return model.eval().encoder(split.transform.apply_evaluation(split.inputs))


@pytest.mark.parametrize(("encoder", "inputs"), [(None, VECTOR), (CNN(channels=4), IMAGE)], ids=["mlp", "cnn"])
def test_an_epoch_updates_the_moments_with_evaluation_mode_embeddings(encoder, inputs):
    model, split = _model(encoder=encoder, inputs=inputs), _split(30, inputs)
    model.train()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    update_smoothing(model, split, Ranks(), TASK)
    embeddings = _embeddings(model, split).double().numpy()
    for label_bin in range(BINS):
        own = embeddings[split.label_bins.numpy() == label_bin]
        mean, variance = model.smoothing.running[:, label_bin].numpy()
        np.testing.assert_allclose(mean, own.mean(axis=0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(variance, own.var(axis=0, ddof=1), rtol=1e-4, atol=1e-9)
    after = model.encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model.smoothing.epochs == 1


def test_small_batches_give_the_same_statistics(monkeypatch):
    whole, in_batches, split = _model(), _model(), _split(30)
    update_smoothing(whole, split, Ranks(), TASK)
    monkeypatch.setattr(SampleTask, "statistics_rows", 7)
    update_smoothing(in_batches, split, Ranks(), TASK)
    torch.testing.assert_close(in_batches.smoothing.running, whole.smoothing.running)


def test_a_model_without_smoothing_stays_unchanged():
    model = _model(None)
    update_smoothing(model, _split(5), Ranks(), TASK)
    assert model.training
    assert model.smoothing is None


def test_aliased_statistics_use_smoothed_embeddings():
    split, model = _split(30), _model(FDS(size=3, published_aliasing=True))
    for _ in range(3):
        update_smoothing(model, split, Ranks(), TASK)
    embeddings, before = _embeddings(model, split), model.smoothing.running.clone()
    smoothed = model.smoothing.train()(embeddings, split.label_bins)
    update_smoothing(model, split, Ranks(), TASK)
    own = split.label_bins == 1
    expected = 0.1 * smoothed[own].mean(dim=0) + 0.9 * before[0, 1]
    torch.testing.assert_close(model.smoothing.running[0, 1], expected)
    assert not torch.allclose(smoothed[own].mean(dim=0), embeddings[own].mean(dim=0))


def _state_after(epochs, rows, ranks):
    model, split = _model(FDS(size=3, momentum=None)).double(), _split(rows)
    split.inputs["features"] = split.inputs["features"].double()
    for _ in range(epochs):
        update_smoothing(model, split, ranks, TASK)
        with torch.no_grad():
            model.encoder.layers[0].weight.mul_(1.1)
    return dict(model.smoothing.state_dict())


def _state_of_rank(rank: int, world: int, rows: int):
    return _state_after(3, rows, Ranks(rank, world))


# Uneven; a rank without rows
@pytest.mark.parametrize(("world", "rows"), [(2, 31), (4, 3)])
def test_several_ranks_compute_the_state_of_one(world, rows):
    expected = _state_after(3, rows, Ranks())
    assert not torch.equal(expected["smoothed"], expected["running"])
    states = on_ranks(world, _state_of_rank, rows)
    for state in states:
        assert state.keys() == expected.keys()
        for name, value in state.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
            assert torch.equal(value, states[0][name]), "all ranks agree to the last bit"
