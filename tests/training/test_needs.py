"""Run with `pytest tests/training/test_needs.py`: losses and terms without a form for the data are refused before a training."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dirtune.data.cache import ResidentData
from dirtune.errors import InputError
from dirtune.manifest import DenseLabels, LabelSpec
from dirtune.nested import merge
from dirtune.training.task import make_task
from tests.training.runs import Configure, without_images

AXIS = LabelSpec(name="pitch", unit="rad", low=0, high=2, bin_width=1, num_bins=2)
LABELS = {
    "dense": {"dense": DenseLabels(column="depth", unit_per_count=0.1, height=8, width=8)},
    "two dimensions": {"components": (AXIS, AXIS)},
    "one bin": {"num_bins": 1},
    "usual": {},
}


# Losses and terms of the newest methods by what they have no form for
SCALAR_LOSSES = (
    "beta_nll",
    "dist",
    "evidential",
    "gaussian_nll",
    "group_dir",
    "hca",
    "laplace_nll",
    "uvote",
    "vir_head",
)
SCALAR_TERMS = ("group_rnc", "prime", "srl", "supremix")
ONE_BATCH = {"recipe": {"batch_size": 1}}
ON_PIXELS: dict[str, tuple[dict[str, Any], str]] = {
    **{f"loss {name}": ({"loss": {"name": name}}, "the losses l1, mse, gai and") for name in SCALAR_LOSSES},
    **{f"term {name}": ({"terms": {name: {}}}, "the term conr is") for name in (*SCALAR_TERMS, "phreg", "rotreg")},
    "model.target_copies": ({"model": {"target_copies": 2}}, "leave it out"),
    "mixing": ({"mixing": {"name": "c_mixup"}}, "leave it out"),
    "sampling": ({"sampling": {"name": "inverse"}}, "reweighting weights pixels"),
    "synthesis": ({"synthesis": {"name": "smogn"}}, "reweighting weights pixels"),
    "sharpness.weights": ({"sharpness": {"name": "sam", "weights": "ascent"}}, "both is"),
}
IN_TWO_DIMENSIONS: dict[str, tuple[dict[str, Any], str]] = {
    **{f"loss {name}": ({"loss": {"name": name}}, "the losses l1 and mse and") for name in SCALAR_LOSSES},
    **{f"term {name}": ({"terms": {name: {}}}, "the losses l1 and mse and") for name in SCALAR_TERMS},
    "model.target_copies": ({"model": {"target_copies": 2}}, "leave it out"),
    "synthesis": ({"synthesis": {"name": "smoter"}}, "sampling, mixing and reweighting take any"),
}
IN_ONE_BIN: dict[str, tuple[dict[str, Any], str]] = {
    "loss hca": ({"loss": {"name": "hca"}}, "needs 2 label bins, .* has 1; ingest it with a smaller bin width"),
    "term prime": ({"terms": {"prime": {}}}, "needs 2 label bins, .* has 1; ingest it with a smaller bin width"),
    "term srl": ({"terms": {"srl": {}}}, "needs 2 label bins, .* has 1; ingest it with a smaller bin width"),
    "sampling": ({"sampling": {"name": "inverse"}}, "all training labels are in one; ingest with narrower bins"),
}
ON_ONE_SAMPLE: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"loss {name}": ({"loss": {"name": name}}, "needs 2 in a batch, but has 1; raise recipe.batch_size")
        for name in ("bmc", "ccc", "dist")
    },
    **{
        f"term {name}": ({"terms": {name: {}}}, f"needs {least} in a batch, but has 1; raise recipe.batch_size")
        for name, least in {"group_rnc": 2, "supremix": 2, "phreg": 4, "rotreg": 4}.items()
    },
    "mixing": ({"mixing": {"name": "mixup", "partners": "batch"}}, "use partners: split, or raise recipe.batch_size"),
}


@pytest.mark.parametrize(
    ("label", "settings", "message"),
    [
        *(("dense", *case) for case in ON_PIXELS.values()),
        *(("two dimensions", *case) for case in IN_TWO_DIMENSIONS.values()),
        *(("one bin", *case) for case in IN_ONE_BIN.values()),
        *(("usual", merge(settings, ONE_BATCH), message) for settings, message in ON_ONE_SAMPLE.values()),
        *(
            (
                "usual",
                {"loss": {"name": name}, "recipe": {"batch_size": 8, "accumulation": 2}},
                "loss.name: needs whole batches, but recipe.accumulation cuts them into 2; set it to 1",
            )
            for name in ("bmc", "ccc")
        ),
        (
            "usual",
            {"scheme": {"name": "rrt", "loss": {"name": "dist"}, "batch_size": 1}},
            "scheme.loss.name: compares samples and needs 2 in a batch, but has 1; raise recipe.batch_size",
        ),
    ],
)
def test_a_part_without_a_form_is_refused_with_what_would_do(
    configuration: Configure, toy: ResidentData, label: str, settings: dict[str, Any], message: str
) -> None:
    toy = without_images(toy)
    of_label = toy.manifest.label.model_copy(update=LABELS[label])
    changes: dict[str, Any] = {"label": of_label}
    if label == "one bin":
        infos = toy.manifest.splits
        changes["splits"] = infos | {"train": infos["train"].model_copy(update={"bin_counts": (202,)})}
    manifest = toy.manifest.model_copy(update=changes)
    with pytest.raises(InputError) as caught:
        make_task(manifest).check(configuration(**settings))
    (fault,) = map(str, caught.value.faults)
    assert re.search(message, fault)


def test_every_part_is_allowed_where_it_has_a_form(configuration: Configure, toy: ResidentData) -> None:
    for loss in ("bmc", "ccc", "dist"):
        make_task(toy.manifest).check(configuration(loss={"name": loss}))
