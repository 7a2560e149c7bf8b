"""Data sets that are made and not read: they need no raw files, and everything in them follows from one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ray.data import Dataset

from dirtune.data.session import ray_session
from dirtune.data.store import find_ingested, write_dataset
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, digest
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.storage import Storage


class Options(Frozen):
    """Settings of the ingest."""

    seed: int = 0
    """Draws every sample of every split."""


def ingest_made(
    storage: Storage,
    raw: Path | None,
    options: Options,
    *,
    name: str,
    recipe: int,
    make: Callable[[], Mapping[str, Dataset]],
    inputs: Mapping[str, InputSpec],
    label: LabelSpec,
    source: str,
    note: str,
) -> Manifest:
    """Make the splits and write them, unless the same seed has been ingested.

    Args:
        recipe: counted up whenever the same options would give other samples.
        make: the splits, as `dirtune.data.store.write_dataset` wants them; called within a Ray session.

    Raises:
        InputError: raw files were given.
    """
    if raw is not None:
        rule = f"{name} is made, not read, and takes no raw files"
        raise InputError(Fault(where=name, key="raw", rule=rule, got=str(raw)))
    request = digest({"pipeline": name, "recipe": recipe, "options": options.model_dump()})
    if (present := find_ingested(storage, name, request)) is not None:
        return present
    with ray_session():
        return write_dataset(
            storage, name, make(), inputs=inputs, label=label,
            shot_rules={"counts": ShotRule()}, default_shot_rule="counts",
            source={"raw": source, "seed": str(options.seed), "request": request}, notes=(note,),
        )  # fmt: skip
