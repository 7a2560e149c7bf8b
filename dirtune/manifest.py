"""What is known of an ingested data set: the manifest, its label, its inputs, its splits and shot regions.

An ingested set is a folder of Parquet shards and one `manifest.json`, written last: a set without a manifest does not
exist. Every shard has the columns `sample_id` (text, unique in the set), `label` (float64, in the label's unit, or a list of
them for a label of several dimensions), one column per input, and `group` (text) where the manifest names a group. How
they are stored: `dirtune.data.columns`.

Version 2 stores raw images as fixed-size binary, not as lists, and knows encoded images, groups, and labels of several
dimensions; version 1 is still read, because a column's Arrow type says how it is stored. With per-pixel
labels, `label` is their mean over a sample, and the labels themselves are a column like an input (`DenseLabels`).
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, model_validator

from dirtune.frozen import Frozen

MANIFEST = "manifest.json"
FORMAT_VERSION: Final = 2
SPLITS = ("train", "val", "test")

Pixels = TypeVar("Pixels", bound=Any)
"""A numpy array or a tensor; this module imports neither torch nor numpy."""


class InputSpec(Frozen):
    """One input column, as stored."""

    kind: Literal["image", "dense_label", "tokens", "vector"]
    """image: uint8 (channels, height, width); dense_label: a count for each pixel, int16 (1, height, width), not negative;
    tokens: int32 ids, 0 = padding; vector: float32."""
    shape: tuple[int, ...]
    """Shape of one sample, decoded."""
    vocabulary: int | None = None
    """tokens: number of ids, padding included."""
    encoding: Literal["raw", "jpeg", "png"] = "raw"
    """image: how a sample is stored; raw for small images, jpeg or png bytes, decoded once when read, for large ones.
    dense_label: raw or png, of 16 bits."""
    quality: int | None = Field(default=None, ge=1, le=100)
    """jpeg: the encoder's setting."""

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return math.prod(self.shape)

    @property
    def element(self) -> str:
        """Type of one element in memory, as numpy names it."""
        return {"image": "uint8", "dense_label": "int16", "tokens": "int32", "vector": "float32"}[self.kind]

    @model_validator(mode="after")
    def _only_images_are_encoded(self) -> InputSpec:
        if self.kind == "dense_label":
            return self._check_dense_label()
        if self.encoding != "raw" and (self.kind != "image" or len(self.shape) != 3 or self.shape[0] not in {1, 3}):
            raise ValueError("only images of 1 or 3 channels can be stored as jpeg or png")
        if self.quality is not None and self.encoding != "jpeg":
            raise ValueError("quality is a setting of jpeg alone")
        return self

    def _check_dense_label(self) -> InputSpec:
        if len(self.shape) != 3 or self.shape[0] != 1:
            raise ValueError("a dense_label has the shape (1, height, width)")
        if self.encoding == "jpeg" or self.quality is not None:
            raise ValueError("a dense_label is stored raw or as png: jpeg would change its numbers")
        return self


class DenseLabels(Frozen):
    """Storage of per-pixel labels.

    Counts are stored; a pixel's label is its count times `unit_per_count`, and a pixel with count zero has no label: it
    enters no loss and no metric. Training and evaluation use the center crop of the stored images and labels, `height` by
    `width`; the margin around it serves rotations.
    """

    column: str
    """The input, of kind dense_label, that holds the counts. It is stored like other inputs, and no encoder reads it."""
    unit_per_count: float = Field(gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    mask: str | None = None
    """The input, an image of one channel, whose pixels above zero are evaluated; None evaluates all pixels."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The inputs that are no features."""
        return (self.column,) if self.mask is None else (self.column, self.mask)

    def crop(self, stored: Pixels) -> Pixels:
        """Return the center crop of a numpy array or tensor `(..., height, width)`, of `self.height` by `self.width`."""
        top = (stored.shape[-2] - self.height) // 2
        left = (stored.shape[-1] - self.width) // 2
        return stored[..., top : top + self.height, left : left + self.width]  # type: ignore[no-any-return]


class LabelSpec(Frozen):
    """The label and its bins: bin `b` is `[low + b * bin_width, low + (b + 1) * bin_width)`; the ends catch the rest.

    Every label is within `low..high`. A label of several dimensions, such as a direction, has one such spec for each of them
    (`components`); its own bins are the cells of their grid, the last component changing fastest, and `low..high` encloses
    their ranges. `LabelSpec.grid` makes one.
    """

    name: str
    unit: str
    low: float
    high: float
    bin_width: float = Field(gt=0)
    num_bins: int = Field(gt=0)
    contrast_range: float | None = Field(default=None, gt=0)
    """The label distance that a regularizer takes for the whole range (ACCon's `R`), where a paper's is not `high - low`:
    published bins of ages begin at 0 and labels reach 186, while its `R` is 100."""
    components: tuple[LabelSpec, ...] = ()
    """The dimensions of a label of several, in the order of its columns; none: the label is one number."""
    dense: DenseLabels | None = None
    """Per-pixel labels; None means one label per sample. With them the column `label` holds the mean over a sample's
    labeled pixels, and every histogram of the manifest counts pixels."""

    @classmethod
    def grid(
        cls, name: str, unit: str, components: tuple[LabelSpec, ...], *, contrast_range: float | None = None
    ) -> LabelSpec:
        """A label of several dimensions with the cells of a grid as its bins."""
        return cls(
            name=name,
            unit=unit,
            components=components,
            contrast_range=contrast_range,
            low=min(axis.low for axis in components),
            high=max(axis.high for axis in components),
            bin_width=components[0].bin_width,
            num_bins=math.prod(axis.num_bins for axis in components),
        )

    @property
    def axes(self) -> tuple[LabelSpec, ...]:
        """The specs of all dimensions; of a label of one dimension its own."""
        return self.components or (self,)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of one label: `()` for one dimension, `(L,)` for several."""
        return (len(self.components),) if self.components else ()

    @property
    def range(self) -> float:
        return self.high - self.low

    @property
    def label_range(self) -> float:
        """What a regularizer is given as the width of the label's range; of several dimensions, the grid's diagonal."""
        if self.contrast_range is not None:
            return self.contrast_range
        return math.hypot(*(axis.range for axis in self.axes))

    @model_validator(mode="after")
    def _is_the_grid_of_its_components(self) -> LabelSpec:
        if not self.components:
            return self
        if self.dense is not None:
            raise ValueError("per-pixel labels must have one dimension")
        if len(self.components) < 2 or any(axis.components for axis in self.components):
            raise ValueError("components must be two or more labels of one dimension")
        if {axis.bin_width for axis in self.components} != {self.bin_width}:
            raise ValueError("bin_width must be that of every component")
        enclosing = (min(axis.low for axis in self.components), max(axis.high for axis in self.components))
        if (self.low, self.high) != enclosing:
            raise ValueError("low and high must enclose the ranges of the components")
        if self.num_bins != math.prod(axis.num_bins for axis in self.components):
            raise ValueError("num_bins must be the product of those of the components")
        return self


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
    """Labels per bin; their sum is the number of rows or, with per-pixel labels, of labeled pixels."""


class Manifest(Frozen):
    """All that readers need to know of an ingested data set."""

    format_version: Literal[1, 2] = FORMAT_VERSION
    name: str
    inputs: dict[str, InputSpec]
    label: LabelSpec
    shot_rules: dict[str, ShotRule]
    default_shot_rule: str
    splits: dict[str, SplitInfo]
    content_hash: str
    """SHA-256 over all samples (id, split, label, inputs as stored), independent of shards and row order."""
    split_fingerprint: str
    """SHA-256 over (id, split, label) only: two sets with one fingerprint have the same split."""
    metrics: tuple[str, ...] = ()
    """The data set's own metrics, beside those of every set: names of `dirtune.metrics.EXTRA_METRICS`."""
    group: str | None = None
    """What the column `group` of the shards tells apart, such as "person"; none: there is no such column."""
    source: dict[str, str] = {}
    """Where the raw data came from and how they were read; for people."""
    notes: tuple[str, ...] = ()
    """What was found and kept at ingest (leaks, look-alike splits); for people."""

    @property
    def fingerprint(self) -> str:
        """The identity of the data a trial sees."""
        return self.content_hash[:16]

    @property
    def features(self) -> dict[str, InputSpec]:
        """The inputs that an encoder may read: all but those that hold per-pixel labels or their mask."""
        hidden = () if self.label.dense is None else self.label.dense.columns
        return {name: spec for name, spec in self.inputs.items() if name not in hidden}

    @property
    def train_counts(self) -> tuple[int, ...]:
        return self.splits["train"].bin_counts
