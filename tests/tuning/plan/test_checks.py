"""Run with `pytest tests/tuning/plan/test_checks.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dirtune.errors import InputError
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.models.encoders.resnet import ResNet18
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.tuning.plan.checks import check_study, count_parameters, get_data_set

MANIFEST = Manifest(
    name="toy",
    inputs={"image": InputSpec(kind="image", shape=(1, 24, 24)), "table": InputSpec(kind="vector", shape=(6,))},
    label=LabelSpec(name="angle", unit="degrees", low=0, high=2, bin_width=1, num_bins=2),
    shot_rules={"counts": ShotRule()},
    default_shot_rule="counts",
    splits={split: SplitInfo(files=("part.parquet",), rows=3, bin_counts=(1, 2)) for split in ("train", "val", "test")},
    content_hash="c" * 64,
    split_fingerprint="s" * 64,
)
CNN: dict[str, Any] = {"encoder": {"name": "cnn", "channels": 4}, "label_scale": 1, "label_offset": 0}


def study(**changes: Any) -> ResolvedStudy:
    raw = {
        "name": "tiny",
        "question": "?",
        "reference": "a",
        "seeds": [0, 1],
        "base": {"data": {"name": "toy"}, "model": CNN},
        "arms": {"a": {}},
    }
    return resolve({**raw, **changes}, where="test")


def faults_of(found: ResolvedStudy) -> list[str]:
    with pytest.raises(InputError) as caught:
        check_study(found, MANIFEST)
    return [str(fault) for fault in caught.value.faults]


def test_the_parameters_of_an_arm_equal_a_count_by_hand() -> None:
    mlp = {"encoder": {"name": "mlp", "hidden": [4, 3]}}
    arms = {
        "a": {},
        "mlp": {"model": mlp},
        "projected": {"model": {**mlp, "projection_dim": 5}},
        "beside": {"model": {**mlp, "projection_dim": 5, "predictor_input": "embedding"}},
    }
    convolutions = (1 * 4 * 16 + 4) + (4 * 4 * 16 + 4) + (4 * 12 * 16 + 12)
    hidden, projection = (6 * 4 + 4) + (4 * 3 + 3), 3 * 5 + 5
    assert count_parameters(study(arms=arms), MANIFEST) == {
        "a": convolutions + 12 * 3 * 3 + 1,
        "mlp": hidden + 3 + 1,
        "projected": hidden + projection + 5 + 1,
        "beside": hidden + projection + 3 + 1,
    }


def test_the_arms_of_a_study_share_one_data_set() -> None:
    assert get_data_set(study()) == "toy"
    arms = {"a": {}, "b": {"data": {"name": "other"}}}
    with pytest.raises(InputError) as caught:
        get_data_set(study(arms=arms))
    text = "tiny: all arms of a study share one data set, got ['other', 'toy']"
    assert str(caught.value) == text


def test_a_study_that_fits_its_data_passes() -> None:
    arms = {"a": {}, "mlp": {"model": {"encoder": {"name": "mlp"}}}}
    check_study(study(arms=arms), MANIFEST)


def test_the_faults_of_all_arms_are_reported_at_once_each_with_its_key() -> None:
    arms = {
        "a": {},
        "b": {
            "recipe": {"views": {"augmentation": "flip"}},
            "data": {"shot_rule": "official"},
            "model": {"encoder": {"name": "bilstm"}},
        },
        "c": {"recipe": {"views": {"augmentation": "rotate"}}},
    }
    found = faults_of(study(arms=arms))
    expected = [
        "study 'tiny': arms.b.data.shot_rule: unknown shot rule, got 'official'; known: counts",
        "study 'tiny': arms.b.recipe.views.augmentation: unknown augmentation, got 'flip'; known: ",
        "study 'tiny': arms.b.model.encoder: encoder 'bilstm' needs ",
        "study 'tiny': arms.c.recipe.views.augmentation: unknown augmentation, got 'rotate'; known",
    ]
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))


def test_a_fault_of_several_arms_is_reported_for_the_first() -> None:
    base = {"data": {"name": "toy", "shot_rule": "official"}, "model": CNN}
    arms = {"a": {}, "b": {"alpha": 2.0}, "c": {"data": {"shot_rule": "other"}}}
    assert faults_of(study(base=base, arms=arms)) == [
        "study 'tiny': arms.a.data.shot_rule: unknown shot rule, got 'official'; known: counts",
        "study 'tiny': arms.c.data.shot_rule: unknown shot rule, got 'other'; known: counts",
    ]


def test_metrics_of_predicted_deviations_need_them_in_every_arm() -> None:
    arms = {"normal": {"loss": {"name": "gaussian_nll"}}, "double": {"loss": {"name": "laplace_nll"}}}
    check_study(study(arms=arms, reference="normal", objective={"metric": "nll"}, claim={"metric": "crps"}), MANIFEST)
    (fault,) = faults_of(study(arms=arms | {"plain": {}}, reference="normal", claim={"metric": "crps"}))
    assert fault.startswith("tiny: claim.metric: needs a predicted standard deviation")
    assert "the arm 'plain' has none" in fault


def test_a_first_rung_after_the_last_epoch_is_rejected_if_arms_are_searched() -> None:
    base = {"data": {"name": "toy"}, "model": CNN, "recipe": {"epochs": 3}}
    arms: dict[str, Any] = {"a": {}, "b": {"terms": {"conr": {}}}}
    space = {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}}
    late = {"scheduler": {"name": "asha", "grace_epochs": 4}}
    rule = "search.scheduler.grace_epochs: must be at most the 3 epochs of a trial, got 4"
    assert faults_of(study(base=base, arms=arms, space=space, search=late)) == [f"study 'tiny': {rule}"]
    check_study(
        study(base=base, arms=arms, space=space, search={"scheduler": {"name": "asha", "grace_epochs": 3}}), MANIFEST
    )
    # Nothing is searched
    check_study(study(base=base, arms=arms, search=late), MANIFEST)


def test_options_unsupported_by_machine_or_encoder_are_rejected_with_their_arm() -> None:
    arms = {
        "a": {},
        "half": {"recipe": {"precision": "fp16"}},
        "synchronized": {"recipe": {"sync_batch_norm": True}, "model": {"encoder": {"name": "resnet18"}}},
        "flat": {"recipe": {"channels_last": True}, "model": {"encoder": {"name": "mlp"}}},
    }
    assert faults_of(study(arms=arms, resources={"workers": 2})) == [
        "study 'tiny': arms.half.recipe.precision: needs a GPU (resources.gpus, or --device cuda); "
        "a CPU can do bf16, got 'fp16'",
        "study 'tiny': arms.synchronized.recipe.sync_batch_norm: "
        "torch synchronizes batch normalization of 2 workers on GPUs only (resources.gpus)",
        "study 'tiny': arms.flat.recipe.channels_last: the encoder has no convolution",
    ]
    del arms["flat"]
    check_study(study(arms=arms, resources={"workers": 2, "gpus": 1}), MANIFEST)


def test_a_weights_file_is_read_before_any_trial(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    raw = {
        "name": "faces",
        "question": "?",
        "reference": "base",
        "seeds": [0],
        "base": {
            "data": {"name": "toy"},
            "model": {**CNN, "encoder": {"name": "resnet18", "weights_file": str(weights)}},
        },
    }
    study = resolve(raw, where="faces.yaml")
    with pytest.raises(InputError, match=r"weights\.pth: no such file"):
        check_study(study, MANIFEST)
    gray = ResNet18().build({"image": MANIFEST.inputs["image"]})
    torch.save(gray.network.state_dict(), weights)
    check_study(study, MANIFEST)
    (number,) = count_parameters(study, MANIFEST).values()
    assert number > 11_000_000
