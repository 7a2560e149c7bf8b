"""Manifest of an ingest, for tests that need no data."""

from __future__ import annotations

from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo

AGES = Manifest(
    name="ages",
    inputs={"image": InputSpec(kind="image", shape=(3, 8, 8))},
    label=LabelSpec(name="age", unit="years", low=0, high=4, bin_width=1, num_bins=4),
    shot_rules={"counts": ShotRule(), "listed": ShotRule(many_bins=(3,), medium_bins=(0,))},
    default_shot_rule="counts",
    splits={
        "train": SplitInfo(files=("version-0/train/a.parquet",), rows=132, bin_counts=(1, 101, 30, 0)),
        "test": SplitInfo(files=("version-0/test/a.parquet",), rows=10, bin_counts=(1, 2, 3, 4)),
    },
    content_hash="0123456789abcdef" * 4,
    split_fingerprint="f" * 64,
    notes=("two look alike",),
)
