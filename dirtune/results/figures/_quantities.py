"""The numbers behind a figure with two of them: which are meant, which trials have them, and what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dirtune.io.storage import Storage
from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.analysis.arms import (
    TRIAL_COLUMNS,
    StudyRuns,
    known_metric,
    members_of_arms,
    searches_of_arms,
    trial_rows,
    values_by_trial,
)
from dirtune.results.analysis.selection import EPOCHS
from dirtune.results.records.schema import REGIONS
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import StudyInfo
from dirtune.results.tables.render.formats import metric_label
from dirtune.results.tables.table import check_known

# A trial and the epoch at which it was evaluated
Model = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A metric in a shot region."""

    region: str
    metric: str

    @property
    def sign(self) -> int:
        """-1 where larger is better."""
        return -1 if self.metric in HIGHER_IS_BETTER else 1

    def label(self, unit: str) -> str:
        return f"{metric_label(self.metric, unit)}, {self.region}"


def quantity_named(text: str, metric: str, runs: StudyRuns) -> Quantity:
    """The quantity that `few` or `few/gmean` stands for.

    Args:
        text: a region, or a region and a metric.
        metric: where the text names none.
        runs: of the study, for the metrics that there are.

    Raises:
        InputError: the region or the metric is unknown.
    """
    region, _, own = text.partition("/")
    check_known("region", region, REGIONS)
    return Quantity(region=region, metric=known_metric(runs.metrics, own or metric))


def chosen_models(runs: StudyRuns) -> dict[str, list[Model]]:
    """Of every arm, what stands for it: one model per seed."""
    return {arm.arm: [(chosen.trial_id, chosen.epoch) for chosen in arm.chosen.values()] for arm in runs.arms}


def complete_models(storage: Storage, info: StudyInfo, selection: str) -> dict[str, list[Model]]:
    """Of every arm, all complete trials, those of its search too, at the epoch that the selection looks at; oracle: at the best validation epoch."""
    epoch = selection if selection in EPOCHS else EPOCHS[0]
    trials = trial_rows(read_table(storage, "trials", columns=TRIAL_COLUMNS))
    searches = searches_of_arms(trials, info)
    return {
        arm: [(row.trial_id, epoch) for row in (*rows, *searches[arm]) if row.status == "complete"]
        for arm, rows in members_of_arms(trials, info).items()
    }


def pairs_of(models: Sequence[Model], x: Mapping[Model, float], y: Mapping[Model, float]) -> list[tuple[float, float]]:
    """Both numbers of the models that have both."""
    return [(x[model], y[model]) for model in models if model in x and model in y]


def values_of(quantity: Quantity, runs: StudyRuns, split: str) -> dict[Model, float]:
    """A quantity by model, without what is undefined."""
    return {
        (trial_id, epoch): value
        for epoch in EPOCHS
        for trial_id, value in values_by_trial(
            runs.metrics, metric=quantity.metric, region=quantity.region, split=split, selection=epoch
        ).items()
        if value is not None
    }
