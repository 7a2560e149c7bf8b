"""Data sets that are made and not read: they need no raw files, and everything in them follows from one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field
from ray.data import Dataset

from dirtune.data.columns import Columns
from dirtune.data.session import ray_session
from dirtune.data.splits import Assignment, Rows, Splitting, make_held_out_rule, split_rows
from dirtune.data.store import find_ingested, write_dataset
from dirtune.errors import Fault, InputError
from dirtune.frozen import hash_json
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, LabelSpec, Manifest, ShotRule


class Options(Splitting):
    """Settings of the ingest; `published` are the splits that the set is made with."""

    seed: int = Field(default=0, ge=0)
    """Draws every sample of every split."""


@dataclass(frozen=True, kw_only=True)
class MadeSet:
    """What one such set is."""

    name: str
    recipe: int
    """Counted up whenever the same options would give other samples."""
    label: LabelSpec
    inputs: Mapping[str, InputSpec]
    source: str
    note: str
    """Holds of the splits that it is made with."""
    make: Callable[[int], Mapping[str, Columns]]
    """Of a seed: `sample_id`, `label` and more, by split."""
    dataset: Callable[[Columns], Dataset]
    """Of some rows: as `write_dataset` wants them."""


def ingest_made(storage: Storage, raw: Path | None, options: Options, made: MadeSet) -> Manifest:
    """Make a set and write it, unless the same options have been ingested.

    Raises:
        InputError: raw files were given, or the rows cannot be split as asked.
    """
    if raw is not None:
        rule = f"{made.name} is made, not read, and takes no raw files"
        raise InputError(Fault(where=made.name, key="raw", rule=rule, got=str(raw)))
    request = hash_json({"pipeline": made.name, "recipe": made.recipe, "options": options.model_dump()})
    if (present := find_ingested(storage, made.name, request)) is not None:
        return present
    columns, assignment = _split(made, options)
    rules = {"counts": ShotRule()}
    if assignment.held_out:
        rules["held_out"] = make_held_out_rule(assignment.held_out, made.label.num_bins)
    with ray_session():
        return write_dataset(
            storage,
            made.name,
            {split: made.dataset(_rows_of(columns, assignment, split)) for split in SPLITS},
            inputs=made.inputs,
            label=made.label,
            shot_rules=rules,
            default_shot_rule="counts",
            source={"raw": made.source, "seed": str(options.seed), "request": request},
            notes=(*((made.note,) if options.split == "published" else ()), *assignment.notes),
        )


def _split(made: MadeSet, options: Options) -> tuple[Columns, Assignment]:
    by_split = made.make(options.seed)
    names = by_split["train"].keys()
    columns = {name: np.concatenate([by_split[split][name] for split in SPLITS]) for name in names}
    published = np.repeat(SPLITS, [len(by_split[split]["label"]) for split in SPLITS])
    rows = Rows(
        name=made.name, label=made.label, ids=columns["sample_id"], labels=columns["label"], published=published
    )
    return columns, split_rows(rows, options)


def _rows_of(columns: Columns, assignment: Assignment, split: str) -> Columns:
    members = assignment.find_rows(split)
    return {name: values[members] for name, values in columns.items()}
