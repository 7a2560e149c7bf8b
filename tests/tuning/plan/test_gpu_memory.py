"""Trials that share a GPU: `pytest tests/tuning/plan/test_gpu_memory.py`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dirtune.tuning.plan.gpu_memory import (
    CONTEXT_BYTES,
    estimate_step_bytes,
    get_gpu_memory_warning,
    get_precision_note,
    get_step_memory_warning,
)
from tests.training.toy_inputs import make_case_config, make_data
from tests.tuning.plan.test_runtime import BASE, record, study

GIB = 2**30
ON_GPU = {"device": "NVIDIA H200", "device_memory_bytes": 80 * GIB}


def sharing(gpus: float = 0.25, **resources: Any) -> Any:
    return study(resources={"gpus": gpus, **resources})


def test_trials_that_exceed_the_memory_of_a_shared_gpu_give_a_warning(tmp_path: Path) -> None:
    record(tmp_path, sharing(), "a", 0, peak_memory_bytes=8 * GIB, **ON_GPU)
    record(tmp_path, sharing(), "b", 0, peak_memory_bytes=24 * GIB, **ON_GPU)
    record(tmp_path, sharing(), "b", 1, peak_memory_bytes=30 * GIB - CONTEXT_BYTES, **ON_GPU)
    assert get_gpu_memory_warning(sharing(), tmp_path) == (
        "4 trials on one GPU need 4 x 30.0 GiB, as recorded trials like those of b did, and a GPU has 80.0 GiB: "
        "resources.gpus must leave room for 2 at most"
    )


@pytest.mark.parametrize(
    ("gpus", "resources", "is_crowded"),
    [
        (0.5, {}, False),
        (0.34, {}, False),
        (0.3, {}, True),
        (1.0, {}, False),
        (0.0, {}, False),
        (0.25, {"concurrent": 2}, False),
        (0.25, {"concurrent": 3}, True),
    ],
)
def test_the_warning_depends_on_the_number_of_trials_per_gpu(
    tmp_path: Path, gpus: float, resources: dict[str, Any], is_crowded: bool
) -> None:
    record(tmp_path, sharing(), "b", 0, peak_memory_bytes=30 * GIB, **ON_GPU)
    assert (get_gpu_memory_warning(sharing(gpus, **resources), tmp_path) is not None) == is_crowded


def test_records_of_the_arm_itself_are_preferred_to_similar_ones(tmp_path: Path) -> None:
    record(tmp_path, sharing(), "b", 0, study="earlier", peak_memory_bytes=30 * GIB, **ON_GPU)
    assert "like those of a" in str(get_gpu_memory_warning(sharing(), tmp_path))
    for arm in ("a", "b"):
        record(tmp_path, sharing(), arm, 1, peak_memory_bytes=GIB, **ON_GPU)
    assert get_gpu_memory_warning(sharing(), tmp_path) is None


def test_without_a_similar_trial_on_a_gpu_there_is_no_warning(tmp_path: Path) -> None:
    assert get_gpu_memory_warning(sharing(), tmp_path) is None
    # On a CPU
    record(tmp_path, sharing(), "a", 0, peak_memory_bytes=900 * GIB)
    smaller = study(base={**BASE, "recipe": {**BASE["recipe"], "batch_size": 32}})
    record(tmp_path, smaller, "a", 1, peak_memory_bytes=900 * GIB, **ON_GPU)
    assert get_gpu_memory_warning(sharing(), tmp_path) is None


def test_a_step_keeps_what_the_encoder_saves_for_every_view_and_copies_of_the_weights() -> None:
    manifest = make_data("vector", torch.device("cpu")).manifest
    recipe = {"batch_size": 64, "accumulation": 2, "views": {"count": 3, "augmentation": "none"}}
    config = make_case_config("vector", {"model": {"projection_dim": None}, "recipe": recipe})
    # The input of 6 values and the output of 8, in 32 rows of 3 views; 6 * 8 + 8 weights of the encoder and 9 of the predictor
    saved, weights = 4 * (6 + 8) * 32 * 3, 65
    assert estimate_step_bytes(config, manifest) == saved + 4 * 5 * weights
    assert (
        estimate_step_bytes(make_case_config("tokens", {}), make_data("tokens", torch.device("cpu")).manifest) is None
    )


def test_a_step_larger_than_the_gpu_of_recorded_trials_gives_a_warning(tmp_path: Path) -> None:
    manifest = make_data("image", torch.device("cpu")).manifest
    needs = study(resources={"gpus": 1})
    assert get_step_memory_warning(needs, manifest, tmp_path) is None
    record(tmp_path, needs, "b", 0, peak_memory_bytes=1, **ON_GPU)
    assert get_step_memory_warning(needs, manifest, tmp_path) is None
    record(tmp_path, needs, "b", 1, peak_memory_bytes=1, device="small", device_memory_bytes=CONTEXT_BYTES)
    found = get_step_memory_warning(needs, manifest, tmp_path)
    assert found is not None
    assert "GiB of GPU memory with the data, and a trial has 0.5 GiB: use recipe.accumulation" in found
    assert get_step_memory_warning(study(), manifest, tmp_path) is None


def test_a_float32_study_is_told_what_half_precision_would_save(monkeypatch: pytest.MonkeyPatch) -> None:
    def note(batch_size: int = 2**19, gpus: float = 1, inputs: str = "image", **changes: Any) -> str | None:
        encoder = {"name": "cnn", "channels": 4} if inputs == "image" else {"name": "mlp"}
        recipe = {"epochs": 1, "batch_size": batch_size, **changes.pop("recipe", {})}
        base = {"data": {"name": "toy"}, "model": {"encoder": encoder}, "recipe": recipe}
        found = study(base=base, resources={"gpus": gpus}, **changes)
        return get_precision_note(found, make_data(inputs, torch.device("cpu")).manifest)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    images, vectors = note(), note(2**22, inputs="vector")
    needs = (
        "a step of a needs about 2.2 GiB of GPU memory (an estimate, without the data), and about 1.1 GiB with recipe: "
    )
    assert images == needs + "{precision: bf16, channels_last: true}"
    assert vectors is not None
    assert vectors.endswith("with recipe: {precision: bf16}")
    half = {"a": {}, "b": {"recipe": {"precision": "bf16"}}}
    assert note(64) is note(gpus=0) is note(recipe={"precision": "bf16"}) is note(arms=half) is None

    gpu = SimpleNamespace(name="Tesla T4", major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    assert note() is None
    assert note(arms=half) == (
        "this machine's GPU (Tesla T4, capability 7.5) only emulates the bf16 of b: set recipe.precision to float32 or fp16"
    )
