"""Floors in a table, and what keeps a word from being a conclusion: `but: both worse than the median; not converged`.

A word compares two arms with each other and is silent on whether either has learned anything. The rules are those of
`dirtune.results.analysis.soundness`, here for the means over seeds of the column's cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.metrics import compute_metrics
from dirtune.results.analysis import floors, soundness
from dirtune.results.records import names, studies
from dirtune.results.statistics.paired import mean

if TYPE_CHECKING:
    from dirtune.results.tables.shot_rules import RegionDefinition


@dataclass(frozen=True, kw_only=True)
class FloorRow:
    """A reference predictor in a table of one metric and split."""

    name: str
    label: str
    """Name in a column of arms."""
    rows: int
    """Training rows that it was fitted to."""
    values: Mapping[str, float]
    """By region; NaN where undefined. The mean over the splits of the data, if there are several."""


def make_floor_rows(
    storage: Storage,
    info: studies.StudyInfo,
    *,
    metric: str,
    split: str,
    regions: Sequence[str],
    definition: RegionDefinition | None = None,
) -> tuple[FloorRow, ...]:
    """Return the floors of a study with their recorded values; none if a record is damaged, which `dirtune check` reports.

    Args:
        storage: the study's folder.
        info: the study.
        metric: of the table.
        split: of the table.
        regions: the columns.
        definition: regions that are not the recorded ones, in which the stored predictions are evaluated instead.
    """
    try:
        known = floors.read_floors(storage, info)
        has_rules = len({floor.shot_rule for floor in known}) > 1
        rows = []
        for name, rule in dict.fromkeys((floor.name, floor.shot_rule) for floor in known):
            # A line of `boosting_weighted (floor)` would be too wide for most terminals.
            short = name.replace("_weighted", "_w")
            # One for each split of the data.
            own = [floor for floor in known if (floor.name, floor.shot_rule) == (name, rule)]
            values = [
                {region: floor.values.get((split, region, metric), math.nan) for region in regions}
                if definition is None
                else _recompute_values(storage, floor, metric, split, regions, definition)
                for floor in own
            ]
            rows.append(
                FloorRow(
                    name=name,
                    label=f"{short} (floor, rule {rule})" if has_rules else f"{short} (floor)",
                    rows=own[0].rows,
                    values={region: mean(each[region] for each in values) for region in regions},
                )
            )
        return tuple(rows)
    except InputError:
        return ()


def _recompute_values(
    storage: Storage, floor: floors.Floor, metric: str, split: str, regions: Sequence[str], definition: RegionDefinition
) -> dict[str, float]:
    from dirtune.results.analysis.recompute import read_sample_predictions

    found = read_sample_predictions(
        storage.get_folder(names.FLOORS),
        [floor.trial_id],
        split=split,
        rule=definition.rule or definition.manifest.shot_rules[floor.shot_rule],
        bin_width=definition.bin_width,
    )
    predictions = found.predictions[floor.trial_id]
    values = {}
    for region in regions:
        rows = found.regions[region]
        values[region] = compute_metrics([metric], found.labels[rows], predictions[rows], found.bins[rows])[metric]
    return values


def find_unbeaten(value: float, region: str, metric: str, rows: Iterable[FloorRow]) -> list[str]:
    """Return the names of the floors than which a value is no better, from the least to beat."""
    return [row.name for row in rows if soundness.is_no_better(value, row.values[region], metric)]


def describe_caveats(
    arm: Sequence[str], reference: Sequence[str], *, late: int, short: int, trials: int
) -> tuple[str, ...]:
    """Return the texts behind `but:`, the most severe first.

    Args:
        arm: floors that the arm does not beat, from the least to beat.
        reference: those of the reference.
        late: number of trials of both that have not converged.
        short: number of those whose epochs are too few to judge.
        trials: number of their trials.
    """
    found = []
    if both := [name for name in arm if name in reference]:
        found.append(f"both worse than {format_floor(both[0])}")
    elif arm:
        found.append(f"worse than {format_floor(arm[0])}")
    elif reference:
        found.append(f"the reference is worse than {format_floor(reference[0])}")
    if late:
        found.append(f"not converged ({late} of {trials} trials)")
    if short:
        found.append(f"too few epochs to judge convergence ({short} of {trials} trials)")
    return tuple(found)


def describe_cautions(
    unbeaten: Mapping[str, Sequence[str]],
    trials: Mapping[str, Sequence[str]],
    judged: soundness.Unconverged,
    metric: str,
    region: str,
) -> tuple[str, ...]:
    """Return sentences on the arms that beat not every floor, and on trials that have not converged.

    Args:
        unbeaten: floors by arm, from the least to beat.
        trials: ids by arm.
        judged: those that a comparison should not rest on.
        metric: of the floors.
        region: of the floors.
    """
    by_floor: dict[str, list[str]] = {}
    for arm, found in unbeaten.items():
        if found:
            by_floor.setdefault(found[0], []).append(arm)
    texts = [
        f"no better than {format_floor(name)}: {', '.join(by_floor[name])}"
        for name in floors.FLOORS
        if name in by_floor
    ]
    sentences = [f"In {metric}, region {region}, {'; '.join(texts)}."] if texts else []
    few = f"Fewer than {soundness.MIN_EPOCHS} epochs, too few to judge convergence"
    for text, concerned in (("Not converged", judged.late), (few, judged.short)):
        counts = {arm: len(concerned.intersection(ids)) for arm, ids in trials.items()}
        if parts := [f"{arm} ({n} of {len(trials[arm])} trials)" for arm, n in counts.items() if n]:
            sentences.append(f"{text}: {', '.join(parts)}.")
    return tuple(sentences)


def format_floor(name: str) -> str:
    """Return a floor as a text inside a sentence."""
    return f"the {name}" if name in names.CONSTANT_FLOORS else name.replace("_", " ")
