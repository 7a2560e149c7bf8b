"""What trackers log of a trial, read from the results folder: settings, curves by epoch, final metrics, tags."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dirtune.errors import InputError
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.results.analysis.status import PROGRESS
from dirtune.results.records import schema
from dirtune.results.records.compaction import list_stamps, read_rows
from dirtune.results.records.names import PREDICTED_EPOCH
from dirtune.results.records.store import flatten_config
from dirtune.results.records.unify import unify

TRIALS_AT_ONCE = 200
"""Trials whose rows are in memory at once."""
RUNNING = "running"
"""Status of a trial that is not recorded."""
_SETTING = "config."
_TAGS = (
    "study",
    "arm",
    "seed",
    "trial_id",
    "status",
    "role",
    "replicate",
    "cell",
    "data",
    "data_fingerprint",
    "data_split",
    "code_version",
    "device",
    "best_epoch",
    "epochs_run",
    "epochs_planned",
    "error",
    "error_class",
    "error_term",
)
"""Columns of the trials table that are tags."""
_MEASURED = ("objective", "samples_per_second", "peak_memory_bytes", "seconds_train", "seconds_eval", "seconds_data")
"""Columns of the trials table that are final metrics."""


@dataclass(frozen=True, kw_only=True)
class TrialLog:
    """What is logged of one trial."""

    study: str
    arm: str
    seed: int
    trial_id: str
    status: str
    """As in the trials table; `RUNNING` if the trial is not recorded."""
    version: str = ""
    """Changes if the trial is recorded again, as after `resume --retry`."""
    settings: Mapping[str, bool | float | str] = field(default_factory=dict)
    """Leaves of the configuration by dotted path."""
    tags: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Finite values by epoch and name."""
    final: Mapping[str, float] = field(default_factory=dict)
    """Finite values of the selected epoch by SPLIT/REGION/METRIC, and measurements of the run."""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def name(self) -> str:
        """Display name."""
        return f"{self.arm}, seed {self.seed}"


def read_versions(folder: Storage, known: Mapping[str, str], stamps: Mapping[str, str]) -> dict[str, str]:
    """Return the version of every recorded trial of a study by its id.

    Args:
        folder: the study's folder.
        known: versions that were read before.
        stamps: recorded trials whose versions are read, from `list_stamps`.
    """
    parts = read_rows(folder, "trials", stamps, ["trial_id", "status", "finished_at"])
    rows = [row for part in parts for row in part.to_pylist()]
    return {**known, **{row["trial_id"]: _make_version(row) for row in rows}}


def read_recorded(folder: Storage, trial_ids: Collection[str]) -> Iterator[TrialLog]:
    """Yield what is logged of recorded trials of a study; trials that are no longer recorded are left out."""
    stamps = list_stamps(folder)
    wanted = [trial_id for trial_id in trial_ids if trial_id in stamps]
    for first in range(0, len(wanted), TRIALS_AT_ONCE):
        some = {trial_id: stamps[trial_id] for trial_id in wanted[first : first + TRIALS_AT_ONCE]}
        curves: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in _read(folder, "epochs", some).to_pylist():
            if _is_finite(row["value"]):
                curves[row["trial_id"]][row["epoch"]][row["name"]] = row["value"]
        final: dict[str, dict[str, float]] = defaultdict(dict)
        for row in _read(folder, "metrics", some).to_pylist():
            if row["selection"] == PREDICTED_EPOCH and _is_finite(row["value"]):
                final[row["trial_id"]][f"{row['split']}/{row['region']}/{row['metric']}"] = row["value"]
        for row in _read(folder, "trials", some).to_pylist():
            trial_id = row["trial_id"]
            measured = {name: float(row[name]) for name in _MEASURED if _is_finite(row[name])}
            yield TrialLog(
                study=row["study"],
                arm=row["arm"],
                seed=row["seed"],
                trial_id=trial_id,
                status=row["status"],
                version=_make_version(row),
                settings={
                    name.removeprefix(_SETTING): value
                    for name, value in row.items()
                    if name.startswith(_SETTING) and value is not None
                },
                tags={name: str(row[name]) for name in _TAGS if row[name] is not None},
                curves=dict(sorted(curves[trial_id].items())),
                final=final[trial_id] | measured,
                started_at=row["started_at"],
                finished_at=row["finished_at"],
            )


def read_running(folder: Storage) -> Iterator[TrialLog]:
    """Yield what is logged of trials that have started and are not recorded, with their progress."""
    recorded = list_stamps(folder)
    for trial_id in folder.list_folders("trials"):
        if trial_id in recorded:
            continue
        try:
            progress = read_json_object(folder, f"trials/{trial_id}/{PROGRESS}")
            row = progress["trial"]
            yield TrialLog(
                study=row.get("study", ""),
                arm=row["arm"],
                seed=row["seed"],
                trial_id=trial_id,
                status=RUNNING,
                settings={
                    name.removeprefix(_SETTING): value
                    for name, value in flatten_config(progress["config"])
                    if value is not None
                },
                curves={
                    epoch: {name: value for name, value in values.items() if _is_finite(value)}
                    for epoch, values in enumerate(progress["epochs"], start=1)
                },
            )
        # Before its first epoch, recorded since the folders were listed, or damaged
        except (FileNotFoundError, InputError, KeyError, TypeError):
            continue


def _read(folder: Storage, table: str, stamps: Mapping[str, str]) -> pa.Table:
    return unify([pa.Table.from_batches([], schema.SCHEMAS[table]), *read_rows(folder, table, stamps)])


def _make_version(row: Mapping[str, Any]) -> str:
    # Not the stamp of the file, which a copy of the results would change.
    ended = row["finished_at"]
    return f"{row['status']} {'' if ended is None else ended.astimezone(UTC).isoformat()}".strip()


def _is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
