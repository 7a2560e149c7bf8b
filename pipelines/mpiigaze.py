"""mpiigaze: MPIIGaze, gray images of single eyes and their gaze: pitch and yaw, a label of two dimensions.

Source: Zhang et al., "Appearance-Based Gaze Estimation in the Wild", CVPR 2015 (MPIIGaze.tar.gz from
datasets.d2.mpi-inf.mpg.de/MPIIGaze, CC BY-NC-SA 4.0). The raw folder is the unpacked archive, of which `dirtune.pipelines.eyes`
reads the evaluation subset, 3,000 lines for each of 15 participants, with normalized images.

Keramati et al. ("ConR", ICLR 2024) made an imbalanced benchmark of it without publishing its split, bins or shot rule. Those
here are this library's own, and results on them are not comparable with theirs: the label bins are cells of 2 x 2 degrees of
pitch and yaw, `split=made` gives validation and test up to 10 eyes of each cell (the rule of the age data sets), shots are
counted by cell, many above 100 and few below 20. The grid spans 40 degrees to each side, twice the published range of the
data set (Zhang et al., "ETH-XGaze", ECCV 2020), so that many cells are empty, without a cost.

The inputs are `image`, (1, 36, 60) bytes, and `pose`, pitch and yaw of the head, which LeNet can take as `side_input`. Right
eyes are mirrored; a mirror as an augmentation would change the label. Trade-off: the selected eyes, 100 MB, are held in
memory during the ingest.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data
from pydantic import Field, model_validator

from dirtune.data import columns, session, splits, store, verify
from dirtune.data.splits.settings import Split
from dirtune.errors import Fault, InputError
from dirtune.frozen import hash_json
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.pipelines.eyes import DAYS, HEIGHT, LISTS, PERSONS, WIDTH, Eye, get_list_path, read_eyes
from dirtune.pipelines.faces import make_fault_notes
from dirtune.reweighting.density import label_bins

NAME = "mpiigaze"
# Incremented whenever the same raw files and options would give other samples
RECIPE_VERSION = 1
CELL, BOUND = 2, 40
"""Width of the cells, and end of the grid, in degrees."""
MADE = splits.SplitRecipe(per_bin=10)
INPUTS = {"image": InputSpec(kind="image", shape=(1, HEIGHT, WIDTH)), "pose": InputSpec(kind="vector", shape=(2,))}


def _make_axis(name: str) -> LabelSpec:
    return LabelSpec(
        name=name,
        unit="rad",
        low=-math.radians(BOUND),
        high=math.radians(BOUND),
        bin_width=math.radians(CELL),
        num_bins=2 * BOUND // CELL,
    )


LABEL = LabelSpec.grid("gaze", "rad", (_make_axis("pitch"), _make_axis("yaw")))


class Options(splits.Splitting):
    """Settings of the ingest; the settings of the splits are inherited."""

    split: Split = "made"
    """made: balanced over the cells; natural: at random; grouped: no participant in two splits. None is published."""
    skip_bad: int = Field(default=0, ge=0)
    """Maximum number of unusable lines of the lists, which are left out and listed in the manifest's notes; more are an
    error."""

    @model_validator(mode="after")
    def _check_order(self) -> "Options":
        # Held-out intervals and profiles follow consecutive bins, and the cells of a grid have no such order.
        if self.hold_out != "none" or self.profile != "none":
            raise ValueError("hold_out and profile need the order of a label of one dimension")
        return self


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the lists and the eyes and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: files are missing, more than `skip_bad` lines cannot be used (the first 20 are listed, and their
            number), or the data cannot be split as the options ask.
    """
    folder = _require_raw_folder(raw)
    # The lists are hashed as a whole, the day files by name and size: hashing gigabytes would take minutes.
    hashes = {f"{p}.txt": hashlib.sha256(get_list_path(folder, p).read_bytes()).hexdigest() for p in PERSONS}
    days = sorted((folder / DAYS).glob("p*/day*.mat"))
    request = hash_json(
        {
            "pipeline": NAME,
            "recipe": RECIPE_VERSION,
            "options": options.model_dump(),
            "lists": hashes,
            "days": [[str(path.relative_to(folder)), path.stat().st_size] for path in days],
        }
    )
    if (present := store.find_ingested(storage, NAME, request)) is not None:
        return present
    found = [*chain.from_iterable(read_eyes(folder, person) for person in PERSONS)]
    eyes = [each for each in found if isinstance(each, Eye) and not _find_range_faults(each)]
    faults = [fault for each in found for fault in ([each] if isinstance(each, Fault) else _find_range_faults(each))]
    # Counted by lines: an eye out of both ranges has two faults and is one line.
    if len(found) - len(eyes) > options.skip_bad:
        verify.raise_faults(faults, where=NAME)
    if not eyes:
        raise InputError(Fault(where=NAME, rule="no line of the lists can be used"))
    rows = splits.Rows(
        name=NAME,
        label=LABEL,
        ids=np.array([eye.sample_id for eye in eyes]),
        labels=np.array([eye.gaze for eye in eyes]),
        groups=np.array([eye.person for eye in eyes]),
    )
    people, cells = len({eye.person for eye in eyes}), len(np.unique(label_bins(rows.labels, LABEL)))
    assignment = splits.split_rows(rows, options, MADE, contents=[eye.image for eye in eyes])
    with session.ray_session():
        return store.write_dataset(
            storage,
            NAME,
            {split: _make_dataset(eyes, assignment, split) for split in SPLITS},
            inputs=INPUTS,
            label=LABEL,
            metrics=("angular_error",),
            group="participant",
            shot_rules={"counts": ShotRule()},
            default_shot_rule="counts",
            source={**hashes, "folder": str(folder), "request": request},
            notes=(
                "no split of this data set for imbalanced regression is published; this one is dirtune's own",
                f"{len(eyes):,} eyes of {people} participants, {cells:,} of {LABEL.num_bins:,} label bins of {CELL} x {CELL} "
                "degrees occupied; right eyes are mirrored",
                *assignment.notes,
                *make_fault_notes(faults, "lines that cannot be used, left out; faults"),
            ),
        )


def _require_raw_folder(raw: Path | None) -> Path:
    if raw is None:
        rule = f"needs the folder of {DAYS} and {LISTS} (`dirtune ingest {NAME} --raw DIR`)"
        raise InputError(Fault(where=NAME, key="raw", rule=rule))
    lists = [get_list_path(raw, person) for person in PERSONS]
    missing = [path for path in (raw / DAYS, *lists) if not path.exists()]
    verify.raise_faults([Fault(where=str(path), rule="no such file or folder") for path in missing], where=NAME)
    return raw.resolve()


def _find_range_faults(eye: Eye) -> list[Fault]:
    return [
        Fault(where=eye.sample_id, key=axis.name, rule=f"must be within {axis.low:g}..{axis.high:g} rad", got=angle)
        for axis, angle in zip(LABEL.axes, eye.gaze, strict=True)
        if not axis.low <= angle <= axis.high
    ]


def _make_dataset(eyes: Sequence[Eye], assignment: splits.Assignment, split: str) -> ray.data.Dataset:
    members = [eyes[at] for at in assignment.find_rows(split).tolist()]
    table = pa.table(
        {
            "sample_id": [eye.sample_id for eye in members],
            "group": [eye.person for eye in members],
            "pitch": [eye.gaze[0] for eye in members],
            "yaw": [eye.gaze[1] for eye in members],
            "pose_pitch": [eye.pose[0] for eye in members],
            "pose_yaw": [eye.pose[1] for eye in members],
            "image": pa.array([eye.image for eye in members], pa.large_binary()),
        }
    )

    def to_stored_columns(batch: columns.Columns) -> columns.Columns:
        pixels = np.frombuffer(b"".join(batch["image"].tolist()), np.uint8)
        return {
            "sample_id": batch["sample_id"],
            "group": batch["group"],
            "label": np.stack([batch["pitch"], batch["yaw"]], axis=1),
            "image": pixels.reshape(-1, 1, HEIGHT, WIDTH),
            "pose": np.stack([batch["pose_pitch"], batch["pose_yaw"]], axis=1).astype(np.float32),
        }

    return ray.data.from_arrow(table).map_batches(to_stored_columns, batch_format="numpy")
