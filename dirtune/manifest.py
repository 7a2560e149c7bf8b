"""What is known of an ingested data set: the manifest, its label, its inputs, its splits and shot regions.

An ingested set is a folder of Parquet shards and one `manifest.json`, written last: a set without a manifest does not
exist. Every shard has the columns `sample_id` (text, unique in the set), `label` (float64, in the label's unit) and one
column per input.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from dirtune.frozen import Frozen

MANIFEST = "manifest.json"
FORMAT_VERSION: Final = 1
SPLITS = ("train", "val", "test")


class InputSpec(Frozen):
    """One input column, as stored."""

    kind: Literal["image", "tokens", "vector"]
    """image: uint8 (channels, height, width); tokens: int32 ids, 0 = padding; vector: float32."""
    shape: tuple[int, ...]
    """Shape of one sample."""
    vocabulary: int | None = None
    """tokens: number of ids, padding included."""


class LabelSpec(Frozen):
    """The label and its bins: bin `b` is `[low + b * bin_width, low + (b + 1) * bin_width)`; the ends catch the rest."""

    name: str
    unit: str
    low: float
    high: float
    bin_width: float = Field(gt=0)
    num_bins: int = Field(gt=0)

    @property
    def range(self) -> float:
        return self.high - self.low


class ShotRule(Frozen):
    """Which bins are many, medium and few: by training counts, or by published lists of bins."""

    many_above: int = 100
    """many: more training samples than this."""
    few_below: int = 20
    """few: fewer training samples than this; medium: the rest."""
    many_bins: tuple[int, ...] | None = None
    medium_bins: tuple[int, ...] | None = None
    """Published lists; a bin in neither is few. Given together, they replace the counts."""

    @model_validator(mode="after")
    def _lists_come_together(self) -> ShotRule:
        if (self.many_bins is None) != (self.medium_bins is None):
            raise ValueError("many_bins and medium_bins must be given together")
        return self


class SplitInfo(Frozen):
    """One split: its shards (relative to the manifest), rows and label histogram."""

    files: tuple[str, ...]
    rows: int
    bin_counts: tuple[int, ...]


class Manifest(Frozen):
    """All that readers need to know of an ingested data set."""

    format_version: Literal[1] = FORMAT_VERSION
    name: str
    inputs: dict[str, InputSpec]
    label: LabelSpec
    shot_rules: dict[str, ShotRule]
    default_shot_rule: str
    splits: dict[str, SplitInfo]
    content_hash: str
    """SHA-256 over all samples (id, split, label, inputs), independent of shards and row order."""
    split_fingerprint: str
    """SHA-256 over (id, split, label) only: two sets with one fingerprint have the same split."""
    source: dict[str, str] = {}
    """Where the raw data came from and how they were read; for people."""
    notes: tuple[str, ...] = ()
    """What was found and kept at ingest (leaks, look-alike splits); for people."""

    @property
    def fingerprint(self) -> str:
        """The identity of the data a trial sees."""
        return self.content_hash[:16]

    @property
    def train_counts(self) -> tuple[int, ...]:
        return self.splits["train"].bin_counts
