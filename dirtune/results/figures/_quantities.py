"""Quantities of `pareto`: a metric in a shot region, its value for every evaluated model, and the front of two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dirtune.io.storage import Storage
from dirtune.metrics import HIGHER_IS_BETTER, REGIONS
from dirtune.results.analysis import arms
from dirtune.results.records import names, store, studies
from dirtune.results.tables.render.cells import format_metric

Model = tuple[str, str]
"""Trial id, and the epoch at which the trial was evaluated."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A metric in a shot region."""

    region: str
    metric: str

    @property
    def sign(self) -> int:
        """-1 if larger is better, else 1."""
        return -1 if self.metric in HIGHER_IS_BETTER else 1

    def format_label(self, unit: str) -> str:
        return f"{format_metric(self.metric, unit)}, {self.region}"


def parse_quantity(text: str, metric: str, runs: arms.StudyRuns) -> Quantity:
    """Parse a quantity such as `few` or `few/gmean`.

    Args:
        text: a region, or a region and a metric.
        metric: default, if the text has none.
        runs: of the study, for its metrics.

    Raises:
        InputError: the region or the metric is unknown.
    """
    region, _, own = text.partition("/")
    names.check_known("region", region, REGIONS)
    return Quantity(region=region, metric=arms.check_metric(runs.metrics, own or metric))


def select_chosen_models(runs: arms.StudyRuns) -> dict[str, list[Model]]:
    """Return the selected models of every arm, one per seed."""
    return {arm.arm: [(chosen.trial_id, chosen.epoch) for chosen in arm.chosen.values()] for arm in runs.arms}


def select_complete_models(storage: Storage, info: studies.StudyInfo, selection: str) -> dict[str, list[Model]]:
    """Return all complete trials of every arm, including its search, at the epoch of the selection.

    Args:
        storage: folder of the study.
        info: of the study.
        selection: best_val, last, or oracle, for which the best validation epoch is used.
    """
    # The oracle selects configurations by test error; within a trial it uses the best validation epoch.
    epoch = selection if selection in names.EVALUATED_EPOCHS else names.EVALUATED_EPOCHS[0]
    trials = arms.to_trial_rows(store.read_table(storage, "trials", columns=arms.TRIAL_COLUMNS))
    searches = arms.list_search_trials(trials, info)
    return {
        arm: [(row.trial_id, epoch) for row in (*rows, *searches[arm]) if row.status == "complete"]
        for arm, rows in arms.list_arm_trials(trials, info).items()
    }


def make_pairs(
    models: Sequence[Model], x: Mapping[Model, float], y: Mapping[Model, float]
) -> list[tuple[float, float]]:
    """Return both values of the models that have both."""
    return [(x[model], y[model]) for model in models if model in x and model in y]


def get_quantity(quantity: Quantity, runs: arms.StudyRuns, split: str) -> dict[Model, float]:
    """Return the defined values of a quantity by model."""
    return {
        (trial_id, epoch): value
        for epoch in names.EVALUATED_EPOCHS
        for trial_id, value in arms.get_values_by_trial(
            runs.metrics, metric=quantity.metric, region=quantity.region, split=split, selection=epoch
        ).items()
        if value is not None
    }


def find_pareto_front(x: Sequence[float], y: Sequence[float]) -> list[bool]:
    """Return True for each point on the front: no other is smaller or equal in both losses and smaller in one.

    Equal points are on it together. NaN compares with nothing, so leave such points out before.

    Args:
        x: losses, smaller being better.
        y: other losses, in the same order.
    """
    xs, ys = np.asarray(x), np.asarray(y)
    # All pairs at once, rows against columns: a figure has hundreds of points, too few for a sort to be worth its code.
    as_good = (xs[:, None] <= xs) & (ys[:, None] <= ys)
    better = (xs[:, None] < xs) | (ys[:, None] < ys)
    return [not beating.any() for beating in (as_good & better).T]
