"""Footer of a table: everything that a reader must know to believe it, one sentence per line."""

from collections.abc import Iterator, Sequence

from dirtune.results.statistics.paired import CONFIDENCE, Over
from dirtune.results.statistics.power import ALPHA, POWER
from dirtune.results.tables.comparison import Comparison
from dirtune.results.tables.marks import BOLD, SIGNIFICANT, SPREADS
from dirtune.results.tables.render.grids import format_configurations, list_origins
from dirtune.results.tables.table import ArmTable

INTERVALS: dict[Over, str] = {
    "seeds": "Student's t over seeds, for new seeds on these test samples, {:g} % (in simulations of 5 and 10 seeds "
    "92 to 96 %)",
    "samples": "Student's t over test samples, for new test samples with these trained models, {:g} % (in simulations of "
    "200 test samples 94 to 96 %)",
    "both": "two-way t over seeds and test samples, for new seeds on new test samples, {:g} % (in simulations of 5 and 10 "
    "seeds and 200 test samples 95 to 96 %)",
}
"""Intervals by population, with their coverage as `benchmarks/coverage.py` measures it."""
TESTS: dict[Over, str] = {
    "seeds": "paired t test",
    "samples": "paired t test over test samples",
    "both": "two-way t test",
}


def make_footer(table: Comparison) -> list[str]:
    """Return the sentences; those about one study come once per study, with its name if there are several."""
    studies = list(dict.fromkeys(part.study for part in table.parts))
    lines = []
    for study in studies:
        own = _describe_study([part for part in table.parts if part.study == study])
        lines += [f"{study}: {line}" if len(studies) > 1 else line for line in own]
    lines += _describe_marks(table)
    split = table.request.published
    for number, origin in enumerate(list_origins(table), start=1):
        lines.append(
            f"[{number}] Published: {origin}; {split} split; another recipe and other seeds, in no statistic of this table."
        )
    # Else a table without published numbers would look as if none had been requested.
    if split is not None and not table.published:
        lines.append(f"Published numbers of the {split} split: none for these arms.")
    return lines


def _describe_study(parts: Sequence[ArmTable]) -> Iterator[str]:
    # The parts of a study differ in their metric alone.
    first = parts[0]
    yield f"Split: {first.split}. Selection {first.selection}: {first.description} (objective: {first.objective})."
    if first.region_note:
        yield first.region_note
    yield f"Seeds ({len(first.seeds)}): {_format_numbers(first.seeds) or 'none'}."
    yield from _describe_pairing(first)
    if first.sequential is not None:
        rule, arms = first.sequential
        yield f"Seeds were added until decided ({rule}): {'; '.join(f'{arm} {text}' for arm, text in arms.items())}."
        yield "The other p-values and verdicts of this table take no account of that."
    tried = []
    for row in first.rows:
        counts = [f"{n} {status}" for status, n in sorted(row.unfinished.items())]
        recorded = sum(row.tried.values()) + row.searched
        if row.planned is not None and recorded < row.planned:
            counts.append(f"{row.planned - recorded} not recorded")
        tried.append(f"{row.arm} {format_configurations(row)}" + (f" ({', '.join(counts)})" if counts else ""))
    yield f"Configurations tried per seed: {'; '.join(tried)}."
    # Each once, for a value may be missing in several tables; the seeds of one reason together.
    seeds: dict[tuple[str, str], dict[int, None]] = {}
    for each in (each for part in parts for row in part.rows for each in row.missing):
        seeds.setdefault((each.arm, each.reason), {})[each.seed] = None
    missing = [
        f"{arm} seed{'s' * (len(own) > 1)} {_format_numbers([*own])}: {reason}" for (arm, reason), own in seeds.items()
    ]
    yield f"Missing: {'; '.join(missing) or 'none'}."
    yield f"Data: {' '.join([first.data, *first.fingerprints]).strip() or 'unknown'}."
    yield from _describe_presets(first)
    # The correction counts them, so a reader must know of them.
    if hidden := [arm for arm in first.arms if arm not in {row.arm for row in first.rows}]:
        yield f"Arms not shown: {', '.join(hidden)}."
    if first.orphans:
        yield f"Left out: {first.orphans} recorded trials that the study no longer plans."


def _describe_presets(part: ArmTable) -> Iterator[str]:
    """Describe the presets of the shown arms, one sentence for each variant, with its arms if there are several."""
    used = {row.arm: part.presets[row.arm] for row in part.rows if row.arm in part.presets}
    variants = sorted({str(presets["variant"]) for presets in used.values()})
    for variant in variants:
        arms = [arm for arm, presets in used.items() if presets["variant"] == variant]
        names = []
        for kind in ("recipes", "methods"):
            if found := dict.fromkeys(name for arm in arms for name in used[arm][kind]):
                names.append(f"{kind} {', '.join(found)}")
        where = f" ({', '.join(arms)})" if len(variants) > 1 else ""
        yield f"Presets, {variant}{where}: {'; '.join(names)}; the settings of the study are over them."


def _describe_pairing(part: ArmTable) -> Iterator[str]:
    """Describe the seeds that the differences are computed from, the arms of equal seeds together."""
    arms: dict[tuple[int, ...], list[str]] = {}
    for row in part.rows:
        if row.arm != part.reference:
            # Over all regions, because a metric may be undefined in one of them alone.
            paired = {
                seed
                for cell in row.cells.values()
                if cell.difference
                for seed in cell.values.keys() - set(cell.difference.unpaired_seeds)
            }
            arms.setdefault(tuple(sorted(paired)), []).append(row.arm)
    if part.reference is None or not arms:
        return
    pairs = "; ".join(
        f"seeds {_format_numbers(seeds)} ({', '.join(names)})" if seeds else f"none ({', '.join(names)})"
        for seeds, names in arms.items()
    )
    yield (
        f"Pairing with {part.reference}: {pairs}. Correction: Holm's, over the arms of a column "
        f"(at most {len(part.arms) - 1}), shown or not."
    )


def _describe_marks(table: Comparison) -> Iterator[str]:
    """Describe ±, bold, intervals, stars, verdicts and margin."""
    spread, bold = SPREADS[table.request.spread], BOLD[table.request.bold]
    yield f"±: {spread.description}. Bold (in plain text *): {bold.description}."
    if not any(part.reference is not None and len(part.arms) > 1 for part in table.parts):
        return
    over = table.parts[0].over
    test = TESTS[over]
    yield (
        f"Intervals: {INTERVALS[over].format(100 * CONFIDENCE)}, of the mean difference, not corrected. "
        f"* on a difference: {test}, corrected p < {SIGNIFICANT}."
    )
    yield (
        f"Verdicts: helps, hurts: {test}, two-sided, corrected p < {ALPHA}; equivalent: within ± the margin by two "
        f"one-sided {test}s, Bonferroni-corrected over the same arms, p < {ALPHA}; else undecided, which is not "
        '"no effect". n: the pairs of the differences.'
    )
    if over == "seeds":
        yield (
            f"Margin: {table.parts[0].margin}. (+m): m more seeds distinguish a difference of the margin from none with "
            f"{100 * POWER:g} % power, at the observed spread; add them once."
        )
    else:
        yield f"Margin: {table.parts[0].margin}."


def _format_numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
