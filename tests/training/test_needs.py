"""Run with `pytest tests/training/test_needs.py`: losses and terms without a form for the data are refused before a training."""

from __future__ import annotations

from typing import Any

import pytest

from dirtune.data.cache import ResidentData
from dirtune.errors import InputError
from dirtune.manifest import DenseLabels, LabelSpec
from dirtune.training.task import make_task
from tests.training.runs import Configure

AXIS = LabelSpec(name="pitch", unit="rad", low=0, high=2, bin_width=1, num_bins=2)
LABELS = {
    "dense": {"dense": DenseLabels(column="depth", unit_per_count=0.1, height=8, width=8)},
    "two dimensions": {"components": (AXIS, AXIS)},
    "one bin": {"num_bins": 1},
    "usual": {},
}


@pytest.mark.parametrize(
    ("label", "settings", "message"),
    [
        ("dense", {"loss": {"name": "dist"}}, r"loss.name: is not defined for per-pixel labels; the losses l1 and mse"),
        (
            "two dimensions",
            {"loss": {"name": "dist"}},
            "loss.name: is made for labels of one dimension, not 2; the losses",
        ),
        (
            "usual",
            {"loss": {"name": "ccc"}, "recipe": {"batch_size": 8, "accumulation": 2}},
            "loss.name: needs whole batches, but recipe.accumulation cuts them into 2; set it to 1",
        ),
        (
            "usual",
            {"scheme": {"name": "rrt", "loss": {"name": "dist"}, "batch_size": 1}},
            "scheme.loss.name: compares samples and needs 2 in a batch, but has 1; raise recipe.batch_size",
        ),
    ],
)
def test_a_part_without_a_form_is_refused(
    configuration: Configure, toy: ResidentData, label: str, settings: dict[str, Any], message: str
) -> None:
    manifest = toy.manifest.model_copy(update={"label": toy.manifest.label.model_copy(update=LABELS[label])})
    with pytest.raises(InputError, match=message):
        make_task(manifest).check(configuration(**settings))


def test_every_part_is_allowed_where_it_has_a_form(configuration: Configure, toy: ResidentData) -> None:
    for loss in ("ccc", "dist"):
        make_task(toy.manifest).check(configuration(loss={"name": loss}))
