"""`pytest tests/models/encoders/test_trained_libraries.py`: networks of the libraries in trials, frozen and tuned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dirtune
from dirtune.config import TrialConfig
from dirtune.data import label_units
from dirtune.data.store import read_manifest
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.training.task import make_task
from tests.training.conftest import data_root, toy

__all__ = ["data_root", "toy"]
pytestmark = pytest.mark.slow


def save_timm(model: str, folder: Path, **options: Any) -> dict[str, Any]:
    timm = pytest.importorskip("timm")
    torch.manual_seed(5)
    torch.save(timm.create_model(model, **options).state_dict(), folder / "weights.pt")
    return {"name": "timm", "model": model, "image_size": 32, "weights_file": str(folder / "weights.pt")}


def save_resnet18(folder: Path) -> dict[str, Any]:
    return save_timm("resnet18", folder)


def save_small_vit(folder: Path) -> dict[str, Any]:
    return save_timm("vit_tiny_patch16_224", folder, img_size=32)


def save_torchvision(folder: Path) -> dict[str, Any]:
    """Write its weights where torch keeps those that it has downloaded."""
    from torchvision import models

    torch.manual_seed(5)
    file = models.MobileNet_V3_Small_Weights.DEFAULT.url.rpartition("/")[2]
    (folder / "hub/checkpoints").mkdir(parents=True)
    torch.save(models.mobilenet_v3_small().state_dict(), folder / "hub/checkpoints" / file)
    return {"name": "torchvision", "model": "mobilenet_v3_small", "image_size": 32, "pretrained": True}


def save_transformers(folder: Path) -> dict[str, Any]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    return {"name": "transformers", "model": str(folder), "pretrained": True}


@pytest.mark.parametrize("save", [save_resnet18, save_small_vit, save_torchvision, save_transformers])
def test_a_frozen_and_a_tuned_arm_start_equal_and_train(
    save: Callable[[Path], dict[str, Any]], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    encoder = save(tmp_path)
    shared = {"data": {"name": "toy", "fraction": 0.3}, "recipe": {"epochs": 2, "batch_size": 16}}
    arms = {
        name: {**shared, "model": {"encoder": {**encoder, "freeze": name == "frozen"}}} for name in ("frozen", "tuned")
    }
    storage = Storage.open(data_root)
    manifest = read_manifest(storage, "toy")
    starts, ends = {}, {}
    for arm, plain in arms.items():
        config = label_units.resolve_label_units(read(TrialConfig, plain, where="test"), manifest)
        starts[arm] = make_task(manifest).build_regressor(config).state_dict()
        trained = dirtune.train(plain, data=data_root, results=tmp_path / "results", arm=arm)
        assert trained.status == "complete", trained.error
        ((_, model),) = dirtune.load("train", arm=arm, results=tmp_path / "results").models.items()
        ends[arm] = model.regressor.state_dict()
    names = starts["frozen"].keys()
    assert names == starts["tuned"].keys()
    assert all(torch.equal(starts["frozen"][name], starts["tuned"][name]) for name in names)

    def list_changed(arm: str) -> set[str]:
        return {name for name in names if not torch.equal(ends[arm][name], starts[arm][name])}

    assert list_changed("frozen") == {name for name in names if not name.startswith("encoder.")}
    assert list_changed("tuned") >= {name for name in names if name.endswith("weight")}
    losses = dirtune.query(
        "select arm, epoch, value from curves where name = 'train/loss'", results=tmp_path / "results"
    )
    assert losses.groupby("arm").size().to_dict() == {"frozen": 2, "tuned": 2}
    assert losses["value"].between(0, 100).all()
