"""Run with `pytest tests/models/test_pixels.py`."""

from __future__ import annotations

import pytest
import torch

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.manifest import InputSpec
from dirtune.models.build import build_regressor
from dirtune.models.regressor import ModelSpec

INPUTS = {"image": InputSpec(kind="image", shape=(2, 8, 8))}
PLAIN = {"encoder": {"name": "cnn", "channels": 4}, "label_scale": 1, "label_offset": 0}


def _spec(units: object) -> ModelSpec:
    return read(ModelSpec, {**PLAIN, "pixel_units": units}, where="test")


def test_an_encoder_reads_standardized_pixels() -> None:
    images = torch.rand(5, 2, 8, 8)
    units = {"mean": [0.5, 0.25], "deviation": [0.1, 2.0]}
    inner, outer = (build_regressor(_spec(each), INPUTS, seed=3).eval() for each in (None, units))
    by_hand = torch.stack([(images[:, 0] - 0.5) / 0.1, (images[:, 1] - 0.25) / 2.0], dim=1)
    torch.testing.assert_close(outer({"image": images}).predictions, inner({"image": by_hand}).predictions)
    # The settings are in no checkpoint.
    assert {name.removeprefix("encoder.") for name in outer.state_dict()} == set(inner.state_dict()) | {
        name for name in inner.state_dict() if not name.startswith("encoder.")
    }


def test_units_must_fit_the_channels() -> None:
    with pytest.raises(InputError, match="must have a number for each channel of the images, got 3"):
        build_regressor(_spec({"mean": [0, 0, 0], "deviation": [1, 1, 1]}), INPUTS, seed=0)
    with pytest.raises(InputError, match="must have a number for each channel"):
        _spec({"mean": [0, 0], "deviation": [1]})
