"""Run with `pytest tests/test_manifest.py`: labels of several dimensions; other parts are tested where they are used."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.manifest import DenseLabels, InputSpec, LabelSpec

PITCH = LabelSpec(name="pitch", unit="rad", low=-0.5, high=0.25, bin_width=0.25, num_bins=3)
YAW = LabelSpec(name="yaw", unit="rad", low=-1.0, high=1.0, bin_width=0.25, num_bins=8)
AGE = LabelSpec(name="age", unit="years", low=0, high=120, bin_width=1, num_bins=121)


def test_a_grid_encloses_its_components_and_has_their_cells() -> None:
    gaze = LabelSpec.grid("gaze", "rad", (PITCH, YAW))
    assert (gaze.low, gaze.high, gaze.bin_width, gaze.num_bins) == (-1.0, 1.0, 0.25, 24)
    assert (gaze.axes, gaze.value_shape) == ((PITCH, YAW), (2,))
    assert gaze.label_range == pytest.approx(math.sqrt(0.75**2 + 2.0**2))
    assert LabelSpec.grid("gaze", "rad", (PITCH, YAW), contrast_range=1.5).label_range == 1.5
    assert read(LabelSpec, gaze.model_dump(mode="json"), where="manifest") == gaze


def test_a_label_of_one_dimension_is_its_own_axis() -> None:
    assert (AGE.axes, AGE.value_shape) == ((AGE,), ())
    assert AGE.label_range == AGE.range == 120.0
    # A manifest from before labels had components
    old = AGE.model_dump(mode="json", exclude={"components"})
    assert read(LabelSpec, old, where="manifest") == AGE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"components": [PITCH]}, "two or more labels of one dimension"),
        ({"components": [PITCH, LabelSpec.grid("gaze", "rad", (PITCH, YAW))]}, "two or more labels of one dimension"),
        ({"components": [PITCH, AGE]}, "bin_width must be that of every component"),
        ({"low": -0.5}, "low and high must enclose the ranges"),
        ({"high": 2.0}, "low and high must enclose the ranges"),
        ({"num_bins": 11}, "num_bins must be the product"),
    ],
)
def test_invalid_components_are_refused(changes: dict[str, Any], message: str) -> None:
    whole = LabelSpec.grid("gaze", "rad", (PITCH, YAW)).model_dump(mode="json")
    parts = (
        {"components": [each.model_dump(mode="json") for each in changes["components"]]}
        if "components" in changes
        else changes
    )
    with pytest.raises(InputError, match=message):
        read(LabelSpec, {**whole, **parts}, where="manifest")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (2, 8, 8)}, "has the shape"),
        ({"shape": (64,)}, "has the shape"),
        ({"shape": (1, 8, 8), "encoding": "jpeg"}, "jpeg would change its numbers"),
    ],
)
def test_a_dense_label_has_one_channel_and_is_never_a_jpeg(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InputSpec(kind="dense_label", **settings)


def test_per_pixel_labels_have_one_dimension() -> None:
    dense = DenseLabels(column="depth", unit_per_count=0.001, height=4, width=4)
    axis = LabelSpec(name="a", unit="m", low=0.0, high=1.0, bin_width=0.5, num_bins=2)
    two = {**LabelSpec.grid("two", "m", (axis, axis)).model_dump(), "dense": dense}
    with pytest.raises(ValidationError, match="per-pixel labels must have one dimension"):
        LabelSpec(**two)
