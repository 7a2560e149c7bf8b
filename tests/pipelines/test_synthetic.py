"""Made sets are split as any other: `pytest tests/pipelines/test_synthetic.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.data.ingest import ingest
from dirtune.data.store import decode, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def _made(root: Path, **options: object) -> Manifest:
    return ingest("digits", root=root, options=options, report=str)


def _train(root: Path, manifest: Manifest) -> dict[str, float]:
    rows = decode(read_split(Storage.open(root), manifest, "train"), manifest)
    return dict(zip(rows["sample_id"].tolist(), rows["label"].tolist(), strict=True))


def test_by_default_every_sample_is_kept_where_it_was_made(tmp_path: Path) -> None:
    manifest = _made(tmp_path)
    assert {split: info.rows for split, info in manifest.splits.items()} == {"train": 4809, "val": 600, "test": 1200}
    assert "the three splits use different digits" in manifest.notes


def test_smaller_shares_of_the_training_set_are_subsets_of_larger_ones(tmp_path: Path) -> None:
    small = _train(tmp_path / "a", _made(tmp_path / "a", fraction=0.1))
    large = _train(tmp_path / "b", _made(tmp_path / "b", fraction=0.5))
    assert (len(small), len(large)) == (481, 2404)
    assert small.items() <= large.items()


def test_a_profile_thins_training_and_leaves_validation_and_test(tmp_path: Path) -> None:
    manifest = _made(tmp_path, profile="normal", peaks=(30.0,), spread=10.0, tolerance=0.5)
    labels = np.array(list(_train(tmp_path, manifest).values()))
    assert 0 < len(labels) < 4809
    assert [manifest.splits[split].rows for split in ("val", "test")] == [600, 1200]
    assert any(note.startswith("training density: normal") for note in manifest.notes)


def test_a_natural_split_has_the_same_sizes_and_mixes_the_splits(tmp_path: Path) -> None:
    manifest = _made(tmp_path, split="natural")
    assert [manifest.splits[split].rows for split in ("train", "val", "test")] == [4809, 600, 1200]
    assert "the three splits use different digits" not in manifest.notes
    assert any(identity.startswith("test-") for identity in _train(tmp_path, manifest))


def test_a_held_out_band_is_a_shot_rule(tmp_path: Path) -> None:
    manifest = _made(tmp_path, hold_out="interpolation", bands=((10.0, 20.0),))
    assert not any(10 <= label < 20 for label in _train(tmp_path, manifest).values())
    assert manifest.shot_rules["held_out"].medium_bins == ()


@pytest.mark.parametrize("name", ["digits", "operator"])
def test_impossible_options_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="the raw files name no groups"):
        ingest(name, root=tmp_path, options={"split": "grouped"}, report=str)
    with pytest.raises(InputError, match="has no recipe for balanced splits"):
        ingest(name, root=tmp_path, options={"split": "made"}, report=str)
