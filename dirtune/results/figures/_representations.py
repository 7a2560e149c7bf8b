"""What the figures of representations are made from: one trial per arm, the one of its first seed, with its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec
from dirtune.results.analysis.arms import ArmRuns, study_runs
from dirtune.results.analysis.recompute import own_manifest
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.figures._arms import shown_arms
from dirtune.results.figures._request import PlotRequest
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import open_study, read_study


@dataclass(frozen=True, kw_only=True)
class ArmVectors:
    """The kept representations of one arm; arrays have one entry per sample, in the order of the record."""

    arm: str
    labels: NDArray[np.float64]
    """In the label's unit."""
    vectors: NDArray[np.float64]
    """(n, dim), L2-normalised."""


@dataclass(frozen=True, kw_only=True)
class StudyVectors:
    """The arms of a figure."""

    arms: tuple[ArmVectors, ...]
    reference: str | None
    label: LabelSpec
    caption: str
    """Its first sentences: what is shown, and which arms are not."""


def study_vectors(request: PlotRequest, *, most: int) -> StudyVectors:
    """The representations of as many arms as there is room for.

    Raises:
        InputError: a name is unknown, labels have several dimensions, or no trial has kept representations.
    """
    _check_kept(request)
    storage = open_study(request.root, request.study)
    info, label = read_study(storage), own_manifest(storage).label
    if len(label.axes) > 1:
        raise request.nothing("has labels of several dimensions, which this figure cannot order")
    reference = request.reference or info.reference
    runs = study_runs(storage, info, SELECTIONS["best_val"])
    shown = shown_arms(runs.arms, request.arms, reference=reference, most=most)
    chosen = [arm for name in shown.arms for arm in runs.arms if arm.arm == name and arm.chosen]
    trials = pa.array([_first(arm) for arm in chosen], pa.string())
    kept, known = (
        table.filter(pc.is_in(table["trial_id"], trials))
        for table in (
            read_table(storage, "representations"),
            read_table(storage, "predictions", columns=["split", "sample_id", "label"]),
        )
    )
    arms = [found for arm in chosen if (found := _vectors(arm, kept, known)) is not None]
    if not arms:
        rule = "keeps no representations: a study file that says `representations: 500` does, from its first sweep on"
        raise request.nothing(rule)
    missing = sorted(set(shown.arms) - {arm.arm for arm in arms})
    without = f" Without representations: {', '.join(missing)}." if missing else ""
    return StudyVectors(
        arms=tuple(arms),
        reference=reference,
        label=label,
        caption=f"{request.study}, {len(arms[0].labels)} test samples, {SELECTIONS['best_val'].description}; "
        f"the trial of the first seed.{without}{shown.note}",
    )


def _check_kept(request: PlotRequest) -> None:
    if (request.split, request.selection) != ("test", "best_val"):
        rule = "must be test and best_val: representations are kept of these alone"
        got = f"{request.split} and {request.selection}"
        raise InputError(Fault(where="split and selection", rule=rule, got=got))


def _first(arm: ArmRuns) -> str:
    return arm.chosen[min(arm.chosen)].trial_id


def _vectors(arm: ArmRuns, kept: pa.Table, known: pa.Table) -> ArmVectors | None:
    of_trial = pc.field("trial_id") == _first(arm)
    own = kept.filter(of_trial)
    if not len(own):
        return None
    labels = known.filter(of_trial & (pc.field("split") == "test"))
    by_sample = dict(zip(labels["sample_id"].to_pylist(), labels["label"].to_pylist(), strict=True))
    return ArmVectors(
        arm=arm.arm,
        labels=np.array([by_sample[name] for name in own["sample_id"].to_pylist()]),
        vectors=np.array(own["vector"].to_pylist(), dtype=np.float64),
    )
