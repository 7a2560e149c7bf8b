"""A toy data set, written as an ingest writes it, and configurations that train on it in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dirtune.config import TrialConfig
from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import ResidentData
from dirtune.data.columns import Columns, to_arrow
from dirtune.data.store import read_manifest
from dirtune.data.verify import hash_digests, read_shards
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.nested import merge

# Training samples per label bin; 202 in all
TAIL = (60, 45, 30, 20, 15, 12, 8, 6, 4, 2)
ROWS = {"train": TAIL, "val": (3,) * 10, "test": (4,) * 10}
INPUTS = {"image": InputSpec(kind="image", shape=(1, 8, 8)), "vector": InputSpec(kind="vector", shape=(6,))}
LABEL = LabelSpec(name="length", unit="m", low=0, high=20, bin_width=2, num_bins=10)
SHOT_RULES = {"toy": ShotRule(many_above=40, few_below=10), "no_few": ShotRule(many_above=40, few_below=0)}
SETTINGS: dict[str, Any] = {
    "data": {"name": "toy"},
    "model": {"encoder": {"name": "mlp", "hidden": [8]}, "label_scale": 1.0, "label_offset": 4.0},
    "recipe": {"epochs": 3, "batch_size": 64, "learning_rate": 0.01},
}


@pytest.fixture(scope="session")
def configuration() -> Callable[..., TrialConfig]:
    """Makes a configuration: the toy settings with others laid over them."""
    return lambda **settings: read(TrialConfig, merge(SETTINGS, settings), where="test")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the ingested data set `toy`: 202 training, 30 validation and 40 test samples."""
    root = tmp_path_factory.mktemp("data")
    home, rows = Storage.open(root / "toy"), {}
    for seed, (split, per_bin) in enumerate(ROWS.items()):
        file = f"version-1/{split}/part_0.parquet"
        Path(home.path(file)).parent.mkdir(parents=True)
        pq.write_table(to_arrow(_samples(split, per_bin, seed), INPUTS), home.path(file))
        rows[split] = read_shards(home, split, [file], INPUTS)
    manifest = Manifest(
        name="toy",
        inputs=INPUTS,
        label=LABEL,
        shot_rules=SHOT_RULES,
        default_shot_rule="toy",
        splits={split: found.make_split_info(LABEL) for split, found in rows.items()},
        content_hash=hash_digests(found.content_digests for found in rows.values()),
        split_fingerprint=hash_digests(found.split_digests for found in rows.values()),
    )
    home.write(MANIFEST, manifest.model_dump_json().encode())
    return root


@pytest.fixture(scope="session")
def toy(data_root: Path) -> ResidentData:
    """The toy data set as tensors."""
    storage = Storage.open(data_root)
    return read_without_ray(storage, read_manifest(storage, "toy"), torch.device("cpu"))


@pytest.fixture
def study(tmp_path: Path) -> Storage:
    """The folder of an empty study."""
    return Storage.open(tmp_path / "study")


@pytest.fixture
def dying_after_the_record() -> Callable[[Path], Storage]:
    """Makes a folder on which the process dies when it tidies up."""
    return _Unremovable.open


class _Unremovable(Storage):
    def get_folder(self, name: str) -> Storage:
        return _Unremovable(self.filesystem, self.path(name))

    def remove(self, name: str) -> None:
        if not name.startswith(("results/", "checkpoint/")):
            raise OSError("the process died here")


def _samples(split: str, per_bin: tuple[int, ...], seed: int) -> Columns:
    """Labels spread over their bins; a vector and an image that determine the label up to noise."""
    drawn = np.random.default_rng(seed)
    bins = np.repeat(np.arange(len(per_bin)), per_bin)
    labels = LABEL.bin_width * (bins + drawn.random(len(bins)))
    phase = labels[:, None] / 20 + np.arange(6) / 6
    brightness = labels[:, None, None, None] * 8 + drawn.normal(0, 20, (len(bins), 1, 8, 8))
    return {
        "sample_id": np.array([f"{split}-{row:03d}" for row in range(len(bins))], dtype=object),
        "label": labels,
        "vector": (np.sin(3 * phase) + drawn.normal(0, 0.2, phase.shape)).astype(np.float32),
        "image": (40 + brightness).clip(0, 255).astype(np.uint8),
    }
