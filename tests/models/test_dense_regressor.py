"""Run with `pytest tests/models/test_dense_regressor.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.dense_regressor import MapRegressor, enlarged, thinned
from dirtune.models.encoders import CNN, DepthResNet
from dirtune.models.regressor import ModelSpec, build_regressor
from dirtune.reweighting.fds import FDS

IMAGE = {"image": InputSpec(kind="image", shape=(3, 64, 80))}
SPEC = ModelSpec(encoder=DepthResNet(base="resnet18"), label_scale=2.0, label_offset=3.0)


def _regressor(smoothing: FDS | None = None, seed: int = 0) -> MapRegressor:
    built = build_regressor(SPEC, IMAGE, seed, smoothing=smoothing, num_bins=20, maps=True)
    assert isinstance(built, MapRegressor)
    return built


def _images(rows: int = 2) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(rows, 3, 64, 80, generator=torch.Generator().manual_seed(0))}


def test_there_is_a_prediction_for_every_pixel_of_the_embedding():
    model = _regressor().eval()
    output = model(_images())
    assert output.embeddings.shape == (2, 80, 32, 40)
    assert output.predictions.shape == (2, 32, 40)
    assert output.representations.shape == (2, 80)
    torch.testing.assert_close(output.representations.norm(dim=1), torch.ones(2))
    raw = nn.functional.conv2d(output.embeddings, model.predictor.weight, model.predictor.bias, padding=2)
    torch.testing.assert_close(output.predictions, 3.0 + 2.0 * raw[:, 0])


def test_the_start_is_determined_by_the_seed_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    first, same, other = (_regressor(seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["predictor.weight"], other["predictor.weight"])


def test_the_predictor_reads_smoothed_embeddings_and_pixels_without_label_are_left_alone():
    model = _regressor(FDS(size=3, start_smooth=0)).train()
    # Every labelled pixel is moved by -1
    model.smoothing.frozen[0].fill_(1.0)
    bins = torch.full((2, 64, 80), 4)
    bins[:, :, 40:] = -1
    read = []
    model.predictor.register_forward_hook(lambda _, given, __: read.append(given[0]))
    output = model(_images(), bins)
    moved = output.embeddings - read[0]
    torch.testing.assert_close(moved[..., :20], torch.ones(2, 80, 32, 20), atol=1e-4, rtol=0)
    assert torch.equal(moved[..., 20:], torch.zeros(2, 80, 32, 20))


@pytest.mark.parametrize("size", [(32, 40), (20, 26), (63, 81)])
def test_labels_are_thinned_to_the_pixels_that_pillow_takes(size):
    maps = torch.rand(3, 63, 81, generator=torch.Generator().manual_seed(0))
    found = thinned(maps, torch.empty(3, *size))
    for one, expected in zip(found, maps, strict=True):
        image = Image.fromarray(expected.numpy())
        nearest = np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST))
        np.testing.assert_array_equal(one.numpy(), nearest)


def test_predictions_are_enlarged_with_corners_on_corners():
    small = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    large = enlarged(small, torch.empty(1, 3, 5))
    expected = [[2 * y / 2 + x / 4 for x in range(5)] for y in range(3)]
    torch.testing.assert_close(large[0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("spec", "maps", "told"),
    [
        (
            SPEC,
            False,
            "makes an embedding for each pixel, but a sample of this data set has one label, got 'depth_resnet'",
        ),
        (
            ModelSpec(encoder=CNN()),
            True,
            "makes an embedding for the whole sample, but a sample of this data set has a label for each",
        ),
        (SPEC.model_copy(update={"projection_dim": 4}), True, "there is no projection of embeddings of pixels, got 4"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(spec, maps, told):
    with pytest.raises(InputError, match=told):
        build_regressor(spec, IMAGE, 0, maps=maps)
