"""What a reader must know to believe a table, one sentence per line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dirtune.results.statistics.paired import CONFIDENCE, SIMULATED_COVERAGE
from dirtune.results.statistics.power import ALPHA, POWER
from dirtune.results.tables.comparison import Comparison
from dirtune.results.tables.layout import configurations, origins
from dirtune.results.tables.marks import BOLD, SIGNIFICANT, SPREADS
from dirtune.results.tables.table import ArmRow, ArmTable


def footer(table: Comparison) -> list[str]:
    """The sentences; what is a study's own is said once per study, and of which where there are several."""
    studies = list(dict.fromkeys(part.study for part in table.parts))
    lines = []
    for study in studies:
        own = _of_study([part for part in table.parts if part.study == study])
        lines += [f"{study}: {line}" if len(studies) > 1 else line for line in own]
    return [*lines, *_marks(table), *_published(table)]


def _of_study(parts: Sequence[ArmTable]) -> Iterator[str]:
    first = parts[0]
    yield (f"Split: {first.split}. Selection {first.selection}: {first.description} (objective: {first.objective}).")
    if first.regrouping:
        yield first.regrouping
    yield f"Seeds ({len(first.seeds)}): {_numbers(first.seeds) or 'none'}."
    yield from _pairing(first)
    yield from _sequential(first)
    yield f"Configurations tried per seed: {'; '.join(map(_tried, first.rows))}."
    yield f"Holes: {'; '.join(_holes(parts)) or 'none'}."
    yield from _halved(first)
    yield f"Data: {' '.join([first.data, *first.fingerprints]).strip() or 'unknown'}."
    if hidden := [arm for arm in first.arms if arm not in {row.arm for row in first.rows}]:
        yield f"Arms not shown: {', '.join(hidden)}."
    if first.orphans:
        yield f"Left out: {first.orphans} recorded trials that the study no longer plans."


def _pairing(part: ArmTable) -> Iterator[str]:
    """Which seeds the differences rest on, the arms of equal seeds together."""
    arms: dict[tuple[int, ...], list[str]] = {}
    for row in part.rows:
        if row.arm != part.reference:
            arms.setdefault(_paired_seeds(row), []).append(row.arm)
    if part.reference is None or not arms:
        return
    pairs = "; ".join(
        f"seeds {_numbers(seeds)} ({', '.join(names)})" if seeds else f"none ({', '.join(names)})"
        for seeds, names in arms.items()
    )
    yield (
        f"Pairing with {part.reference}: {pairs}. Correction: Holm's, over the arms of a column "
        f"(at most {len(part.arms) - 1}), shown or not."
    )


def _sequential(part: ArmTable) -> Iterator[str]:
    if part.sequential is None:
        return
    rule, arms = part.sequential
    yield f"Seeds were added until decided ({rule}): {'; '.join(f'{arm} {said}' for arm, said in arms.items())}."
    yield "The other p-values and verdicts of this table take no account of that."


def _halved(part: ArmTable) -> Iterator[str]:
    """Which trials had less memory than planned."""
    number = sum(len(row.halved) for row in part.rows)
    if not number:
        return
    where = "; ".join(f"{row.arm} {_seeds(row.halved)}" for row in part.rows if row.halved)
    yield (
        f"{number} trial{'s' * (number > 1)} ran at half batch or less after running out of memory: {where}. The steps are "
        "those of the whole batch; batch normalisation and terms that compare pairs saw fewer rows at a time."
    )


def _paired_seeds(row: ArmRow) -> tuple[int, ...]:
    found = (
        seed
        for cell in row.cells.values()
        if cell.difference
        for seed in cell.values.keys() - set(cell.difference.holes)
    )
    return tuple(sorted(set(found)))


def _marks(table: Comparison) -> Iterator[str]:
    spread, bold = SPREADS[table.request.spread], BOLD[table.request.bold]
    yield f"±: {spread.description}. Bold (in plain text *): {bold.description}."
    if any(part.reference is not None and len(part.arms) > 1 for part in table.parts):
        least, most = SIMULATED_COVERAGE
        yield (
            f"Intervals: Student's t, {100 * CONFIDENCE:g} % (in simulations of 5 and 10 seeds {least} to {most} %), "
            "of the mean difference, not corrected. "
            f"* on a difference: paired t test, corrected p < {SIGNIFICANT}."
        )
        yield from _verdicts(table)


def _verdicts(table: Comparison) -> Iterator[str]:
    yield (
        f"Verdicts: helps, hurts: paired t test, two-sided, corrected p < {ALPHA}; equivalent: within ± the margin by two "
        f"one-sided paired t tests, Bonferroni-corrected over the same arms, p < {ALPHA}; else undecided, which is not "
        '"no effect". n: the pairs of the differences.'
    )
    yield (
        f"Margin: {table.parts[0].margin}. (+m): m more seeds tell a difference of the margin from none with "
        f"{100 * POWER:g} % power, at the observed spread; add them once."
    )


def _published(table: Comparison) -> Iterator[str]:
    for number, origin in enumerate(origins(table), start=1):
        yield (
            f"[{number}] Published: {origin}; {table.request.published} split; another recipe and other seeds, "
            "in no statistic of this table."
        )
    if table.request.published is not None and not table.published:
        yield f"Published numbers of the {table.request.published} split: none for these arms."


def _tried(row: ArmRow) -> str:
    unfinished = ", ".join(f"{n} {status}" for status, n in sorted(row.unfinished.items()))
    recorded = sum(row.tried.values()) + row.searched
    if row.planned is not None and recorded < row.planned:
        unfinished = ", ".join(filter(None, [unfinished, f"{row.planned - recorded} not recorded"]))
    return f"{row.arm} {configurations(row)}" + (f" ({unfinished})" if unfinished else "")


def _holes(parts: Sequence[ArmTable]) -> Iterator[str]:
    holes = dict.fromkeys(
        (row.arm, hole.reason, hole.seed) for part in parts for row in part.rows for hole in row.holes
    )
    seeds: dict[tuple[str, str], list[int]] = {}
    for arm, reason, seed in holes:
        seeds.setdefault((arm, reason), []).append(seed)
    for (arm, reason), missing in seeds.items():
        yield f"{arm} {_seeds(missing)}: {reason}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {_numbers(seeds)}"


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
