"""Run with `pytest tests/data/test_inspection.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dirtune.data.inspection import compute_effective_density, inspect, inspect_manifest, summarize_weights
from dirtune.data.splits.published import PUBLISHED_SPLITS
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec, Manifest, SplitInfo
from dirtune.reweighting import LDS
from dirtune.reweighting.density import label_bins
from tests.data.manifests import AGES

COUNTS = [1, 101, 30, 0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Storage.open(tmp_path).write("ages/manifest.json", AGES.model_dump_json().encode())
    return tmp_path


def test_samples_are_counted_by_shot_region(root: Path) -> None:
    inspection = inspect("ages", root=root)
    assert list(inspection.regions) == ["few", "many", "medium", "few"]
    assert [inspection.count_bins(region) for region in ("many", "medium", "few")] == [1, 1, 2]
    assert [inspection.count_samples("train", region) for region in ("many", "medium", "few")] == [101, 30, 1]
    assert [inspection.count_samples("test", region) for region in ("many", "medium", "few")] == [2, 3, 5]


def test_another_shot_rule_assigns_other_regions(root: Path) -> None:
    inspection = inspect("ages", root=root, shot_rule="listed")
    assert list(inspection.regions) == ["medium", "few", "few", "many"]
    with pytest.raises(InputError, match="unknown shot rule, got 'list'; known: counts, listed"):
        inspect("ages", root=root, shot_rule="list")


def test_a_data_set_that_is_not_ingested_is_an_error(root: Path) -> None:
    with pytest.raises(InputError, match=r"not ingested \(`dirtune ingest agedb` does it\)"):
        inspect("agedb", root=root)


def test_the_effective_density_is_the_weighted_mean_of_neighboring_counts() -> None:
    lds = LDS(kernel="triang", size=3)
    # A triangle of three bins weighs 1/2, 1, 1/2; beyond the ends there is nothing.
    expected = []
    for center in range(4):
        total = 0.0
        for offset, weight in ((-1, 0.5), (0, 1.0), (1, 0.5)):
            if 0 <= center + offset < 4:
                total += weight * COUNTS[center + offset]
        expected.append(total / 2.0)
    np.testing.assert_allclose(compute_effective_density(COUNTS, lds), expected)
    np.testing.assert_allclose(inspect_manifest(AGES, lds=lds).density, expected)


def test_without_width_the_effective_density_is_the_counts() -> None:
    np.testing.assert_allclose(compute_effective_density(COUNTS, LDS(size=1)), COUNTS)


def test_weight_summaries_cover_the_training_samples() -> None:
    lds = LDS(kernel="laplace", size=3, sigma=1.0)
    found = {each.name: each for each in summarize_weights(COUNTS, lds)}
    assert list(found) == ["none", "inverse", "inverse + LDS", "sqrt_inverse", "sqrt_inverse + LDS"]
    for name, summary in found.items():
        # One weight per training sample, made from scratch.
        effective = [math.sqrt(n) if "sqrt" in name else float(n) for n in COUNTS]
        if "LDS" in name:
            window = {-1: math.exp(-1), 0: 1.0, 1: math.exp(-1)}
            effective = [sum(w * effective[b + o] for o, w in window.items() if 0 <= b + o < 4) for b in range(4)]
        weights = []
        for count, divisor in zip(COUNTS, effective, strict=True):
            for _ in range(count):
                weights.append(1.0 if name == "none" else 1 / divisor)
        mean = sum(weights) / len(weights)
        weights = [weight / mean for weight in weights]
        assert summary.min == pytest.approx(min(weights))
        assert summary.max == pytest.approx(max(weights))
        assert summary.mean == pytest.approx(1.0)
        squares = sum(weight**2 for weight in weights)
        assert summary.effective_samples == pytest.approx(sum(weights) ** 2 / squares)


def test_equal_weights_have_all_samples_effective_and_inverse_ones_fewer() -> None:
    none, inverse, *_ = summarize_weights([50, 50, 2], None)
    assert none.effective_samples == pytest.approx(102)
    # The weights of a bin sum to 1: (3)^2 / (1/50 + 1/50 + 1/2).
    assert inverse.effective_samples == pytest.approx(9 / 0.54)


def test_a_published_split_is_recognized_and_one_of_equal_sizes_is_not(root: Path) -> None:
    (known, *_) = [each for each in PUBLISHED_SPLITS if each.fingerprint is not None]
    splits = {
        split: SplitInfo(files=(f"v/{split}",), rows=rows, bin_counts=(rows, 0, 0, 0))
        for split, rows in known.sizes.items()
    }
    published = AGES.model_copy(update={"name": known.data, "split_fingerprint": known.fingerprint, "splits": splits})
    assert inspect_manifest(published).notes == (f"the split is {known.title}", "two look alike")
    other = published.model_copy(update={"split_fingerprint": "0" * 64})
    assert "not the rows of any list" in inspect_manifest(other).notes[0]
    assert inspect_manifest(AGES).notes == ("two look alike",)


def test_a_note_of_the_ingest_is_not_repeated() -> None:
    (known, *_) = [each for each in PUBLISHED_SPLITS if each.fingerprint is not None]
    note = f"the split is {known.title}"
    published = AGES.model_copy(update={"name": known.data, "split_fingerprint": known.fingerprint, "notes": (note,)})
    assert inspect_manifest(published).notes == (note,)


def test_all_label_bins_are_listed() -> None:
    inspection = inspect_manifest(AGES, lds=LDS(size=1))
    rows = inspection.list_bins()
    assert [row.bin for row in rows] == [0, 1, 2, 3]
    assert [row.edges for row in rows] == [((0, 1),), ((1, 2),), ((2, 3),), ((3, 4),)]
    assert [row.region for row in rows] == ["few", "many", "medium", "few"]
    assert rows[1].samples == {"train": 101, "test": 2}
    assert [row.density for row in rows] == pytest.approx(COUNTS)


def _grid() -> Manifest:
    pitch = LabelSpec(name="pitch", unit="degrees", low=-2, high=2, bin_width=2, num_bins=2)
    yaw = LabelSpec(name="yaw", unit="degrees", low=-3, high=3, bin_width=2, num_bins=3)
    splits = {"train": SplitInfo(files=("v/a",), rows=141, bin_counts=(0, 30, 1, 5, 101, 4))}
    label = LabelSpec.grid("gaze", "degrees", (pitch, yaw))
    return AGES.model_copy(update={"label": label, "splits": splits})


def test_the_bins_of_a_grid_have_edges_in_every_dimension() -> None:
    rows = inspect_manifest(_grid()).list_bins()
    centers = [[(low + high) / 2 for low, high in row.edges] for row in rows]
    assert label_bins(centers, _grid().label).tolist() == [row.bin for row in rows]
    assert rows[4].edges == ((0, 2), (-1, 1))
    assert rows[4].samples == {"train": 101}


def test_labels_of_several_dimensions_are_not_smoothed() -> None:
    inspection = inspect_manifest(_grid())
    assert inspection.density is None
    assert [row.density for row in inspection.list_bins()] == [None] * 6
    assert [each.name for each in inspection.weights] == ["none", "inverse", "sqrt_inverse"]


def test_the_image_input_is_the_first_image() -> None:
    vector = InputSpec(kind="vector", shape=(2,))
    image = InputSpec(kind="image", shape=(1, 2, 2))
    both = AGES.model_copy(update={"inputs": {"v": vector, "left": image, "right": image}})
    assert inspect_manifest(both).image_input == "left"
    assert inspect_manifest(AGES.model_copy(update={"inputs": {"v": vector}})).image_input is None
