"""Manifest of an ingested data set: label, inputs, splits and shot regions.

An ingested data set is a folder of Parquet shards and one `manifest.json`, written last: its existence means that the ingest
is complete. Every shard has the columns `sample_id` (text, unique in the data set), `label` (float64, in the label's unit, or
a list of them for a label of several dimensions), one column per input, and `group` (text) if the manifest names a group. Their
storage is described in `dirtune.data.columns`.

Version 2 stores raw images as fixed-size binary, not as lists, and adds encoded images, groups, and labels of several
dimensions; version 1 can be read, because a column's Arrow type determines how it is stored. With per-pixel labels, `label` is
their mean over a sample, and the labels themselves are a column like an input (`DenseLabels`).
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, model_validator

from dirtune.frozen import Frozen

MANIFEST = "manifest.json"
FORMAT_VERSION: Final = 2
SPLITS = ("train", "val", "test")

LabelTransform = Literal["none", "log", "log1p"]
"""Function of a label, for labels over orders of magnitude (`dirtune.label_transform`)."""

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
    """tokens: number of ids, including padding."""
    encoding: Literal["raw", "jpeg", "png"] = "raw"
    """image: raw for small images; jpeg or png bytes, decoded once when read, for large ones. dense_label: raw or 16-bit png."""
    quality: int | None = Field(default=None, ge=1, le=100)
    """jpeg: quality setting of the encoder."""
    view: tuple[int, int] | None = None
    """image: height and width of a view, if it is smaller than the stored image: an evaluation sees the center, and resized
    crops in training are of the whole stored image. None: the stored size."""
    pixel_mean: tuple[float, ...] | None = None
    """image: mean of each channel over the training rows, of pixels in [0, 1]; None if it was not computed."""
    pixel_deviation: tuple[float, ...] | None = None
    """image: standard deviation of each channel over the training rows."""

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return math.prod(self.shape)

    def make_seen(self) -> InputSpec:
        """Return the spec of a view."""
        if self.view is None:
            return self
        return self.model_copy(update={"shape": (*self.shape[:1], *self.view), "view": None})

    @property
    def element(self) -> str:
        """NumPy name of the type of one element in memory."""
        # int16 for counts, because torch has few operations on uint16.
        return {"image": "uint8", "dense_label": "int16", "tokens": "int32", "vector": "float32"}[self.kind]

    @model_validator(mode="after")
    def _check_encoding(self) -> InputSpec:
        if self.kind == "dense_label":
            return self._check_dense_label()
        if self.encoding != "raw" and (self.kind != "image" or len(self.shape) != 3 or self.shape[0] not in {1, 3}):
            raise ValueError("only images of 1 or 3 channels can be stored as jpeg or png")
        # Otherwise the setting would change the identity of an ingest without an effect.
        if self.quality is not None and self.encoding != "jpeg":
            raise ValueError("quality is a setting of jpeg alone")
        if self.view is not None and (
            self.kind != "image" or any(seen > stored for seen, stored in zip(self.view, self.shape[1:], strict=True))
        ):
            raise ValueError("view must be within the stored images")
        return self

    def _check_dense_label(self) -> InputSpec:
        if len(self.shape) != 3 or self.shape[0] != 1:
            raise ValueError("a dense_label has the shape (1, height, width)")
        if self.encoding == "jpeg" or self.quality is not None or self.view is not None:
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
    """The label and its bins: bin `b` is `[low + b * bin_width, low + (b + 1) * bin_width)`, clipped to the existing bins.

    With a `transform`, these are numbers of the transformed label: `bin_width` has its unit, and `low` and `high` the label's.

    Every label is in `[low, high]`. A label of several dimensions, such as a direction, has a `LabelSpec` for each of them
    (`components`); its own bins are the cells of their grid, with the last component changing fastest, and `[low, high]`
    encloses their ranges. `LabelSpec.grid` makes one.
    """

    name: str
    unit: str
    low: float
    high: float
    bin_width: float = Field(gt=0)
    num_bins: int = Field(gt=0)
    contrast_range: float | None = Field(default=None, gt=0)
    """Range of the label for a regularizer (ACCon's `R`), if the paper's is not `high - low`: published bins of ages begin at 0
    and labels reach 186, while its `R` is 100."""
    period: float | None = Field(default=None, gt=0)
    """Length after which labels repeat, such as 360 degrees. Losses, terms and metrics do not wrap; it is shown by `plan`."""
    components: tuple[LabelSpec, ...] = ()
    """Dimensions of a label of several, in the order of its columns; empty if the label is one number."""
    transform: LabelTransform = "none"
    """Function of the label in which bins have equal widths."""
    dense: DenseLabels | None = None
    """Per-pixel labels; None means one label per sample. With them the column `label` holds the mean over a sample's
    labeled pixels, and every histogram of the manifest counts pixels."""

    @classmethod
    def grid(
        cls, name: str, unit: str, components: tuple[LabelSpec, ...], *, contrast_range: float | None = None
    ) -> LabelSpec:
        """Return a label of several dimensions with the cells of a grid as its bins."""
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
        """Specs of all dimensions; for a label of one dimension, itself."""
        # A label of one dimension is its own axis, so that callers need no case of their own.
        return self.components or (self,)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of one label: `()` for one dimension, `(L,)` for L dimensions."""
        return (len(self.components),) if self.components else ()

    @property
    def counted_unit(self) -> Literal["samples", "pixels"]:
        """Unit of every histogram of the manifest: samples or, with per-pixel labels, labeled pixels."""
        return "samples" if self.dense is None else "pixels"

    @property
    def range(self) -> float:
        return self.high - self.low

    @property
    def label_range(self) -> float:
        """Width of the label's range for a regularizer; for several dimensions, the diagonal of the grid."""
        if self.contrast_range is not None:
            return self.contrast_range
        # The largest distance of two labels in the grid, as `high - low` is in one dimension.
        return math.hypot(*(axis.range for axis in self.axes))

    @model_validator(mode="after")
    def _check_transform(self) -> LabelSpec:
        if self.transform != "none" and (self.components or self.dense is not None):
            raise ValueError(f"bins of {self.transform} are made for one label of one dimension per sample")
        return self

    @model_validator(mode="after")
    def _check_components(self) -> LabelSpec:
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
    """Assignment of bins to the shot regions many, medium and few: by training counts, or by published lists of bins."""

    many_above: int = 100
    """A bin with more training samples than this is many."""
    few_below: int = 20
    """A bin with fewer training samples than this is few; all others are medium."""
    many_bins: tuple[int, ...] | None = None
    medium_bins: tuple[int, ...] | None = None
    """Published lists, which replace the counts; a bin in neither list is few. Only both or none can be given."""

    @model_validator(mode="after")
    def _check_lists(self) -> ShotRule:
        # With one list alone, all bins outside of it would silently be few.
        if (self.many_bins is None) != (self.medium_bins is None):
            raise ValueError("many_bins and medium_bins must be given together")
        return self


class SplitInfo(Frozen):
    """One split: its shards (relative to the manifest), number of rows and label histogram."""

    files: tuple[str, ...]
    rows: int
    bin_counts: tuple[int, ...]
    """Labels per bin; their sum is the number of rows or, with per-pixel labels, of labeled pixels."""


class Manifest(Frozen):
    """Everything that readers need to know about an ingested data set."""

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
    """SHA-256 over (id, split, label) only: data sets with equal fingerprints have the same split."""
    metrics: tuple[str, ...] = ()
    """The data set's own metrics, in addition to those of every data set: names in `dirtune.metrics.EXTRA_METRICS`."""
    group: str | None = None
    """Meaning of the column `group` of the shards, such as "person"; None if there is no such column."""
    source: dict[str, str] = {}
    """Source of the raw data and how they were read, for display."""
    notes: tuple[str, ...] = ()
    """Findings of the ingest that were kept (leaks, splits similar to published ones), for display."""

    def __repr__(self) -> str:
        rows = ", ".join(f"{split.rows:,} {name}" for name, split in self.splits.items())
        return f"Manifest({self.name}: {rows}; label {self.label.name} in {self.label.unit}, {self.fingerprint})"

    # pydantic's own would be that of `BaseModel`.
    __str__ = __repr__

    @property
    def fingerprint(self) -> str:
        """Identity of the data, which enters trial ids."""
        # 64 bits: short enough for a column of every table, long enough that no two data sets collide.
        return self.content_hash[:16]

    @property
    def features(self) -> dict[str, InputSpec]:
        """Inputs that an encoder may read, as views: all except per-pixel labels and their mask."""
        # An encoder that could read the labels would predict them.
        hidden = () if self.label.dense is None else self.label.dense.columns
        return {name: spec.make_seen() for name, spec in self.inputs.items() if name not in hidden}

    @property
    def train_counts(self) -> tuple[int, ...]:
        return self.splits["train"].bin_counts
