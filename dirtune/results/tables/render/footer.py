"""Footer of a table: everything that a reader must know to believe it, one sentence per line."""

import math
from collections.abc import Iterator, Sequence

from dirtune.randomness import SEEDS_PER_REPETITION, get_repetition
from dirtune.results.statistics.paired import CONFIDENCE
from dirtune.results.statistics.power import ALPHA
from dirtune.results.statistics.verdict import MIN_PAIRS
from dirtune.results.tables.comparison import Comparison
from dirtune.results.tables.marks import BOLD, SPREADS
from dirtune.results.tables.render.grids import CHOSEN_AFTER, format_configurations, has_words, list_origins
from dirtune.results.tables.table import ArmTable


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
    yield f"{_describe_seeds(first)}{_describe_pairing(first)}."
    if first.has_costs:
        yield (
            f"cost: training time per sample as a multiple of that of {first.reference}, medians over seeds; with equal batch sizes "
            "the ratio of the times per step. Without the wait for data, evaluation and overhead."
        )
    if first.is_at_equal_time:
        yield (
            "Equal time: the best epoch within the training time of the shortest training of its seed. A training that is cut "
            "there has not had the end of its learning-rate schedule."
        )
    if first.sequential is not None:
        states = "; ".join(f"{arm} {text}" for arm, text in first.sequential.describe_states().items())
        yield f"Seeds were added until a comparison was settled over the seeds ({first.sequential}): {states}."
        if any(cell.is_early for part in parts for row in part.rows for cell in row.cells.values()):
            yield (
                "early: the arm's seeds ended before the last look, because its difference was large; on average such a "
                "difference is larger than the true one."
            )
    tried = []
    for row in first.rows:
        counts = [f"{n} {status}" for status, n in sorted(row.unfinished.items())]
        recorded = sum(row.tried.values()) + row.search_trials
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
    by_region = ", ".join(f"{region} {count}" for region, count in first.samples.items())
    grouped = f"; those of one {first.group} count together" if first.group else ""
    sizes = f"; {first.split} samples: {by_region}{grouped}" if by_region else ""
    yield f"Data: {' '.join([first.data, *first.fingerprints]).strip() or 'unknown'}{sizes}."
    yield from _describe_presets(first)
    yield from _describe_floors(parts)
    if first.reference is not None and len(first.arms) > 1:
        yield from _describe_claim(parts)
    # The correction counts them, so a reader must know of them.
    if hidden := [arm for arm in first.arms if arm not in {row.arm for row in first.rows}]:
        yield f"Arms not shown: {', '.join(hidden)}."
    if first.orphans:
        yield f"Left out: {first.orphans} recorded trials that the study no longer plans."


def _describe_seeds(part: ArmTable) -> str:
    """Describe the seeds, and the splits or searches that each have their own."""
    if part.repetition is None:
        return f"Seeds ({len(part.seeds)}): {_format_numbers(part.seeds) or 'none'}"
    own = [seed for seed in part.seeds if get_repetition(seed) == 0]
    count = len({get_repetition(seed) for seed in part.seeds})
    kind = "of the data, the first as ingested" if part.repetition == "splits" else "of each arm"
    return (
        f"{part.repetition.capitalize()} ({count}) {kind}, each with seeds {_format_numbers(own)} (plus "
        f"{SEEDS_PER_REPETITION:,} per further one)"
    )


def _describe_floors(parts: Sequence[ArmTable]) -> Iterator[str]:
    """Describe the floors, and the arms whose trainings are not sound."""
    first = parts[0]
    if first.floors:
        rows = ", ".join(f"{count:,}" for count in sorted({floor.rows for floor in first.floors}))
        yield (
            "Floors: predictions without a training run: median or mean of the training labels, ridge or boosting of the "
            f"inputs (w: weighted by the inverse root of a label's frequency); training samples used: {rows}."
        )
    yield from dict.fromkeys(caution for part in parts for caution in part.cautions)


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


def _describe_pairing(part: ArmTable) -> str:
    """Describe the seeds that the differences are computed from, the arms of equal seeds together; empty without any."""
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
        return ""
    if [*arms] == [tuple(sorted(part.seeds))]:
        return f", in all arms paired with {part.reference}"
    pairs = "; ".join(
        f"seeds {_format_numbers(seeds)} ({', '.join(names)})" if seeds else f"none ({', '.join(names)})"
        for seeds, names in arms.items()
    )
    return f"; paired with {part.reference}: {pairs}"


def _describe_claim(parts: Sequence[ArmTable]) -> Iterator[str]:
    """Describe the column with words, and the arms that have none."""
    claim = parts[0].claim
    # It may be of a metric that is not shown.
    judged = [part for part in parts if part.metric == claim.metric] or list(parts)
    yield claim.describe()
    reasons: dict[str, list[str]] = {}
    for row in judged[0].rows:
        cell = row.cells.get(claim.region)
        if cell is not None and cell.no_word:
            reasons.setdefault(cell.no_word, []).append(row.arm)
    if reasons:
        unit = judged[0].repetition or "seeds"
        texts = "; ".join(f"{', '.join(arms)}: {reason}" for reason, arms in reasons.items())
        yield f"No word: {texts}. A word needs {MIN_PAIRS} pairs of {unit}, better 5 or more, and stored predictions."
    if reason := judged[0].no_predictions:
        yield f"Intervals are over the seeds alone, for these test samples: {reason}."


def _describe_marks(table: Comparison) -> Iterator[str]:
    """Describe ±, bold, words and intervals."""
    spread, bold = SPREADS[table.request.spread], BOLD[table.request.bold]
    yield f"±: {spread.description}. Bold (in plain text *): {bold.description}."
    compared = [part for part in table.parts if part.reference is not None and len(part.arms) > 1]
    if not compared:
        return
    judged = [part for part in compared if any(has_words(part, region) for region in part.regions)]
    if judged:
        arms = max(len(part.arms) - 1 for part in judged)
        over = "the arm alone" if arms == 1 else f"at most {arms} arms, shown or not"
        reference = ", ".join(dict.fromkeys(str(part.reference) for part in judged))
        yield (
            f"Words: helps, hurts: the change holds {_describe_tests(judged[0])}, p < {ALPHA}, corrected by Holm over {over}). same: shown to be smaller than the claim's margin. "
            'open: neither is shown, which is not "no effect"; in brackets what limits it. '
            f"If no arm differed from {reference}, about 1 study in 20 would still have a false helps or hurts."
        )
        if any(part.claim.chosen_after for part in judged):
            yield (
                f"{CHOSEN_AFTER.removeprefix(', ').capitalize()}: a word that was looked for among several is false more "
                "often than that."
            )
    unit, is_split = compared[0].repetition or "seeds", compared[0].repetition == "splits"
    kind = (
        "corrected for common samples"
        if is_split
        else f"the larger of two, over {unit} and over {unit} and test samples"
    )
    yield (
        f"Intervals: {100 * CONFIDENCE:g} % t intervals, one by one ({kind}): of 20, one misses by chance. Columns without a word "
        "are for orientation, not for claims."
    )
    searched = any(part.is_searched_once for part in compared)
    missing = ["another data set"] if is_split else ["another split of the data", "another data set"]
    yield (
        f"Not covered: {', '.join(missing)}"
        + (", a second search. One search each: arms that are alike may still be told apart." if searched else ".")
    )


def _describe_tests(part: ArmTable) -> str:
    """Describe the tests behind a word, up to their level."""
    if part.repetition == "splits":
        shares = [share for share in part.overlap.values() if not math.isnan(share)]
        common = f", of which two have up to {100 * max(shares):.0f} % in common" if shares else ""
        return f"over the splits and their test samples{common} (corrected resampled t test"
    return f"over the {part.repetition or 'seeds'} and over the test samples (both tests"


def _format_numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
