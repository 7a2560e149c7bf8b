"""Run with `pytest tests/models/test_dense_regressor.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.build import build_dense_regressor, build_regressor
from dirtune.models.dense_regressor import DenseRegressor, downsample_nearest, upsample_bilinear
from dirtune.models.encoders.cnn import CNN
from dirtune.models.encoders.depth_resnet import DepthResNet
from dirtune.models.regressor import ModelSpec
from dirtune.reweighting.fds import FDS

IMAGE = {"image": InputSpec(kind="image", shape=(3, 64, 80))}
SPEC = ModelSpec(encoder=DepthResNet(base="resnet18"), label_scale=2.0, label_offset=3.0)


def _regressor(smoothing: FDS | None = None, seed: int = 0) -> DenseRegressor:
    return build_dense_regressor(SPEC, IMAGE, seed, smoothing=smoothing, num_bins=20)


def _images(rows: int = 2) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(rows, 3, 64, 80, generator=torch.Generator().manual_seed(0))}


def test_every_pixel_of_the_embedding_has_a_prediction():
    model = _regressor().eval()
    output = model(_images())
    assert output.embeddings.shape == (2, 80, 32, 40)
    assert output.predictions.shape == (2, 32, 40)
    assert output.representations.shape == (2, 80)
    torch.testing.assert_close(output.representations.norm(dim=1), torch.ones(2))
    raw = nn.functional.conv2d(output.embeddings, model.predictor.weight, model.predictor.bias, padding=2)
    torch.testing.assert_close(output.predictions, 3.0 + 2.0 * raw[:, 0])


def test_initialization_depends_on_the_seed_and_keeps_the_global_random_state():
    before = torch.get_rng_state()
    first, same, other = (_regressor(seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["predictor.weight"], other["predictor.weight"])


def test_the_predictor_reads_smoothed_embeddings_except_at_unlabeled_pixels():
    model = _regressor(FDS(size=3, start_smooth=0)).train()
    # Every labeled pixel is moved by -1
    model.smoothing.frozen[0].fill_(1.0)
    bins = torch.full((2, 64, 80), 4)
    bins[:, :, 40:] = -1
    read = []
    model.predictor.register_forward_hook(lambda _, given, __: read.append(given[0]))
    output = model(_images(), bins)
    moved = output.embeddings - read[0]
    torch.testing.assert_close(moved[..., :20], torch.ones(2, 80, 32, 20), atol=1e-4, rtol=0)
    assert torch.equal(moved[..., 20:], torch.zeros(2, 80, 32, 20))
    terms = _regressor(FDS(size=3, start_smooth=0, smooths_terms=True)).train()
    terms.smoothing.frozen[0].fill_(1.0)
    torch.testing.assert_close(terms(_images(), bins).embeddings, read[0])


@pytest.mark.parametrize("size", [(32, 40), (20, 26), (63, 81)])
def test_nearest_downsampling_equals_pillow(size):
    dense = torch.rand(3, 63, 81, generator=torch.Generator().manual_seed(0))
    found = downsample_nearest(dense, torch.empty(3, *size))
    for one, expected in zip(found, dense, strict=True):
        image = Image.fromarray(expected.numpy())
        nearest = np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST))
        np.testing.assert_array_equal(one.numpy(), nearest)


def test_bilinear_upsampling_aligns_the_corners():
    small = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    large = upsample_bilinear(small, torch.empty(1, 3, 5))
    expected = [[2 * y / 2 + x / 4 for x in range(5)] for y in range(3)]
    torch.testing.assert_close(large[0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("build", "spec", "message"),
    [
        (
            build_regressor,
            SPEC,
            "makes an embedding for each pixel, but a sample of this data set has one label, got 'depth_resnet'",
        ),
        (
            build_dense_regressor,
            ModelSpec(encoder=CNN(), label_scale=1.0, label_offset=0.0),
            "makes one embedding for the whole sample, but this data set has per-pixel labels, got 'cnn'",
        ),
        (
            build_dense_regressor,
            SPEC.model_copy(update={"projection_dim": 4}),
            "per-pixel embeddings have no projection, got 4",
        ),
    ],
)
def test_a_regressor_that_does_not_fit_the_labels_is_refused(build, spec, message):
    with pytest.raises(InputError, match=message):
        build(spec, IMAGE, 0)
