"""`pytest tests/reweighting/test_density.py`: bins against the published ones, shot regions against the published sizes."""

import csv
import math
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.manifest import LabelSpec, ShotRule
from dirtune.reweighting.density import label_bins, label_density, shot_regions
from tests.golden.vectors import load_reweighting

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the published lists of labels are not part of the repository"
)

AGE = LabelSpec(name="age", unit="years", low=0.0, high=120.0, bin_width=1.0, num_bins=121)
SCORE = LabelSpec(name="score", unit="points", low=0.0, high=5.0, bin_width=0.1, num_bins=50)
STS_B_LISTS = ShotRule(many_bins=(0, *range(10, 50, 2), 49), medium_bins=(2, 4, 6, 8, 27, 35, 37))


def _agedb_ages(split):
    with (SHARED / "data/agedb/agedb.csv").open() as file:
        return [int(row["age"]) for row in csv.DictReader(file) if row["split"] == split]


def _sts_b_scores(split):
    lines = (SHARED / f"data/sts_b/{split}_new.tsv").read_text().splitlines()[1:]
    return [line.split("\t")[-1] for line in lines]


def test_a_bin_is_closed_below_and_open_above():
    assert label_bins([0.0, 0.05, 0.0999, 0.1, 4.9, 4.95], SCORE).tolist() == [0, 0, 0, 1, 49, 49]


def test_labels_beyond_the_ends_are_in_the_end_bins():
    assert label_bins([-3.0, 5.0, 7.5], SCORE).tolist() == [0, 49, 49]
    assert label_bins([-1, 119, 120, 186], AGE).tolist() == [0, 119, 120, 120]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_decimal_edge_is_in_the_bin_it_opens(dtype):
    edges = np.array([float(Decimal(index) / 10) for index in range(50)], dtype=dtype)
    assert label_bins(edges, SCORE).tolist() == list(range(50))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_thousandth_of_a_score_is_in_its_decimal_bin(dtype):
    thousandths = range(5001)
    scores = np.array([index / 1000 for index in thousandths], dtype=dtype)
    assert label_bins(scores, SCORE).tolist() == [min(index // 100, 49) for index in thousandths]


def test_edges_away_from_zero_are_found_too():
    angle = LabelSpec(name="angle", unit="deg", low=-60.0, high=60.0, bin_width=0.3, num_bins=400)
    edges = np.array([-60 + 0.3 * index for index in range(400)])
    assert label_bins(edges, angle).tolist() == list(range(400))
    assert label_bins(edges.astype(np.float32), angle).tolist() == list(range(400))


def test_bins_keep_the_shape_of_the_labels():
    assert label_bins(np.zeros((2, 3)), SCORE).shape == (2, 3)
    assert label_bins([], SCORE).shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_label_that_is_no_number_is_refused(value):
    with pytest.raises(InputError, match=r"label 'score': every label must be finite.*got 1$"):
        label_bins([1.0, value], SCORE)


@needs_shared
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_sts_b_scores_fall_in_the_published_bins(dtype):
    golden = load_reweighting("lds_stsb")
    scores = np.array([float(score) for score in _sts_b_scores("train")], dtype=dtype)
    assert len(scores) == 5249
    np.testing.assert_array_equal(label_bins(scores, SCORE), golden["bin_idx"])


def test_scores_as_the_official_code_rounds_them_fall_in_the_published_bins():
    golden = load_reweighting("lds_stsb")
    assert len(golden["scores"]) == 5249
    np.testing.assert_array_equal(label_bins(golden["scores"], SCORE), golden["bin_idx"])


def test_label_density_counts_each_bin():
    scores, ages = load_reweighting("lds_stsb"), load_reweighting("lds_agedb")
    assert label_density(scores["bin_idx"], 50).tolist() == scores["hist_counts"].tolist()
    assert label_density(label_bins(ages["labels"], AGE), 121).tolist() == ages["counts_0_120"].tolist()


@needs_shared
def test_the_published_list_has_the_published_counts():
    ages = label_bins(_agedb_ages("train"), AGE)
    assert label_density(ages, 121).tolist() == load_reweighting("lds_agedb")["counts_0_120"].tolist()


def test_label_density_has_a_zero_for_each_empty_bin():
    assert label_density(np.array([1, 1, 3]), 6).tolist() == [0, 2, 0, 1, 0, 0]


def test_the_shot_rule_is_strict_on_both_sides():
    regions = shot_regions([0, 19, 20, 100, 101], ShotRule())
    assert regions.tolist() == ["few", "few", "medium", "medium", "many"]


def test_published_lists_replace_the_counts():
    regions = shot_regions([500, 0, 500], ShotRule(many_bins=(1,), medium_bins=(2,)))
    assert regions.tolist() == ["few", "many", "medium"]


def test_a_published_bin_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"many_bins: bins must be within 0\.\.2, got \[3\]"):
        shot_regions([1, 2, 3], ShotRule(many_bins=(0, 3), medium_bins=()))


@needs_shared
def test_agedb_shot_regions_have_the_published_sizes():
    regions = shot_regions(label_density(label_bins(_agedb_ages("train"), AGE), 121), ShotRule())
    sizes = Counter(regions[label_bins(_agedb_ages("test"), AGE)].tolist())
    assert sizes == {"many": 1530, "medium": 448, "few": 162}
    assert np.flatnonzero(regions == "many").tolist() == [*range(20, 69), 70, 72]
    medium = [*range(17, 20), 69, 71, *range(73, 83), 85]
    assert np.flatnonzero(regions == "medium").tolist() == medium


@needs_shared
@pytest.mark.parametrize(
    ("rule", "sizes"),
    [
        pytest.param(STS_B_LISTS, {"many": 756, "medium": 170, "few": 74}, id="published-lists"),
        pytest.param(ShotRule(), {"many": 756, "medium": 207, "few": 37}, id="counts"),
    ],
)
def test_sts_b_shot_regions_have_the_published_sizes(rule, sizes):
    def bins(split):
        return label_bins([float(score) for score in _sts_b_scores(split)], SCORE)

    regions = shot_regions(label_density(bins("train"), 50), rule)
    assert Counter(regions[bins("test")].tolist()) == sizes


PITCH = LabelSpec(name="pitch", unit="rad", low=-0.5, high=0.25, bin_width=0.25, num_bins=3)
YAW = LabelSpec(name="yaw", unit="rad", low=-1.0, high=1.0, bin_width=0.25, num_bins=8)
GAZE = LabelSpec.grid("gaze", "rad", (PITCH, YAW))


def test_a_label_of_two_dimensions_is_in_the_cell_of_both_bins():
    drawn = np.random.default_rng(0).uniform(-1.2, 1.2, (400, 2))
    expected = []
    for pitch, yaw in drawn.tolist():
        row, column = math.floor((pitch + 0.5) / 0.25), math.floor((yaw + 1.0) / 0.25)
        expected.append(8 * min(max(row, 0), 2) + min(max(column, 0), 7))
    assert label_bins(drawn, GAZE).tolist() == expected
    assert set(expected) == set(range(24))
    assert label_bins(drawn.reshape(20, 20, 2), GAZE).shape == (20, 20)
    assert label_bins(np.zeros((0, 2)), GAZE).shape == (0,)


def test_shots_are_counted_by_cell():
    labels = np.repeat([[-0.4, 0.1], [0.2, 0.1]], [120, 3], axis=0)
    counts = label_density(label_bins(labels, GAZE), GAZE.num_bins)
    assert counts.sum() == 123
    assert shot_regions(counts, ShotRule())[label_bins(labels[[0, -1]], GAZE)].tolist() == ["many", "few"]


@pytest.mark.parametrize("shape", [(4,), (4, 3), (0,)])
def test_labels_of_other_dimensions_than_the_grid_are_refused(shape):
    with pytest.raises(InputError, match=r"label 'gaze': every label must have 2 dimensions; .*got \("):
        label_bins(np.zeros(shape), GAZE)


def test_a_component_that_is_no_number_is_named():
    with pytest.raises(InputError, match="label 'yaw': every label must be finite"):
        label_bins([[0.0, math.nan]], GAZE)
