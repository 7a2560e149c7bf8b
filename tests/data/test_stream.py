"""Run with `pytest tests/data/test_stream.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dirtune.data.store import read_manifest
from dirtune.data.stream import fetch, materialise, read_directly
from dirtune.storage import Storage


@pytest.mark.ray
def test_blocks_from_the_object_store_are_what_is_on_disk(digits: Path) -> None:
    storage, cpu = Storage.at(digits), torch.device("cpu")
    manifest = read_manifest(storage, "digits")
    streamed = fetch(manifest, materialise(storage, manifest), cpu)
    direct = read_directly(storage, manifest, cpu)
    assert {name: len(split) for name, split in streamed.splits.items()} == {
        "train": 4809,
        "val": 600,
        "test": 1200,
    }
    for name, split in streamed.splits.items():
        assert split.sample_ids == direct.splits[name].sample_ids
        assert torch.equal(split.inputs["image"], direct.splits[name].inputs["image"])
        assert torch.equal(split.labels, direct.splits[name].labels)
        assert torch.equal(split.label_bins, direct.splits[name].label_bins)
