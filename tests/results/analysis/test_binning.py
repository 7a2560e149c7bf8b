from __future__ import annotations

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.manifest import LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.results.analysis.binning import check_bin_lists, make_binning
from dirtune.reweighting.density import label_bins, label_density

LABEL = LabelSpec(name="age", unit="years", low=0.0, high=5.0, bin_width=0.1, num_bins=50)
LABELS = np.round(np.random.default_rng(0).uniform(0.0, 5.0, 400), 3)


@pytest.fixture
def manifest() -> Manifest:
    counts = label_density(label_bins(LABELS, LABEL), LABEL.num_bins)
    split = SplitInfo(files=("a",), rows=len(LABELS), bin_counts=tuple(counts.tolist()))
    return Manifest(
        name="ages",
        inputs={},
        label=LABEL,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={"train": split},
        content_hash="0" * 64,
        split_fingerprint="1" * 64,
    )


def test_the_own_width_keeps_everything(manifest: Manifest) -> None:
    for width in (None, 0.1):
        binning = make_binning(manifest, width)
        assert binning.label == LABEL
        assert tuple(binning.train_counts) == manifest.train_counts


@pytest.mark.parametrize("width", [0.2, 0.3, 0.5, 0.7, 5.0, 10.0])
def test_counts_of_a_multiple_are_those_of_the_labels_themselves(manifest: Manifest, width: float) -> None:
    from_counts, from_labels = make_binning(manifest, width), make_binning(manifest, width, LABELS)

    assert from_counts.label == from_labels.label
    assert from_counts.label.num_bins == len(range(0, 50, round(width / 0.1)))
    np.testing.assert_array_equal(from_counts.train_counts, from_labels.train_counts)
    assert from_counts.train_counts.sum() == len(LABELS)


def test_any_width_can_be_counted_from_the_labels(manifest: Manifest) -> None:
    binning = make_binning(manifest, 0.37, LABELS)
    expected = [0] * 14
    for label in LABELS:
        expected[int(label // 0.37)] += 1

    assert binning.label.num_bins == 14
    assert binning.train_counts.tolist() == expected


@pytest.mark.parametrize(
    ("width", "rule"),
    [(0.25, r"must be a multiple of 0\.1, or the training labels"), (0.05, "multiple"), (0.0, "positive")],
)
def test_a_width_that_cannot_be_counted_is_refused(manifest: Manifest, width: float, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        make_binning(manifest, width)


def test_published_lists_hold_for_their_own_width_only() -> None:
    rules = [ShotRule(), ShotRule(many_bins=(1,), medium_bins=(2,))]

    check_bin_lists(rules, None, 0.1)
    check_bin_lists(rules, 0.1, 0.1)
    check_bin_lists(rules[:1], 0.2, 0.1)
    with pytest.raises(InputError, match=r"list of bins of width 0\.1; give a rule by counts"):
        check_bin_lists(rules, 0.2, 0.1)
