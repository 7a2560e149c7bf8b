"""Claim of a study: the one column of its table that words are about, fixed before the results are seen.

A table has four regions and any number of metrics; with a word in every cell, one table in six of equal arms would have a
false one. So a word is only in the claim's column: `claim` of the study file, or the objective's metric in the region few,
if this has enough test samples, else in all. What a reader asks for instead is allowed, and is marked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dirtune.results.analysis.arms import filter_rows
from dirtune.results.records.studies import StudyInfo
from dirtune.results.statistics.margin import Margin

MIN_FEW_SAMPLES = 100
"""Test samples of the region few from which it is the default claim."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A column of a study's table."""

    metric: str
    region: str
    margin: Margin | None
    """The largest difference that counts as none; None means that no difference is called the same."""
    chosen_after: tuple[str, ...] = ()
    """What was chosen after the study, as text; empty for the claim of the study."""

    def describe(self) -> str:
        """Return a sentence on the claim, with what was chosen after the study."""
        margin = "no margin" if self.margin is None else f"margin {self.margin}"
        after = f"; chosen after the study: {', '.join(self.chosen_after)}" if self.chosen_after else ""
        return f"Claim: {self.metric} in region {self.region}, {margin}{after}."


def make_claim(info: StudyInfo, metrics: pa.Table) -> Claim:
    """Return the claim of a study.

    Args:
        info: the study.
        metrics: its table `metrics`, with the column `n`.

    Raises:
        InputError: the margin in `study.json` is unreadable.
    """
    # Seeds are added by looks at one column, which is then the claim also in a study that names none.
    declared = {**info.sequential, **{name: value for name, value in info.claim.items() if value is not None}}
    metric, margin = declared.get("metric") or info.metric, declared.get("margin")
    few = count_samples(metrics, metric=metric, split="test").get("few", 0)
    return Claim(
        metric=metric,
        region=declared.get("region") or ("few" if few >= MIN_FEW_SAMPLES else "all"),
        margin=None if margin is None else Margin.parse(str(margin), metric=metric),
        chosen_after=("the claim in the study file",) if declared.get("is_changed") else (),
    )


def choose_column(
    claim: Claim,
    *,
    metrics: Sequence[str],
    regions: Sequence[str],
    margin: str | None,
    others: Mapping[str, str | None],
) -> Claim:
    """Return the column that the words of a table are about: the claim's if it is shown, else the first one.

    Args:
        claim: of the study.
        metrics: the metrics shown.
        regions: the regions shown.
        margin: the margin that was asked for; None means the claim's.
        others: what else was asked for other than the study has it, by name; None means as in the study.

    Raises:
        InputError: the margin is unreadable.
    """
    metric = claim.metric if claim.metric in metrics else metrics[0]
    region = claim.region if claim.region in regions else regions[0]
    # A margin in the claim's unit says nothing about another metric.
    own = claim.margin if metric == claim.metric else None
    given = None if margin is None else Margin.parse(margin, metric=metric)
    asked = {
        "metric": None if metric == claim.metric else metric,
        "region": None if region == claim.region else region,
        "margin": given.text if given is not None and given != own else None,
        **others,
    }
    return Claim(
        metric=metric,
        region=region,
        margin=own if given is None else given,
        chosen_after=(*claim.chosen_after, *(f"{name} {value}" for name, value in asked.items() if value is not None)),
    )


def count_samples(metrics: pa.Table, *, metric: str, split: str) -> dict[str, int]:
    """Return the number of samples of a split by region, as the first trial recorded it."""
    rows = filter_rows(filter_rows(metrics, metric=metric), split=split)
    if not len(rows):
        return {}
    first = filter_rows(rows, trial_id=rows["trial_id"][0].as_py())
    return dict(zip(first["region"].to_pylist(), first["n"].to_pylist(), strict=True))
