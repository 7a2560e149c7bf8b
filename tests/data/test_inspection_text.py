"""Run with `pytest tests/data/test_inspection_text.py`."""

from __future__ import annotations

import pytest

from dirtune.data.inspection import inspect_manifest
from dirtune.data.inspection_text import format_inspection
from dirtune.manifest import InputSpec, LabelSpec, Manifest, SplitInfo
from dirtune.reweighting import LDS
from tests.data.manifests import AGES

MANIFEST = AGES.model_copy(
    update={
        "inputs": {"image": InputSpec(kind="image", shape=(3, 8, 8), encoding="jpeg", quality=90)},
        "group": "person",
    }
)


def test_the_text_shows_counts_histogram_weights_and_notes() -> None:
    assert format_inspection(inspect_manifest(MANIFEST, lds=LDS(size=1))).splitlines() == [
        "ages: content 0123456789abcdef, split ffffffffffffffff",
        "inputs: image (image 3x8x8, jpeg of quality 90)",
        "label: age [years], 0..4, 4 bins of 1",
        "shot rule: counts (known: counts, listed)",
        "group: person",
        "",
        "region      bins     train      test",
        "many           1       101         2",
        "medium         1        30         3",
        "few            2         1         5",
        "all            4       132        10",
        "",
        "training samples per bin, the tallest bar 101; M many, m medium, . few",
        "       0 ▁█▃ ",
        "         .Mm.",
        "",
        "weights                  min     max    mean   effective samples",
        "none                       1       1       1         132 (100 %)",
        "inverse                0.436      44       1             9 (7 %)",
        "inverse + LDS          0.436      44       1             9 (7 %)",
        "sqrt_inverse           0.795    7.99       1           91 (69 %)",
        "sqrt_inverse + LDS     0.795    7.99       1           91 (69 %)",
        "",
        "note: two look alike",
    ]


def test_the_bins_are_listed_on_request() -> None:
    inspection = inspect_manifest(MANIFEST, lds=LDS(size=1))
    lines = format_inspection(inspection, bins=True).splitlines()
    assert [line for line in lines if line not in format_inspection(inspection).splitlines()] == [
        "bin  label  region  train  test  density",
        "  0   0..1     few      1     1      1.0",
        "  1   1..2    many    101     2    101.0",
        "  2   2..3  medium     30     3     30.0",
        "  3   3..4     few      0     4      0.0",
    ]


def test_missing_groups_and_notes_are_not_mentioned() -> None:
    raw = InputSpec(kind="image", shape=(1, 2, 2))
    words = InputSpec(kind="tokens", shape=(40,), vocabulary=9)
    bare = MANIFEST.model_copy(update={"group": None, "notes": (), "inputs": {"a": raw, "b": words}})
    text = format_inspection(inspect_manifest(bare))
    assert "inputs: a (image 1x2x2, raw), b (tokens 40)" in text
    assert "group" not in text
    assert "note" not in text


def test_the_histogram_breaks_after_sixty_bins() -> None:
    label = LabelSpec(name="angle", unit="degrees", low=-60, high=60, bin_width=1, num_bins=120)
    splits = {"train": SplitInfo(files=("v/a",), rows=120, bin_counts=(1,) * 120)}
    manifest = MANIFEST.model_copy(update={"label": label, "splits": splits})
    lines = format_inspection(inspect_manifest(manifest)).splitlines()
    assert f"     -60 {'█' * 60}" in lines
    assert f"       0 {'█' * 60}" in lines


@pytest.fixture
def grid() -> Manifest:
    pitch = LabelSpec(name="pitch", unit="degrees", low=-2, high=2, bin_width=2, num_bins=2)
    yaw = LabelSpec(name="yaw", unit="degrees", low=-3, high=3, bin_width=2, num_bins=3)
    splits = {"train": SplitInfo(files=("v/a",), rows=141, bin_counts=(0, 30, 1, 5, 101, 4))}
    label = LabelSpec.grid("gaze", "degrees", (pitch, yaw))
    return MANIFEST.model_copy(update={"label": label, "splits": splits})


def test_a_grid_has_a_line_per_bin_of_its_first_dimension(grid: Manifest) -> None:
    lines = format_inspection(inspect_manifest(grid), bins=True).splitlines()
    assert "label: pitch [degrees], -2..2, 2 bins of 2" in lines
    assert "label: yaw [degrees], -3..3, 3 bins of 2" in lines
    start = lines.index("      -2  ▃▁  .m.")
    assert lines[start + 1] == "       0 ▁█▁  .M."
    assert "bin           label  region  train" in lines
    assert "  4    0..2 x -1..1    many    101" in lines


def test_three_dimensions_have_no_histogram(grid: Manifest) -> None:
    axis = LabelSpec(name="x", unit="m", low=0, high=2, bin_width=1, num_bins=2)
    splits = {"train": SplitInfo(files=("v/a",), rows=8, bin_counts=(1,) * 8)}
    label = LabelSpec.grid("place", "m", (axis, axis, axis))
    text = format_inspection(inspect_manifest(grid.model_copy(update={"label": label, "splits": splits})))
    assert "no histogram of a label of 3 dimensions" in text
