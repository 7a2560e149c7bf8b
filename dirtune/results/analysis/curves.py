"""Data of one figure: a metric against a setting that was swept, one line per arm.

Axes make an arm of each of their values; here, arms that differ in nothing but the setting on the x axis are one line.
Where the other settings of a line are fixed, its points are joined through their means over seeds; where a search has
varied them too, they are left as a cloud. The best point is the one that validation data would choose, whatever split
is shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from dirtune.errors import Fault, InputError
from dirtune.metrics import REGIONS
from dirtune.results.analysis.arms import check_metric, get_values_by_trial, list_arm_trials, to_trial_rows
from dirtune.results.analysis.selection import to_loss
from dirtune.results.records import names, store, studies

PREFIX, SEED = "config.", "config.seed"
LOG_FROM_RATIO = 20.0
"""A positive setting that spans more than this factor gets a logarithmic axis."""


@dataclass(frozen=True, kw_only=True)
class CurveLine:
    """One arm, or the arms that differ only in the setting on the x axis; trials sorted by x and seed."""

    label: str
    x: tuple[float, ...]
    """By trial."""
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    levels: tuple[float, ...]
    """The distinct x."""
    means: tuple[float, ...]
    """Mean value at each level."""
    best: int | None
    """Position of the level that validation data would choose."""
    joined: bool
    """True if nothing but the setting and the seed varies."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Everything that the figure shows."""

    study: str
    x: str
    """Dotted path of the setting."""
    logarithmic: bool
    metric: str
    unit: str
    region: str
    split: str
    epoch: str
    lines: tuple[CurveLine, ...]
    reference: tuple[str, float] | None
    """An arm without the setting, and its mean over seeds."""
    left_out: Mapping[str, int]
    """Trials that have the setting and no value, by reason."""


def read_curve(
    root: str | Path,
    study: str,
    x: str,
    *,
    metric: str | None = None,
    region: str = "all",
    split: str = "test",
    epoch: str = "best_val",
) -> Curve:
    """Return a metric of every complete trial against one of its settings.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        x: the setting, `terms.conr.omega` or `config.terms.conr.omega`.
        metric: None means the metric of the study's objective.
        region: all, many, medium or few.
        split: test or val.
        epoch: best_val or last.

    Raises:
        InputError: a name is unknown, no trial has the setting as a number, or a file is damaged.
    """
    names.check_known("region", region, REGIONS)
    names.check_known("split", split, names.EVALUATED_SPLITS)
    names.check_known("selection", epoch, names.EVALUATED_EPOCHS)
    setting = x.removeprefix(PREFIX)
    storage = studies.open_study(root, study)
    info = studies.read_study(storage)
    metrics = store.read_table(storage, "metrics")
    metric = check_metric(metrics, metric or info.metric)
    values = get_values_by_trial(metrics, metric=metric, region=region, split=split, selection=epoch)
    trials = _load_lines(store.read_table(storage, "trials"), info, setting)
    trials["value"] = trials["trial_id"].map(values).astype(float)
    objectives = trials["objective"]
    # The trials table has the objective of the best epoch only; that of the last is one of the metrics.
    if epoch != "best_val":
        last = get_values_by_trial(metrics, metric=info.metric, region=info.region, split="val", selection=epoch)
        objectives = trials["trial_id"].map(last)
    trials["loss"] = objectives.map(lambda value: to_loss(value, info.metric)).astype(float)
    swept = trials[trials["x"].notna()]
    shown = swept[(swept["status"] == "complete") & swept["value"].notna()]
    xs = shown["x"]
    # An arm without the setting is drawn as a line where it has one trial per seed; else there is nothing to average.
    rows = trials[(trials["arm"] == info.reference) & (trials["status"] == "complete")]
    is_line = len(rows) and not rows["x"].notna().any() and not rows["seed"].duplicated().any()
    # Counted by reason, so that the caption accounts for every trial with the setting.
    reasons = swept["status"].where(swept["status"] != "complete", "undefined")
    has_no_value = (swept["status"] != "complete") | swept["value"].isna()
    return Curve(
        study=study,
        x=setting,
        logarithmic=bool(len(xs) and xs.min() > 0 and xs.max() / xs.min() >= LOG_FROM_RATIO),
        metric=metric,
        unit=info.unit,
        region=region,
        split=split,
        epoch=epoch,
        lines=tuple(_make_line(str(label), rows, setting) for label, rows in shown.groupby("line", sort=False)),
        reference=(str(info.reference), float(rows["value"].mean())) if is_line else None,
        left_out={str(reason): int(n) for reason, n in reasons[has_no_value].value_counts().items()},
    )


def _load_lines(table: pa.Table, info: studies.StudyInfo, setting: str) -> pd.DataFrame:
    """Return the trials of the study's arms in their order, with their `x` and the `line` they belong to."""
    by_arm = list_arm_trials(to_trial_rows(table), info)
    arms = {row.trial_id: arm for arm, rows in by_arm.items() for row in rows}
    frame: pd.DataFrame = table.to_pandas().set_index("trial_id", drop=False)
    frame = frame.loc[list(arms)].assign(arm=list(arms.values()))
    known = [
        name.removeprefix(PREFIX)
        for name in frame.select_dtypes("number").columns
        if name.startswith(PREFIX) and name != SEED and frame[name].notna().any()
    ]
    if setting not in known:
        rule = "must be a setting that is a number in some trial"
        raise InputError(Fault(where="x", rule=rule, got=setting, known=known))
    lines = [_get_label(arm, cell, setting) for arm, cell in zip(frame["arm"], frame["cell"], strict=True)]
    return frame.assign(x=frame[PREFIX + setting].astype(float), line=lines)


def _get_label(arm: str, cell: str | None, setting: str) -> str:
    """Return the arm's name without its value on the axis that is swept."""
    values = json.loads(cell or "{}")
    if setting not in values:
        return arm
    # As a study writes the value of an axis into the name of an arm.
    level = f"{setting.rsplit('.', 1)[-1]}={json.dumps(values[setting])}"
    return " ".join(arm.replace(level, "").split())


def _make_line(label: str, trials: pd.DataFrame, setting: str) -> CurveLine:
    trials = trials.sort_values(["x", "seed"])
    levels = trials.groupby("x")[["value", "loss"]].mean()
    # One line is drawn through means only where they are means over seeds alone.
    others = [name for name in trials.columns if name.startswith(PREFIX) and name not in (SEED, PREFIX + setting)]
    return CurveLine(
        label=label,
        x=tuple(trials["x"]),
        values=tuple(trials["value"]),
        seeds=tuple(trials["seed"]),
        levels=tuple(levels.index),
        means=tuple(levels["value"]),
        best=int(levels["loss"].argmin()) if levels["loss"].notna().any() else None,
        # A null counts as a value: a trial without a term differs from one that has it.
        joined=all(trials[name].nunique(dropna=False) <= 1 for name in others),
    )
