"""Split-conformal prediction intervals of any arm, from its stored predictions, without training.

An interval is `prediction ± q s`: q is a quantile of the scores `|label - prediction| / s` of the validation split, the
`ceil((n + 1) level)`-th smallest of n, so that at least `level` of new labels are within it if they are exchangeable with
the validation labels (Vovk et al. 2005; Lei et al., JASA 2018). Coverage and width are those of the test split, by the shot region of
the label. Kinds:

    one          s = 1, and one q for all samples: covers the rare labels less than the frequent ones
    by region    s = 1, and a q for each shot region of the *prediction*, which is known when an interval is needed
    scaled       s = the predicted deviation, of arms whose head predicts one (`dirtune.models.heads`), and one q

A region whose validation predictions are too few for the level, fewer than `level / (1 - level)`, has the q of all samples. The
epoch of a model is selected on the same validation split, so that its scores are slightly too small.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.metrics import REGIONS, SHOT_REGIONS
from dirtune.results.analysis.arms import ArmRuns, expand_patterns, read_study_runs
from dirtune.results.analysis.recompute import SamplePredictions, read_sample_predictions
from dirtune.results.analysis.selection import get_selection
from dirtune.results.records.studies import open_study, read_study

Array = NDArray[np.float64]

# A deviation of zero would make a score infinite.
_TINY = np.finfo(np.float64).tiny
COLUMNS = ("arm", "kind", "region", "coverage", "coverage_sd", "width", "width_sd", "seeds", "n", "note")


def compute_intervals(root: str | Path, study: str, *, level: float = 0.9, arms: Collection[str] = ()) -> pa.Table:
    """Return coverage and mean width of conformal intervals by arm, kind and region, mean and deviation over the seeds.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        level: share of the labels that the intervals are to cover.
        arms: names or patterns of arms; none means all.

    Raises:
        InputError: the level is not between 0 and 1, an arm is unknown, labels have several dimensions, or no predictions are
            stored.
    """
    if not 0 < level < 1:
        raise InputError(Fault(where="level", rule="must be between 0 and 1", got=level))
    storage = open_study(root, study)
    runs = read_study_runs(storage, read_study(storage), get_selection("best_val"))
    chosen = expand_patterns([*arms], [arm.arm for arm in runs.arms])
    rows: list[dict[str, Any]] = []
    for arm in (arm for arm in runs.arms if arm.arm in chosen):
        found: dict[tuple[str, str], list[tuple[float, float, int]]] = defaultdict(list)
        notes: dict[str, list[str]] = defaultdict(list)
        for trial, calibration, test in _read_splits(storage, arm):
            for kind, halves, note in _list_half_widths(calibration, test, trial, level):
                notes[kind] += [note] if note and note not in notes[kind] else []
                inside = np.abs(test.labels - test.predictions[trial]) <= halves
                for region in REGIONS:
                    members = test.regions[region]
                    n = int(np.count_nonzero(members))
                    if n:
                        values = float(inside[members].mean()), float(2 * halves[members].mean()), n
                        found[kind, region].append(values)
        for (kind, region), by_seed in found.items():
            coverage, width = (np.array([each[place] for each in by_seed]) for place in (0, 1))
            has_spread = len(by_seed) > 1
            rows.append(
                {
                    "arm": arm.arm,
                    "kind": kind,
                    "region": region,
                    "coverage": float(coverage.mean()),
                    "coverage_sd": float(coverage.std(ddof=1)) if has_spread else None,
                    "width": float(width.mean()),
                    "width_sd": float(width.std(ddof=1)) if has_spread else None,
                    "seeds": len(by_seed),
                    "n": by_seed[0][2],
                    "note": "; ".join(notes[kind]),
                }
            )
    if not rows:
        raise InputError(Fault(where=f"study {study}", rule="has no complete trial with stored predictions yet"))
    return pa.table({name: pa.array([row[name] for row in rows]) for name in COLUMNS})


def compute_coverages(
    root: str | Path, study: str, *, levels: Sequence[float], region: str, arms: Collection[str]
) -> dict[str, dict[float, list[float]]]:
    """Return the coverage of test labels of a region by arm and level, one for each seed.

    Intervals are `scaled` where an arm predicts deviations, else `one`; levels for which the validation samples are too few are
    left out.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        levels: shares of the labels that the intervals are to cover.
        region: shot region of the labels.
        arms: names of arms.

    Raises:
        InputError: labels have several dimensions, or no predictions are stored.
    """
    storage = open_study(root, study)
    runs = read_study_runs(storage, read_study(storage), get_selection("best_val"))
    found: dict[str, dict[float, list[float]]] = {}
    for arm in (arm for arm in runs.arms if arm.arm in arms):
        by_level: dict[float, list[float]] = defaultdict(list)
        for trial, calibration, test in _read_splits(storage, arm):
            members = test.regions[region]
            scores = {"val": np.abs(calibration.labels - calibration.predictions[trial])}
            scores["test"] = np.abs(test.labels - test.predictions[trial])
            if trial in calibration.deviations and trial in test.deviations:
                scores["val"] = scores["val"] / np.maximum(calibration.deviations[trial], _TINY)
                scores["test"] = scores["test"] / np.maximum(test.deviations[trial], _TINY)
            for level in levels:
                half = compute_quantile(scores["val"], level)
                if math.isfinite(half) and members.any():
                    by_level[level].append(float((scores["test"][members] <= half).mean()))
        found[arm.arm] = dict(by_level)
    return found


def _read_splits(storage: Storage, arm: ArmRuns) -> Iterator[tuple[str, SamplePredictions, SamplePredictions]]:
    """Yield each chosen trial of an arm that has predictions, with those of the validation and the test split."""
    for trial in (each.trial_id for each in arm.chosen.values()):
        if not storage.exists(f"results/predictions/{trial}.parquet"):
            continue
        calibration, test = (read_sample_predictions(storage, [trial], split=split) for split in ("val", "test"))
        if test.labels.ndim > 1:
            raise InputError(
                Fault(where=storage.path(), rule="has labels of several dimensions, which have no interval")
            )
        yield trial, calibration, test


def compute_quantile(scores: Array, level: float) -> float:
    """Return the conformal quantile of calibration scores: the `ceil((n + 1) level)`-th smallest; infinite if n is too small."""
    # Rounded first: a product such as 10 * 0.7 may exceed the whole number that it is by a rounding error.
    rank = math.ceil(round((len(scores) + 1) * level, 9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def _list_half_widths(
    calibration: SamplePredictions, test: SamplePredictions, trial: str, level: float
) -> Iterator[tuple[str, Array, str]]:
    """Yield each kind of interval with half its width for every test sample, and a note on its calibration."""
    scores = np.abs(calibration.labels - calibration.predictions[trial])
    overall = compute_quantile(scores, level)
    if not math.isfinite(overall):
        undefined = np.count_nonzero(~np.isfinite(scores))
        rule = f"has {len(scores)} validation samples, too few for intervals of level {level:g}"
        if undefined:
            rule = f"has {undefined} of {len(scores)} predictions that are no finite numbers, too many for intervals of level {level:g}"
        raise InputError(Fault(where="validation split", rule=rule))
    size = len(test.labels)
    yield "one", np.full(size, overall), ""
    predicted = {
        name: each.find_regions(each.predictions[trial]) for name, each in (("val", calibration), ("test", test))
    }
    halves, few = np.full(size, overall), []
    for region in SHOT_REGIONS:
        own = compute_quantile(scores[predicted["val"] == region], level)
        if math.isfinite(own):
            halves[predicted["test"] == region] = own
        elif (predicted["test"] == region).any():
            few.append(f"{np.count_nonzero(predicted['val'] == region)} validation predictions are {region}")
    yield "by region", halves, f"{'; '.join(few)}: the quantile of all samples" if few else ""
    if trial in calibration.deviations and trial in test.deviations:
        scaled = compute_quantile(scores / np.maximum(calibration.deviations[trial], _TINY), level)
        yield "scaled", scaled * test.deviations[trial], ""
