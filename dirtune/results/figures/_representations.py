"""Representations of one trial per arm, that of its first seed, with their labels; for `tsne`, `similarity`, `anchors`."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dirtune.errors import Fault, InputError
from dirtune.label_transform import make_training_spec, transform_labels
from dirtune.manifest import LabelSpec, LabelTransform
from dirtune.results.analysis.arms import ArmRuns, read_study_runs
from dirtune.results.analysis.recompute import read_stored_manifest
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.figures import _arms, _request
from dirtune.results.records import store, studies


@dataclass(frozen=True, kw_only=True)
class ArmVectors:
    """Recorded representations of one arm; one entry per sample, in the order of the record."""

    arm: str
    labels: NDArray[np.float64]
    """(n,), in the label's unit, or that of its bins' transform."""
    vectors: NDArray[np.float64]
    """(n, dim), L2-normalized."""


@dataclass(frozen=True, kw_only=True)
class StudyVectors:
    """Representations of the arms of a figure."""

    arms: tuple[ArmVectors, ...]
    reference: str | None
    label: LabelSpec
    caption: str
    """First sentences of the caption."""


def read_study_vectors(request: _request.PlotRequest, *, most: int) -> StudyVectors:
    """Read the representations of the selected arms.

    Args:
        request: of the figure.
        most: maximum number of arms.

    Raises:
        InputError: a name is unknown, labels have several dimensions, or no trial has recorded representations.
    """
    if (request.split, request.selection) != ("test", "best_val"):
        rule = "must be test and best_val: representations are recorded of these alone"
        got = f"{request.split} and {request.selection}"
        raise InputError(Fault(where="split and selection", rule=rule, got=got))
    storage = studies.open_study(request.root, request.study)
    info, label = studies.read_study(storage), read_stored_manifest(storage).label
    if len(label.axes) > 1:
        raise request.make_error("has labels of several dimensions, which this figure cannot order")
    # Distances of labels over orders of magnitude mean something in logarithms only.
    transform = label.transform
    if transform != "none":
        named = {"name": f"{transform}({label.name})", "unit": ""}
        label = make_training_spec(label, transform).model_copy(update=named)
    reference = request.reference or info.reference
    runs = read_study_runs(storage, info, SELECTIONS["best_val"])
    shown = _arms.select_arms(runs.arms, request.arms, reference=reference, most=most)
    chosen = [arm for name in shown.arms for arm in runs.arms if arm.arm == name and arm.chosen]
    # Filtered before conversion: representations are the largest table of a study.
    trials = pa.array([_get_first_trial(arm) for arm in chosen], pa.string())
    kept, known = (
        table.filter(pc.is_in(table["trial_id"], trials))
        for table in (
            store.read_table(storage, "representations"),
            store.read_table(storage, "predictions", columns=["split", "sample_id", "label"]),
        )
    )
    arms = [found for arm in chosen if (found := _join_labels(arm, kept, known, transform)) is not None]
    if not arms:
        rule = "has no recorded representations; `representations: 500` in the study file records them, from its first sweep on"
        raise request.make_error(rule)
    missing = sorted(set(shown.arms) - {arm.arm for arm in arms})
    without = f" Without representations: {', '.join(missing)}." if missing else ""
    return StudyVectors(
        arms=tuple(arms),
        reference=reference,
        label=label,
        caption=f"{request.study}, {len(arms[0].labels)} test samples, {SELECTIONS['best_val'].description}; "
        f"the trial of the first seed.{without}{shown.note}",
    )


def _get_first_trial(arm: ArmRuns) -> str:
    # The lowest seed, which arms of one study share: panels then differ by the arm and not by the seed.
    return arm.chosen[min(arm.chosen)].trial_id


def _join_labels(arm: ArmRuns, kept: pa.Table, known: pa.Table, transform: LabelTransform) -> ArmVectors | None:
    """Return the representations of an arm with the labels of its predictions, or None if it has none."""
    of_trial = pc.field("trial_id") == _get_first_trial(arm)
    own = kept.filter(of_trial)
    if not len(own):
        return None
    # Labels are recorded once, with the predictions.
    labels = known.filter(of_trial & (pc.field("split") == "test"))
    by_sample = dict(zip(labels["sample_id"].to_pylist(), labels["label"].to_pylist(), strict=True))
    return ArmVectors(
        arm=arm.arm,
        labels=transform_labels([by_sample[name] for name in own["sample_id"].to_pylist()], transform),
        vectors=np.array(own["vector"].to_pylist(), dtype=np.float64),
    )
