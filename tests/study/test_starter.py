"""Run with `pytest tests/study/test_starter.py`: the study that `dirtune init` writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.io.yamlfile import parse_yaml
from dirtune.manifest import MANIFEST, DenseLabels, InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.study.resolve import resolve
from dirtune.study.starter import write_starter_study
from dirtune.tuning.plan.checks import check_study, resolve_from_data

LABEL = LabelSpec(name="strength", unit="MPa", low=0, high=100, bin_width=5, num_bins=20)
VECTOR = InputSpec(kind="vector", shape=(8,))
TOKENS = InputSpec(kind="tokens", shape=(12,), vocabulary=100)
INPUTS = {
    "table": {"features": VECTOR},
    "pairs of features": {"first": TOKENS, "second": TOKENS, "first_features": VECTOR, "second_features": VECTOR},
    "small images": {"image": InputSpec(kind="image", shape=(3, 32, 32))},
    "large images": {"image": InputSpec(kind="image", shape=(3, 224, 224), encoding="jpeg")},
    "pairs of texts": {"first": TOKENS, "second": TOKENS},
}
ARMS = ["accon", "balanced_mse", "conr", "ranksim", "sqrt_inverse_lds", "vanilla"]


def make_manifest(inputs: dict[str, InputSpec], label: LabelSpec = LABEL, rows: int = 400) -> Manifest:
    counts = (rows // label.num_bins,) * label.num_bins
    return Manifest(
        name="concrete",
        inputs=inputs,
        label=label,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={split: SplitInfo(files=(), rows=sum(counts), bin_counts=counts) for split in ("train", "val", "test")},
        content_hash="0" * 64,
        split_fingerprint="0" * 64,
    )


def list_arms(manifest: Manifest) -> list[str]:
    """Return the arms of the starter study, which must fit its data."""
    text = write_starter_study(manifest, name="mine", file="mine.yaml")
    study = resolve(parse_yaml(text, where="mine.yaml"), where="mine.yaml")
    assert study.name == "mine"
    check_study(resolve_from_data(study, manifest), manifest)
    assert {study.get_budget(arm) for arm in study.arms} == {6}
    return sorted(arm.name for arm in study.arms)


@pytest.mark.parametrize("kind", INPUTS)
def test_the_study_fits_every_kind_of_inputs(kind: str) -> None:
    assert list_arms(make_manifest(INPUTS[kind])) == ARMS


def test_a_label_of_several_dimensions_has_the_methods_that_have_a_form_for_it() -> None:
    axes = tuple(LABEL.model_copy(update={"name": name}) for name in ("pitch", "yaw"))
    label = LabelSpec.grid("gaze", "MPa", axes)
    arms = list_arms(make_manifest(INPUTS["table"], label, rows=4000))
    assert arms == [arm for arm in ARMS if arm not in {"ranksim", "sqrt_inverse_lds"}]


def test_a_batch_is_at_most_a_quarter_of_a_tiny_set() -> None:
    text = write_starter_study(make_manifest(INPUTS["table"], rows=60), name="mine", file="mine.yaml")
    assert "batch_size: 15\n" in text


def test_data_without_a_beginning_are_refused_in_one_sentence() -> None:
    with pytest.raises(
        InputError, match="no encoder to begin with reads these inputs together, got '1 image, 1 vector'"
    ):
        write_starter_study(make_manifest({**INPUTS["small images"], **INPUTS["table"]}), name="mine", file="mine.yaml")
    dense = LABEL.model_copy(update={"dense": DenseLabels(column="depth", unit_per_count=0.1, height=8, width=8)})
    inputs = {**INPUTS["small images"], "depth": InputSpec(kind="dense_label", shape=(1, 8, 8))}
    with pytest.raises(InputError, match="labels per pixel have no common methods"):
        write_starter_study(make_manifest(inputs, dense), name="mine", file="mine.yaml")


def test_the_study_is_utf_8_whatever_the_locale_is(tmp_path: Path) -> None:
    manifest = make_manifest(INPUTS["table"], LABEL.model_copy(update={"unit": "°C"}))
    (tmp_path / "data/concrete").mkdir(parents=True)
    (tmp_path / "data/concrete" / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    script = "from dirtune.data.init import init; init('concrete', data='data', output='mine.yaml')"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert "from 0 to 100 °C" in (tmp_path / "mine.yaml").read_text(encoding="utf-8")
