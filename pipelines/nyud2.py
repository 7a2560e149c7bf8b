"""nyud2: NYUD2-DIR, photographs of rooms and the depth of every pixel, up to 10 m.

Source: NYU Depth v2 (Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012), made a
benchmark for imbalanced regression by Yang et al. ("Delving into Deep Imbalanced Regression", ICML 2021;
YyzHarry/imbalanced-regression, `nyud2-dir`). The raw folder holds two lists and what they name (`dirtune.pipelines.depth_files`):

    nyu2_train.csv, nyu2_test.csv                   50,688 and 654 lines: an image and its depth
    nyu2_train/bookstore_0001f_out/642.{jpg,png}    640 x 480 pixels
    nyu2_test/00000_{colors,depth}.png

The lists are public; the images are an archive on Google Drive (id 1WoOZOBpOWfmwe7bknWS5PMUCLBPFKTOw) that must be
downloaded by hand with a browser. Images and depths are stored at 320 x 240; training and evaluation use the center crop of
304 x 228. Bins are 0.1 m wide, and shot regions count training pixels: `official` is the published list of bins, `counts` the
published thresholds scaled to the number of training pixels, for other scenes or sizes.

Departures: 1. the papers choose the best epoch on the test set; here whole places of the training list become a validation
split; 2. validation and test are evaluated on balanced pixels drawn from a seed, because the official mask was drawn
without one (`dirtune.pipelines.balanced_pixels`); 3. a pixel without depth has no label, where the papers learn a depth of zero.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dirtune.data import session, store, verify
from dirtune.data.images import JPEG_QUALITY
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, hash_json
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, DenseLabels, InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.pipelines import balanced_pixels, depth_files, depth_images, faces, image_files
from dirtune.randomness import derive_seed

NAME = "nyud2"
# Incremented whenever the same raw files and options would give other samples
RECIPE_VERSION = 1
FIRST_BIN = 7
"""First bin of the balanced pixels: depths begin at 0.7 m."""
PUBLISHED_PIXELS = 3_513_286_656
"""Pixels of the training list, 50,688 x 228 x 304, to which the published thresholds refer."""
MANY_ABOVE, FEW_BELOW = 26_000_000, 10_000_000
OFFICIAL = ShotRule(many_bins=(*range(9, 46), 47, 49), medium_bins=(7, 8, 46, 48, *range(50, 57), 58, 60, 61, 63))
DEPTH_METRICS = ("abs_rel", "log10", "delta1", "delta2", "delta3")


class Options(Frozen):
    """Settings of the ingest; the defaults are the published sizes."""

    stored_height: int = Field(default=240, ge=8)
    """Height of stored images and depths, of the same aspect as the raw ones; published: the shorter side becomes 240."""
    stored_width: int = Field(default=320, ge=8)
    """Width of stored images and depths."""
    height: int = Field(default=228, ge=4)
    """Height of the center crop for training and evaluation."""
    width: int = Field(default=304, ge=4)
    """Width of the center crop for training and evaluation."""
    quality: int = Field(default=JPEG_QUALITY, ge=1, le=100)
    """JPEG quality of the stored images."""
    validation_share: float = Field(default=0.05, gt=0, lt=1)
    """Share of the training list's images that become the validation split, by whole places."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the places of the validation split and of the balanced pixels."""

    @model_validator(mode="after")
    def _check_crop(self) -> "Options":
        if self.height > self.stored_height or self.width > self.stored_width:
            raise ValueError("height and width must not be above stored_height and stored_width")
        return self

    @property
    def label(self) -> LabelSpec:
        """Spec of the label."""
        where = DenseLabels(column="depth", unit_per_count=0.001, height=self.height, width=self.width, mask="mask")
        return LabelSpec(name="depth", unit="m", low=0.0, high=10.0, bin_width=0.1, num_bins=100, dense=where)

    @property
    def inputs(self) -> dict[str, InputSpec]:
        """Specs of the inputs."""
        size = (self.stored_height, self.stored_width)
        return {
            "image": InputSpec(kind="image", shape=(3, *size), encoding="jpeg", quality=self.quality),
            "depth": InputSpec(kind="dense_label", shape=(1, *size), encoding="png"),
            "mask": InputSpec(kind="image", shape=(1, *size), encoding="png"),
        }


@dataclass(frozen=True)
class _Splits:
    """Samples of each split, and the balanced pixels of validation and test."""

    members: dict[str, list[str]]
    """Sample ids by split."""
    selected: dict[str, balanced_pixels.PixelSelection]
    """Balanced pixels by sample id."""
    notes: tuple[str, ...]


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the lists and the images and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: files are missing or cannot be used (the first 20 are listed, and their number), or the training list
            has too few places for a validation split.
    """
    folder = faces.require_raw_folder(NAME, raw, ", ".join([*depth_files.LISTS.values(), "nyu2_train/", "nyu2_test/"]))
    pairs = [pair for listed in depth_files.LISTS for pair in depth_files.read_list(folder, listed)]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in depth_files.LISTS.values()}
    request = hash_json(
        {
            "pipeline": NAME,
            "recipe": RECIPE_VERSION,
            "options": options.model_dump(),
            "lists": hashes,
            "files": [
                [image_files.get_file_size(folder / name) for name in (pair.image, pair.depth)] for pair in pairs
            ],
        }
    )
    if (present := store.find_ingested(storage, NAME, request)) is not None:
        return present
    with session.ray_session():
        stored = depth_images.encode_pairs(pairs, folder, options.inputs, options.label)
        verify.raise_faults(stored.faults, where=NAME)
        splits = _split_pairs(pairs, stored, options)
        members = {split: pa.array(splits.members[split], pa.string()) for split in SPLITS}
        scale = sum(int(stored.pixels[each].sum()) for each in splits.members["train"]) / PUBLISHED_PIXELS
        # The published thresholds count pixels of the whole training list; here some of its places are for validation.
        counts = ShotRule(many_above=round(MANY_ABOVE * scale), few_below=round(FEW_BELOW * scale))
        return store.write_dataset(
            storage,
            NAME,
            {
                split: depth_images.add_masks(stored.dataset, ids, splits.selected, options.inputs, options.label)
                for split, ids in members.items()
            },
            inputs=options.inputs,
            label=options.label,
            metrics=DEPTH_METRICS,
            group="place",
            shot_rules={"official": OFFICIAL, "counts": counts},
            default_shot_rule="official",
            source={**hashes, "folder": str(folder), "request": request},
            notes=splits.notes,
        )


def _split_pairs(pairs: Sequence[depth_files.Pair], stored: depth_images.DepthImages, options: Options) -> _Splits:
    # Whole places: consecutive photographs of one are nearly equal and would leak.
    places = _select_validation_places(pairs, options)
    members = {
        "train": [p.image for p in pairs if p.listed == "train" and p.scene not in places],
        "val": [p.image for p in pairs if p.scene in places],
        "test": [p.image for p in pairs if p.listed == "test"],
    }
    selected: dict[str, balanced_pixels.PixelSelection] = {}
    per_bin = {}
    for split in ("val", "test"):
        # Sorted, so that the drawn pixels do not depend on the order of the list.
        ids = sorted(members[split])
        pixels = np.stack([stored.pixels[each] for each in ids])
        found, per_bin[split] = balanced_pixels.select_balanced_pixels(
            pixels, first_bin=FIRST_BIN, seed=options.split_seed, split=split
        )
        selected |= dict(zip(ids, found, strict=True))
    return _Splits(members, selected, tuple(_make_notes(members, places, per_bin, options)))


def _select_validation_places(pairs: Sequence[depth_files.Pair], options: Options) -> set[str]:
    """Return the first places of the training list in a seeded order that together hold the share of its images."""
    training = [pair.scene for pair in pairs if pair.listed == "train"]
    names, images = np.unique(training, return_counts=True)
    if len(names) < 2:
        rule = "needs two places or more, so that one can be the validation split; places"
        raise InputError(Fault(where=depth_files.LISTS["train"], rule=rule, got=names.tolist()))
    order = np.random.default_rng(derive_seed(options.split_seed, "split", "places")).permutation(len(names))
    reached = images[order].cumsum() >= options.validation_share * len(training)
    # At least one place remains for training.
    number = min(int(np.argmax(reached)) + 1, len(names) - 1)
    return set(names[order[:number]].tolist())


def _make_notes(
    members: dict[str, list[str]], places: set[str], per_bin: dict[str, int], options: Options
) -> Iterator[str]:
    yield (
        f"validation: {len(members['val']):,} images of {len(places):,} places of the training list, share "
        f"{options.validation_share:g}, seed {options.split_seed}; the papers have no validation split and choose on the test set"
    )
    for split, number in per_bin.items():
        yield (
            f"{split} is evaluated on {number:,} pixels of each occurring bin from {FIRST_BIN} on, drawn with seed "
            f"{options.split_seed}; the official mask of the test set was drawn without a seed"
        )
    yield "it is not known if test images show places of the training list: their names do not contain the place"
