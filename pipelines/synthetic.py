"""Synthetic data sets: they need no raw files, and everything in them follows from one seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field
from ray.data import Dataset

from dirtune.data import session, splits, store
from dirtune.data.columns import Columns
from dirtune.errors import Fault, InputError
from dirtune.frozen import hash_json
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, LabelSpec, Manifest, ShotRule


class Options(splits.Splitting):
    """Settings of the ingest; `published` are the splits of the generator."""

    seed: int = Field(default=0, ge=0)
    """Seed of every sample of every split."""


@dataclass(frozen=True, kw_only=True)
class SyntheticSet:
    """Generator of a synthetic data set."""

    name: str
    recipe: int
    """Incremented whenever the same options would give other samples."""
    label: LabelSpec
    inputs: Mapping[str, InputSpec]
    source: str
    note: str
    """Note on the splits of the generator."""
    make_columns: Callable[[int], Mapping[str, Columns]]
    """Map of a seed to `sample_id`, `label` and further columns, by split."""
    make_dataset: Callable[[Columns], Dataset]
    """Map of rows to the data set for `write_dataset`."""


def ingest_synthetic(storage: Storage, raw: Path | None, options: Options, made: SyntheticSet) -> Manifest:
    """Generate a data set and write it, unless the same options have been ingested.

    Raises:
        InputError: raw files were given, or the rows cannot be split as the options ask.
    """
    if raw is not None:
        rule = f"{made.name} is synthetic and takes no raw files"
        raise InputError(Fault(where=made.name, key="raw", rule=rule, got=str(raw)))
    request = hash_json({"pipeline": made.name, "recipe": made.recipe, "options": options.model_dump()})
    if (present := store.find_ingested(storage, made.name, request)) is not None:
        return present
    by_split = made.make_columns(options.seed)
    names = by_split["train"].keys()
    columns = {name: np.concatenate([by_split[split][name] for split in SPLITS]) for name in names}
    # In the order of the concatenation, so that each row meets its own split.
    published = np.repeat(SPLITS, [len(by_split[split]["label"]) for split in SPLITS])
    ids, labels = columns["sample_id"], columns["label"]
    rows = splits.Rows(name=made.name, label=made.label, ids=ids, labels=labels, published=published)
    assignment = splits.split_rows(rows, options)
    members = {split: assignment.find_rows(split) for split in SPLITS}
    rules = {"counts": ShotRule()}
    if assignment.held_out:
        rules["held_out"] = splits.make_held_out_rule(assignment.held_out, made.label.num_bins)
    with session.ray_session():
        return store.write_dataset(
            storage,
            made.name,
            {
                split: made.make_dataset({name: values[positions] for name, values in columns.items()})
                for split, positions in members.items()
            },
            inputs=made.inputs,
            label=made.label,
            shot_rules=rules,
            default_shot_rule="counts",
            source={"raw": made.source, "seed": str(options.seed), "request": request},
            # The note is true of the generator's own splits only.
            notes=(*((made.note,) if options.split == "published" else ()), *assignment.notes),
        )
