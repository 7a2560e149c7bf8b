"""Content of a report as texts: the table, settings, provenance, every trial, failures and missing trials.

Everything is read from the study's folder, of which no file is required: a missing trial is listed as such.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dirtune.results.analysis.arms import list_arm_trials, list_search_trials, to_trial_rows
from dirtune.results.analysis.soundness import check_study
from dirtune.results.records import store, studies
from dirtune.results.tables.comparison import Comparison, TableRequest, compare

SECONDS = ("seconds_train", "seconds_eval", "seconds_data", "seconds_overhead")
PROVENANCE_COLUMNS = ("code_version", "data", "data_fingerprint", "device", "worker")
"""Columns of the trials table."""
UNPLANNED = "(no longer planned)"

ListingRow = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A table of texts."""

    title: str
    header: ListingRow
    rows: tuple[ListingRow, ...]


@dataclass(frozen=True, kw_only=True)
class Content:
    """The texts of a report."""

    study: str
    question: str
    description: str
    summary: tuple[tuple[str, str], ...]
    findings: tuple[str, ...]
    """What `dirtune check` reports."""
    table: Comparison
    failures: Listing
    holes: Listing
    settings: tuple[Listing, ...]
    provenance: Listing
    trials: Listing
    varied: tuple[str, ...]
    """Numeric settings that vary, over which curves are drawn."""
    is_search: bool
    """True if some arm has a search space."""


def read_content(root: str | Path, study: str) -> Content:
    """Read the content of a study's report.

    Raises:
        InputError: the study is unknown, its trials have different data, or a file is damaged.
    """
    storage = studies.open_study(root, study)
    info = studies.read_study(storage)
    table = compare(root, TableRequest(studies=(study,)))
    found = store.read_table(storage, "trials")
    known = to_trial_rows(found)
    members = list_arm_trials(known, info)
    arms = {
        row.trial_id: arm
        for trials_of in (list_search_trials(known, info), members)
        for arm, rows in trials_of.items()
        for row in rows
    }
    # Trials of arms that were removed from the study remain in the results.
    trials = [{**row, "arm": arms.get(row["trial_id"], f"{row['arm']} {UNPLANNED}")} for row in found.to_pylist()]
    order = {arm: position for position, arm in enumerate(members)}
    trials.sort(key=lambda row: (order.get(row["arm"], len(order)), row["seed"]))
    searched = [path for space in info.spaces.values() for path in space]
    levels = [item for part in table.parts for row in part.rows for item in row.levels.items()]
    # bool is a subclass of int.
    compared = [path for path, value in levels if isinstance(value, int | float) and not isinstance(value, bool)]
    holes = [hole for part in table.parts for row in part.rows for hole in row.missing]
    missing = ((hole.arm, str(hole.seed), hole.reason) for hole in holes)
    return Content(
        study=study,
        question=info.question,
        description=info.description,
        summary=tuple(_summarize(info, table, trials)),
        findings=tuple(map(str, check_study(root, study))),
        table=table,
        failures=_list_failures(trials),
        holes=Listing(title="Missing", header=("arm", "seed", "reason"), rows=tuple(dict.fromkeys(missing))),
        settings=_list_settings(info),
        provenance=_list_provenance(studies.read_provenance(storage), trials),
        trials=_list_trials(trials),
        varied=tuple(dict.fromkeys([*searched, *compared])),
        is_search=any(info.spaces.values()),
    )


def _summarize(
    info: studies.StudyInfo, table: Comparison, trials: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    part = table.parts[0]
    planned = sum(plan.trials or len(plan.seeds) for plan in info.plans.values())
    states = Counter(row["status"] for row in trials)
    counts = ", ".join(f"{n} {status}" for status, n in sorted(states.items())) or "none recorded"
    yield "trials", f"{counts}; {planned or 'unknown how many are'} planned"
    yield "arms", str(len(part.arms))
    yield "seeds", ", ".join(map(str, part.seeds)) or "none"
    yield "reference", part.reference or "none"
    yield "objective", f"{part.objective}, on validation data"
    yield "data", " ".join([part.data, *part.fingerprints]).strip() or "unknown"
    ends = [row["finished_at"] for row in trials if row["finished_at"] is not None]
    yield "last trial ended", f"{max(ends):%Y-%m-%d %H:%M} UTC" if ends else "unknown"


def _list_failures(trials: Iterable[Mapping[str, Any]]) -> Listing:
    rows = tuple(
        _format_cells(row, "arm", "seed", "trial_id", "error_epoch", "error_term", "error")
        for row in trials
        if row["status"] == "failed"
    )
    return Listing(title="Failures", header=("arm", "seed", "trial", "epoch", "term", "error"), rows=rows)


def _list_settings(info: studies.StudyInfo) -> tuple[Listing, ...]:
    """Return the settings that all arms share, those of single arms, and the search spaces."""
    leaves = {arm: dict(_list_leaves(config)) for arm, config in info.configs.items()}
    first = next(iter(leaves.values()), {})
    shared = {
        path: value for path, value in first.items() if all(of_arm.get(path) == value for of_arm in leaves.values())
    }
    own = ((arm, path, value) for arm, of_arm in leaves.items() for path, value in of_arm.items() if path not in shared)
    tuned = ((arm, path, json.dumps(knob)) for arm, space in info.spaces.items() for path, knob in space.items())
    return (
        Listing(title="Settings of all arms", header=("setting", "value"), rows=tuple(shared.items())),
        Listing(title="Settings of single arms", header=("arm", "setting", "value"), rows=tuple(own)),
        Listing(title="Search space", header=("arm", "setting", "distribution"), rows=tuple(tuned)),
    )


def _list_provenance(recorded: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Listing:
    origins = [
        (f"trials: {name}", ", ".join(sorted({row[name] for row in trials if row[name]})))
        for name in PROVENANCE_COLUMNS
    ]
    rows = (*_list_leaves(recorded), *((name, values) for name, values in origins if values))
    return Listing(title="Provenance", header=("what", "value"), rows=rows)


def _list_trials(trials: Iterable[Mapping[str, Any]]) -> Listing:
    rows = []
    for row in trials:
        seconds = [row[name] for name in SECONDS if row[name] is not None]
        cells = _format_cells(row, "arm", "seed", "trial_id", "status", "objective", "epochs_run")
        rows.append((*cells, f"{sum(seconds):.1f}" if seconds else ""))
    header = ("arm", "seed", "trial", "status", "objective", "epochs", "seconds")
    return Listing(title="Trials", header=header, rows=tuple(rows))


def _format_cells(row: Mapping[str, Any], *names: str) -> ListingRow:
    return tuple(_format_value(row[name]) for name in names)


def _list_leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, value in store.flatten_config(tree, "config"):
        yield path.removeprefix("config."), _format_value(value, nothing="none")


def _format_value(value: object, *, nothing: str = "") -> str:
    if value is None:
        return nothing
    return f"{value:.6g}" if isinstance(value, float) else str(value)
