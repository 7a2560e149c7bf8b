"""Soundness of the trials that a study compares: five rules over its records, each with its threshold.

A difference between two arms is evidence about the methods only if their trainings are any good. Of the trials that tables
compare (one model for every arm and seed):

1. *Converged*: the objective on validation data no longer falls. A trial is not converged if the best value of the last
   quarter of its epochs is better than the best before by more than `MIN_GAIN`, and the straight line through the last
   half of its epochs falls by more than that over a quarter, and by `MIN_TREND` of the slope's standard errors. The first
   alone happens to noise: of a flat curve, the best epoch is in the last quarter in one of four trials. `MIN_GAIN` is 1 %
   because the differences between methods are one to five percent: a training that would gain as much by a quarter more
   epochs ranks arms by their speed. Neither is a trial converged that creeps: every epoch of the last half
   (`MIN_CREEPING` or more) is better than the one before, and its last quarter has `MIN_CREEP` of all that was gained since
   the first epoch; a curve that settles has far less there. Of noise, five epochs are in that order once in 120 trials.
   Flat curves with normal noise of 2 % are called not converged in 5 % of trials with 4 epochs, 1 % with 10 and 0.3 % with
   40. Fewer than `MIN_EPOCHS` epochs (of the last stage) are not judged.
2. *Better than the floors*: the error of the chosen epoch on test data is smaller than that of each floor
   (`dirtune.training.floors`) in the same region. No threshold: the floor has no noise of its own. No better than the
   median means that nothing about the inputs was learned there.
3. *Gradient shares*: a weighted part of the loss has `MIN_SHARE` of the gradient at the start or at the end
   (`dirtune.training.gradient_shares`). Gradients of different batches differ by far more than 1 %: below that a term
   changes a training like another seed does, and a regression loss is not trained.
4. *Representation*: the test representations do not point in one direction. By Jensen's inequality and the chord of the
   exponential function over [0, 4], a uniformity u means a mean cosine between `1 - 2 (1 - e^u) / (1 - e^-8)` and
   `1 + u / 4`; u above `MAX_UNIFORMITY` = -0.02 is a mean cosine of at least 0.96. Trained networks are far from it: four
   arms on a table of 386 rows are at -0.2 to -1.9.
5. *Test samples*: a region has at least `MIN_SAMPLES` of them. The standard error of a mean absolute error is about
   0.75 / sqrt(n) of it (normal errors): 14 % with 30 samples, more than any method is worth.

Thresholds are conventions; the rules are for reading a result, and no p value depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dirtune.io.storage import Storage
from dirtune.metrics import HIGHER_IS_BETTER, REGIONS
from dirtune.recipe import EarlyStopping
from dirtune.results.analysis import arms, claims, floors
from dirtune.results.analysis.selection import get_selection, to_loss
from dirtune.results.analysis.sequential import plan_due_seeds
from dirtune.results.analysis.status import describe_failures
from dirtune.results.records import names, parquetfile, store, studies

MIN_GAIN = 0.01
MIN_TREND = 2.5
MIN_CREEP = 0.1
MIN_CREEPING = 5
MIN_EPOCHS = 4
MIN_SHARE = 0.01
MAX_UNIFORMITY = -0.02
MIN_SAMPLES = 30
MAX_JUDGED = 500
"""Trials whose epochs a table reads, at about a millisecond each; `dirtune check` reads all."""
REGRESSION = "regression"
"""The part of the loss that is no term."""
_STAGE_COLUMNS = (
    "config.scheme.name",
    "config.scheme.epochs",
    "config.scheme.first_objective.metric",
    "config.scheme.first_objective.region",
    "config.recipe.epochs",
    "config.recipe.early_stopping.patience",
    "config.recipe.early_stopping.rule",
)


@dataclass(frozen=True, kw_only=True)
class Unconverged:
    """Trials that a comparison should not rest on."""

    late: frozenset[str] = frozenset()
    """Not converged (rule 1)."""
    short: frozenset[str] = frozenset()
    """Of fewer than `MIN_EPOCHS` epochs, which nobody can judge."""


@dataclass(frozen=True, kw_only=True)
class ArmTrial:
    """A trial that tables compare."""

    trial_id: str
    arm: str
    epoch: str
    """The epoch that was chosen: best_val or last."""
    data_split: int = 0
    """Number of the split of the data."""


@dataclass(frozen=True, kw_only=True)
class TrialCurve:
    """Facts of a trial that its table `epochs` has."""

    is_converged: bool | None
    """None if it cannot be judged."""
    shares: Mapping[str, tuple[float, ...]]
    """Gradient shares by part, in the order of the epochs."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A fact that makes the trials of some arms no ground for a conclusion."""

    severity: int
    """1 is the most severe."""
    subject: str
    """The arms, or the data."""
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text} -> {self.advice}"


@store.read_once()
def check_study(root: str | Path, study: str) -> list[Finding]:
    """Return the findings of a study, the most severe first.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.

    Raises:
        InputError: there is no such study, or a file is damaged.
    """
    storage = studies.open_study(root, study)
    info, _ = plan_due_seeds(storage, studies.read_study(storage))
    runs = arms.read_study_runs(storage, info, get_selection("best_val"))
    claim = claims.make_claim(info, runs.metrics)
    trials = [
        ArmTrial(trial_id=chosen.trial_id, arm=arm.arm, epoch=chosen.epoch, data_split=info.get_data_split(seed))
        for arm in runs.arms
        for seed, chosen in arm.chosen.items()
    ]
    if not trials:
        # An empty list would look like trials without a fault.
        failures, advice = describe_failures(storage, study)
        text = "no complete trial is recorded" + (f", failed: {failures}" if failures else "")
        return [Finding(severity=1, subject="study", text=text, advice=advice)]
    curves = read_curves(storage, [trial.trial_id for trial in trials], info)
    found = [
        *_find_floors(storage, info, trials, runs, claim.metric),
        *_find_collapsed(trials, runs),
        *_find_unconverged(trials, curves),
        *_find_shares(trials, curves),
        *_find_small_regions(claims.count_samples(runs.metrics, metric=claim.metric, split="test"), claim.region),
    ]
    return sorted(found, key=lambda finding: finding.severity)


def judge_convergence(objectives: Sequence[float], *, maximize: bool) -> bool | None:
    """Return False if the validation objective still improves (rule 1); None if there are too few epochs to judge.

    Args:
        objectives: by epoch, of the last stage; undefined ones (NaN) are left out.
        maximize: True for correlations.
    """
    losses = np.array([-value if maximize else value for value in objectives if not math.isnan(value)])
    if len(losses) < MIN_EPOCHS:
        return None
    quarter = math.ceil(len(losses) / 4)
    before, after = losses[:-quarter].min(), losses[-quarter:].min()
    half = losses[-max(3, math.ceil(len(losses) / 2)) :]
    slope, error = _fit_slope(half)
    least = MIN_GAIN * abs(before)
    if before - after > least and -slope * quarter > least and -slope > MIN_TREND * error:
        return False
    is_creeping = len(half) >= MIN_CREEPING and bool((np.diff(half) < 0).all())
    return not (is_creeping and before - after >= MIN_CREEP * (losses[0] - after))


def _fit_slope(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the least-squares slope of values over their positions, and its standard error."""
    x = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float(x @ values / (x @ x))
    residuals = values - values.mean() - slope * x
    return slope, math.sqrt(float(residuals @ residuals) / (len(values) - 2) / float(x @ x))


def read_curves(storage: Storage, trial_ids: Collection[str], info: studies.StudyInfo) -> dict[str, TrialCurve]:
    """Return convergence and gradient shares of trials whose epochs are recorded.

    Raises:
        InputError: a file is damaged.
    """
    stages = {row["trial_id"]: row for row in store.read_table(storage, "trials", columns=_STAGE_COLUMNS).to_pylist()}
    files = [f"results/epochs/{trial}.parquet" for trial in dict.fromkeys(trial_ids)]
    found = {}
    for table in parquetfile.read_files(storage, files, ["trial_id", "epoch", "name", "value"]):
        objectives: dict[str, dict[int, float]] = {}
        shares: dict[str, dict[int, float]] = {}
        for row in table.to_pylist():
            value = math.nan if row["value"] is None else row["value"]
            if row["name"].startswith("val/"):
                objectives.setdefault(row["name"], {})[row["epoch"]] = value
            elif row["name"].startswith(names.GRADIENT):
                shares.setdefault(row["name"].removeprefix(names.GRADIENT), {})[row["epoch"]] = value
        trial_id = table["trial_id"][0].as_py()
        curves = {name: [each[epoch] for epoch in sorted(each)] for name, each in objectives.items()}
        in_order = curves.get(f"val/{info.region}/{info.metric}", [])
        # A second stage starts with a new predictor: the objectives before it are of another one.
        last_stage = _count_last_stage(stages.get(trial_id, {}), curves, info)
        found[trial_id] = TrialCurve(
            is_converged=judge_convergence(in_order[-last_stage:], maximize=info.metric in HIGHER_IS_BETTER),
            shares={part: tuple(each[epoch] for epoch in sorted(each)) for part, each in shares.items()},
        )
    return found


def _count_last_stage(
    settings: Mapping[str, Any], curves: Mapping[str, Sequence[float]], info: studies.StudyInfo
) -> int:
    """Return the number of epochs of a trial's last stage; 0 means that there is one stage.

    Args:
        settings: `_STAGE_COLUMNS` of the trial.
        curves: its validation metrics by name, in the order of the epochs.
        info: the study.
    """
    epochs: int = settings.get("config.scheme.epochs") or 0
    patience = settings.get("config.recipe.early_stopping.patience")
    # The first stage of `two_stage` has no objective, by which it could end early, and none that is recorded.
    if not patience or settings.get("config.scheme.name") != "rrt":
        return epochs
    # Both stages may have ended early: the first one where the rule says so of its own objective.
    metric = settings.get("config.scheme.first_objective.metric") or info.metric
    region = settings.get("config.scheme.first_objective.region") or info.region
    rule = EarlyStopping(patience=patience, rule=settings.get("config.recipe.early_stopping.rule") or "plateau")
    values, most = curves.get(f"val/{region}/{metric}", []), settings["config.recipe.epochs"]
    first = (n for n in range(1, most) if rule.is_over(values[:n], maximize=metric in HIGHER_IS_BETTER))
    return len(values) - next(first, most)


def find_unbeaten(
    value: float, split: str, region: str, metric: str, known: Iterable[floors.Floor]
) -> tuple[floors.Floor, ...]:
    """Return the floors than which a value is no better (rule 2)."""
    return tuple(
        floor for floor in known if is_no_better(value, floor.values.get((split, region, metric), math.nan), metric)
    )


def is_no_better(value: float, floor: float, metric: str) -> bool:
    """Return True if a value of a metric is no better than that of a floor; an undefined floor is none."""
    # A comparison with NaN is false.
    return to_loss(value, metric) >= to_loss(floor, metric)


def judge_trials(storage: Storage, trial_ids: Collection[str], info: studies.StudyInfo) -> Unconverged | None:
    """Return the trials that have not converged or cannot be judged (rule 1); None if there are too many for a table.

    Raises:
        InputError: a file is damaged.
    """
    wanted = set(trial_ids)
    rows = store.read_table(storage, "trials", columns=("epochs_run", "best_epoch")).to_pylist()
    # Records of another release may lack either
    rows = [row for row in rows if row["trial_id"] in wanted and row["best_epoch"] and row["epochs_run"]]
    # A trial whose best epoch is an earlier one is converged by the rule, and its epochs need not be read.
    late = [
        row["trial_id"]
        for row in rows
        if row["epochs_run"] >= MIN_EPOCHS and row["best_epoch"] > row["epochs_run"] - math.ceil(row["epochs_run"] / 4)
    ]
    if len(late) > MAX_JUDGED:
        return None
    states = {trial: curve.is_converged for trial, curve in read_curves(storage, late, info).items()}
    return Unconverged(
        late=frozenset(trial for trial, state in states.items() if state is False),
        short=frozenset(row["trial_id"] for row in rows if row["epochs_run"] < MIN_EPOCHS)
        | {trial for trial, state in states.items() if state is None},
    )


def get_least_cosine(uniformity: float) -> float:
    """Return a lower bound of the mean cosine of representations with that uniformity (rule 4)."""
    return 1 - 2 * (1 - math.exp(uniformity)) / (1 - math.exp(-8))


def _find_floors(
    storage: Storage, info: studies.StudyInfo, trials: Sequence[ArmTrial], runs: arms.StudyRuns, metric: str
) -> Iterator[Finding]:
    known = floors.read_floors(storage, info)
    if not known:
        yield Finding(
            severity=9,
            subject="study",
            text="no floors are recorded, so that no trial is compared with a prediction of the median",
            advice=f"dirtune resume {info.name} records them; recorded trials do not run again",
        )
        return
    rules = floors.find_shot_rules(storage, info)
    values = _read_values(runs, metric)
    # By floor and region, the trials that do not reach it, each with the level of the floor by the trial's shot rule. A
    # trial is listed under the floor that is the least to beat.
    unbeaten: dict[str, dict[str, list[tuple[ArmTrial, float]]]] = {}
    for region in REGIONS:
        for trial in trials:
            own = [
                floor
                for floor in known
                if (floor.shot_rule, floor.data_split) == (rules.get(trial.arm), trial.data_split)
            ]
            value = values.get((trial.trial_id, trial.epoch, region), math.nan)
            for floor in find_unbeaten(value, "test", region, metric, own)[:1]:
                level = floor.values["test", region, metric]
                unbeaten.setdefault(floor.name, {}).setdefault(region, []).append((trial, level))
    found = [(name, group) for name in floors.FLOORS for group in _group_by_regions(unbeaten.get(name, {}))]
    for floor_name, by_region in found:
        worse = list(dict.fromkeys(trial for pairs in by_region.values() for trial, _ in pairs))
        levels = []
        for region, pairs in by_region.items():
            by_arm: dict[str, list[float]] = {}
            for trial, _ in pairs:
                by_arm.setdefault(trial.arm, []).append(values[trial.trial_id, trial.epoch, region])
            means = sorted(float(np.mean(own)) for own in by_arm.values())
            shown = f"{means[0]:.4g}" if len(means) == 1 else f"{means[0]:.4g} to {means[-1]:.4g}"
            levels.append(f"{region} ({shown} against {np.mean([level for _, level in pairs]):.4g})")
        is_constant = floor_name in names.CONSTANT_FLOORS
        if not is_constant:
            severity, advice = (
                6,
                "more epochs or a better recipe: an effect on a weak model may not be one on a good model",
            )
        elif "all" in by_region:
            severity, advice = 1, "nothing was learned: model.label_scale and label_offset: auto, more epochs"
        else:
            severity, advice = 4, "no conclusion about these regions: more epochs, or another method there"
        text = (
            f"no better than {'the training ' * is_constant}{floor_name} on test data, {metric} in {', '.join(levels)}"
        )
        yield Finding(severity=severity, subject=describe_arms(worse, trials), text=text, advice=advice)


def _group_by_regions(
    unbeaten: Mapping[str, Sequence[tuple[ArmTrial, float]]],
) -> list[dict[str, list[tuple[ArmTrial, float]]]]:
    """Return the trials of a floor by region, apart for arms that fail in other regions, most regions first."""
    regions: dict[str, list[str]] = {}
    for region, pairs in unbeaten.items():
        for arm in dict.fromkeys(trial.arm for trial, _ in pairs):
            regions.setdefault(arm, []).append(region)
    groups = sorted({tuple(own) for own in regions.values()}, key=lambda own: (-len(own), own))
    return [
        {region: [pair for pair in unbeaten[region] if tuple(regions[pair[0].arm]) == group] for region in group}
        for group in groups
    ]


def _find_collapsed(trials: Sequence[ArmTrial], runs: arms.StudyRuns) -> Iterator[Finding]:
    rows = arms.filter_rows(runs.metrics, metric="uniformity", split="test", selection="best_val")
    by_trial = dict(zip(rows["trial_id"].to_pylist(), rows["value"].to_pylist(), strict=True))
    found = {trial: by_trial[trial.trial_id] for trial in trials if by_trial.get(trial.trial_id) is not None}
    collapsed = [trial for trial, value in found.items() if value > MAX_UNIFORMITY]
    if collapsed:
        least = min(get_least_cosine(found[trial]) for trial in collapsed)
        yield Finding(
            severity=2,
            subject=describe_arms(collapsed, trials),
            text=f"test representations point in one direction (mean cosine at least {least:.2f})",
            advice="lower the learning rate or the terms' weights; a projection (model.projection_dim) separates better",
        )


def _find_unconverged(trials: Sequence[ArmTrial], curves: Mapping[str, TrialCurve]) -> Iterator[Finding]:
    states = {trial: curves[trial.trial_id].is_converged for trial in trials if trial.trial_id in curves}
    if late := [trial for trial, state in states.items() if state is False]:
        yield Finding(
            severity=3,
            subject=describe_arms(late, trials),
            text="not converged: the validation objective still improves at the end",
            advice="more recipe.epochs; else arms are ranked by their speed",
        )
    if unknown := [trial for trial, state in states.items() if state is None]:
        yield Finding(
            severity=8,
            subject=describe_arms(unknown, trials),
            text=f"fewer than {MIN_EPOCHS} epochs with a validation objective: convergence cannot be judged",
            advice="more recipe.epochs",
        )


def _find_shares(trials: Sequence[ArmTrial], curves: Mapping[str, TrialCurve]) -> Iterator[Finding]:
    by_part: dict[str, list[ArmTrial]] = {}
    largest: dict[str, float] = {}
    for trial in trials:
        for part, shares in (curves[trial.trial_id].shares if trial.trial_id in curves else {}).items():
            # A term may fade or grow in the course of a training; the loss that is evaluated has to be trained at its end.
            relevant = shares[-1:] if part == REGRESSION else shares
            # A share of exactly zero is a part whose weight is zero.
            if any(relevant) and max(relevant) < MIN_SHARE:
                by_part.setdefault(part, []).append(trial)
                largest[part] = max(largest.get(part, 0.0), *relevant)
    for part, found in by_part.items():
        if part == REGRESSION:
            text = (
                f"the regression loss has {largest[part]:.2%} of the gradient at the end: predictions are not trained"
            )
            advice = "lower the terms' weights, or model.label_scale: auto"
        else:
            text = f"{part} has at most {largest[part]:.2%} of the gradient: the arm is the same without it"
            advice = (
                f"raise its weight, or model.label_scale: auto; `dirtune list terms {part}` has the published settings"
            )
        yield Finding(
            severity=5 if part == REGRESSION else 7, subject=describe_arms(found, trials), text=text, advice=advice
        )


def _find_small_regions(samples: Mapping[str, int], claimed: str) -> Iterator[Finding]:
    # An empty region is no ground for anything, and needs no warning unless the claim is about it.
    small = {region: n for region, n in samples.items() if n < MIN_SAMPLES and (n or region == claimed)}
    if small:
        yield Finding(
            severity=5 if claimed in small else 8,
            subject="data",
            text=f"fewer than {MIN_SAMPLES} test samples: "
            + ", ".join(f"{n} in {region}" for region, n in small.items()),
            advice="no conclusion about them: other limits (--shots), wider bins, or a larger test split",
        )


def describe_arms(found: Sequence[ArmTrial], trials: Sequence[ArmTrial]) -> str:
    """Return the arms of some trials, with the number of these trials among those of the same arms."""
    own = list(dict.fromkeys(trial.arm for trial in found))
    return f"{', '.join(own)} ({len(found)} of {sum(trial.arm in own for trial in trials)} trials)"


def _read_values(runs: arms.StudyRuns, metric: str) -> dict[tuple[str, str, str], float]:
    """Return a metric on test data by trial, epoch and region, where it is defined."""
    rows = arms.filter_rows(runs.metrics, metric=metric, split="test")
    columns: list[list[Any]] = [rows[name].to_pylist() for name in ("trial_id", "selection", "region", "value")]
    return {
        (trial, epoch, region): value for trial, epoch, region, value in zip(*columns, strict=True) if value is not None
    }
