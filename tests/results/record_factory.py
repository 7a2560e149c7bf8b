"""Synthetic records: small stores whose numbers the tests know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dirtune.io.storage import Storage
from dirtune.metrics import REGIONS
from dirtune.results.records.schema import Role, TrialRecord
from dirtune.results.records.store import write_record

OFFSETS = {"all": 0.0, "many": -1.0, "medium": 1.0, "few": 2.0}  # of a region's error to the error of all


def metric_rows(
    value: float,
    *,
    metric: str = "mae",
    splits: Sequence[str] = ("val", "test"),
    epochs: Sequence[str] = ("best_val", "last"),
) -> list[dict[str, Any]]:
    """`value` in region all, shifted by `OFFSETS` in the others."""
    return [
        {
            "split": split,
            "selection": epoch,
            "region": region,
            "metric": metric,
            "value": value + OFFSETS[region],
            "n": 10,
        }
        for split in splits
        for epoch in epochs
        for region in REGIONS
    ]


def record(
    arm: str,
    seed: int,
    value: float = 5.0,
    *,
    trial_id: str | None = None,
    status: str = "complete",
    objective: float | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    fingerprint: str = "data-a",
    cell: str = "{}",
    error: str | None = None,
    error_class: str | None = None,
    role: Role = "evaluation",
) -> TrialRecord:
    """A trial whose error on all samples is `value`; one that is not complete has no metrics."""
    complete = status == "complete"
    return TrialRecord(
        trial={
            "study": "study",
            "arm": arm,
            "cell": cell,
            "trial_id": trial_id or f"{arm}-{seed}",
            "seed": seed,
            "role": role,
            "replicate": seed if role == "evaluation" else None,
            "status": status,
            "error": error,
            "error_class": error_class,
            "objective": value if objective is None else objective,
            "data_fingerprint": fingerprint,
        },
        config={**(config or {}), "seed": seed},
        metrics=(metric_rows(value) if complete else []) if metrics is None else metrics,
    )


def write_study(root: Path, records: Sequence[TrialRecord], *, name: str = "study", **keys: Any) -> Storage:
    """A study's folder with these records and, if `keys` are given, a `study.json` of them."""
    storage = Storage.open(root / name)
    for one in records:
        write_record(storage, one)
    if keys:
        storage.write("study.json", json.dumps(keys).encode())
    return storage
