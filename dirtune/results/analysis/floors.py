"""Floors of a study as tables need them: reference predictors (`dirtune.training.floors`) with their recorded metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dirtune.io.storage import Storage
from dirtune.results.analysis.recompute import read_stored_manifest
from dirtune.results.records import names, store, studies

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

    @property
    def is_constant(self) -> bool:
        return self.name in names.CONSTANT_FLOORS


def read_floors(storage: Storage, info: studies.StudyInfo) -> tuple[Floor, ...]:
    """Return the floors of a study's folder for the shot rules of its arms, in the order of `FLOORS`.

    Raises:
        InputError: a file is damaged.
    """
    folder = storage.get_folder(names.FLOORS)
    if not folder.exists("results/trials"):
        return ()
    columns = ("arm", "config.data.shot_rule", "config.floor.rows", "finished_at")
    found = store.read_tables(folder, {"trials": columns, "metrics": ("split", "region", "metric", "value")})
    values: dict[str, dict[tuple[str, str, str], float]] = {}
    for row in found["metrics"].to_pylist():
        key = (row["split"], row["region"], row["metric"])
        values.setdefault(row["trial_id"], {})[key] = math.nan if row["value"] is None else row["value"]
    floors: dict[tuple[str, str], Floor] = {}
    # The newest last: an earlier version of dirtune may have recorded a floor of the same name.
    for row in sorted(found["trials"].to_pylist(), key=lambda row: row["finished_at"]):
        floors[row["arm"], row["config.data.shot_rule"]] = Floor(
            name=row["arm"],
            shot_rule=row["config.data.shot_rule"],
            trial_id=row["trial_id"],
            rows=row["config.floor.rows"],
            values=values.get(row["trial_id"], {}),
        )
    rules = find_shot_rules(storage, info)
    kept = [floor for floor in floors.values() if floor.name in FLOORS and floor.shot_rule in rules.values()]
    return tuple(sorted(kept, key=lambda floor: (FLOORS.index(floor.name), floor.shot_rule)))


def find_shot_rules(storage: Storage, info: studies.StudyInfo) -> dict[str, str]:
    """Return the name of the shot rule of every arm.

    Raises:
        InputError: the folder has no copy of the data set's manifest.
    """
    default = read_stored_manifest(storage).default_shot_rule
    return {arm: config.get("data", {}).get("shot_rule") or default for arm, config in info.configs.items()}
