"""Floors of a study as tables need them: reference predictors (`dirtune.training.floors`) with their recorded metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dirtune.io.storage import Storage
from dirtune.results.analysis.recompute import read_stored_manifest
from dirtune.results.records import names, store, studies
from dirtune.results.records.parquetfile import OnDamaged
from dirtune.results.records.schema import SCHEMAS

FLOORS = (*names.CONSTANT_FLOORS, *names.LEARNED_FLOORS)
"""Names, from the predictor that is the least to beat."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A reference predictor."""

    name: str
    """Of `FLOORS`."""
    shot_rule: str
    trial_id: str
    """Identity of its record."""
    rows: int
    """Training rows that it was fitted to."""
    values: Mapping[tuple[str, str, str], float]
    """By split, region and metric; NaN where undefined."""
    data_split: int = 0
    """Number of the split of the data."""

    @property
    def is_constant(self) -> bool:
        return self.name in names.CONSTANT_FLOORS


FLOOR_SCHEMA = pa.schema(
    {
        **{name: pa.string() for name in ("study", "floor", "shot_rule", "split", "region", "metric")},
        "value": pa.float64(),
        "n": pa.int64(),
        "trial_id": pa.string(),
    }
)
PREDICTION_SCHEMA = pa.schema([pa.field("study", pa.string()), pa.field("floor", pa.string()), *SCHEMAS["predictions"]])

TABLES = {"floors": FLOOR_SCHEMA, "floor_predictions": PREDICTION_SCHEMA}
"""Tables of queries."""


def read_floor_tables(
    root: str | Path, selected: Sequence[str] | None = None, on_damaged: OnDamaged | None = None
) -> dict[str, pa.Table]:
    """Return metrics and predictions of the floors of all studies below a root, for queries.

    Args:
        root: the results root, a path or URL.
        selected: names of studies; None means all.
        on_damaged: called with each damaged file, which is then skipped; None means to raise.

    Raises:
        InputError: no such study, or a file is damaged.
    """
    parts = {name: [pa.Table.from_batches([], schema)] for name, schema in TABLES.items()}
    for study, storage in studies.open_studies(root, selected).items():
        folder = storage.get_folder(names.FLOORS)
        if not folder.exists("results/trials"):
            continue
        found = store.read_tables(
            folder,
            {"trials": ("arm", "config.data.shot_rule"), "metrics": None, "predictions": None},
            on_damaged=on_damaged,
        )
        trials = {row["trial_id"]: row for row in found["trials"].to_pylist()}
        for name, table in (("floors", found["metrics"]), ("floor_predictions", found["predictions"])):
            # A record of which the file in `trials/` is damaged has no name.
            rows = [trials.get(trial, {}) for trial in table["trial_id"].to_pylist()]
            table = table.append_column("study", pa.array([study] * len(rows), pa.string()))
            table = table.append_column("floor", pa.array([row.get("arm") for row in rows], pa.string()))
            shot_rules = [row.get("config.data.shot_rule") for row in rows]
            table = table.append_column("shot_rule", pa.array(shot_rules, pa.string()))
            parts[name].append(table.select(TABLES[name].names).cast(TABLES[name]))
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def read_floors(storage: Storage, info: studies.StudyInfo) -> tuple[Floor, ...]:
    """Return the floors of a study's folder for the shot rules of its arms, in the order of `FLOORS`, then of the splits.

    Raises:
        InputError: a file is damaged.
    """
    folder = storage.get_folder(names.FLOORS)
    if not folder.exists("results/trials"):
        return ()
    columns = ("arm", "config.data.shot_rule", "config.floor.rows", "finished_at", "data_split")
    found = store.read_tables(folder, {"trials": columns, "metrics": ("split", "region", "metric", "value")})
    values: dict[str, dict[tuple[str, str, str], float]] = {}
    for row in found["metrics"].to_pylist():
        key = (row["split"], row["region"], row["metric"])
        values.setdefault(row["trial_id"], {})[key] = math.nan if row["value"] is None else row["value"]
    floors: dict[tuple[str, str, int], Floor] = {}
    # The newest last: an earlier version of dirtune may have recorded a floor of the same name.
    for row in sorted(found["trials"].to_pylist(), key=lambda row: row["finished_at"]):
        data_split = row["data_split"] or 0
        floors[row["arm"], row["config.data.shot_rule"], data_split] = Floor(
            data_split=data_split,
            name=row["arm"],
            shot_rule=row["config.data.shot_rule"],
            trial_id=row["trial_id"],
            rows=row["config.floor.rows"],
            values=values.get(row["trial_id"], {}),
        )
    rules = find_shot_rules(storage, info)
    kept = [
        floor
        for floor in floors.values()
        if floor.name in FLOORS and floor.shot_rule in rules.values() and floor.data_split < info.splits
    ]
    return tuple(sorted(kept, key=lambda floor: (FLOORS.index(floor.name), floor.shot_rule, floor.data_split)))


def find_shot_rules(storage: Storage, info: studies.StudyInfo) -> dict[str, str]:
    """Return the name of the shot rule of every arm.

    Raises:
        InputError: the folder has no copy of the data set's manifest.
    """
    default = read_stored_manifest(storage).default_shot_rule
    return {arm: config.get("data", {}).get("shot_rule") or default for arm, config in info.configs.items()}
