"""Evaluation of a trial's model: metrics and predictions of a split, diagnostics of representations, and the final record.

At the end of a trial the last and the best epoch are evaluated on validation and test data; predictions and
representations are those of the best. Representations of the test split are recorded for a subset of its samples, evenly
spread over the label bins, the same in every trial.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dirtune.data.cache import Split
from dirtune.diagnostics import EmbeddedSamples, compute_representation_metrics
from dirtune.label_transform import transform_labels
from dirtune.metrics import RegionMetric
from dirtune.results.records import names, schema
from dirtune.training.state import Training, load_best_weights
from dirtune.training.task import Evaluation

MAX_DIAGNOSED = 5000
REPRESENTED_SPLIT = "test"


@dataclass(frozen=True, kw_only=True)
class FinalEvaluation:
    """The fields of a `TrialRecord` that only a completed trial has."""

    metrics: list[dict[str, Any]]
    predictions: Mapping[str, schema.SplitPredictions]
    representations: Mapping[str, schema.SplitRepresentations]


def evaluate(training: Training, split: str) -> Evaluation:
    """Return the current model's predictions for a split, and all metrics in all shot regions."""
    return training.task.evaluate(training.model, training.data.splits[split], training.ranks, training.regions)


def predict(training: Training, split: str) -> np.typing.NDArray[np.float64]:
    """Return predictions for every row of a split, in the label's unit; shape `(rows,)` or `(rows, L)`."""
    return training.task.predict(training.model, training.data.splits[split], training.ranks)


def represent(training: Training, split: str) -> np.typing.NDArray[np.float32]:
    """Return the representations z for every row of a split; shape `(rows, dim)`."""
    representations = training.task.collect_outputs(
        training.model, training.data.splits[split], training.ranks, lambda output: output.representations
    )
    return representations.float().cpu().numpy()


def evaluate_representations(training: Training, split: str) -> list[RegionMetric]:
    """Return the diagnostics of the current model's representations of a split, of the region "all".

    They compare all pairs, so of a large split only every k-th row enters, at most `MAX_DIAGNOSED`; the column `n` has
    their number.
    """
    rows = training.data.splits[split]
    # Every k-th row in the order of sample ids, the same ones in every trial and epoch
    kept = slice(None, None, math.ceil(len(rows) / MAX_DIAGNOSED))
    return compute_representation_metrics(
        EmbeddedSamples(
            representations=represent(training, split)[kept],
            labels=transform_labels(rows.exact_labels[kept], training.config.model.label_transform),
            bins=rows.label_bins.cpu().numpy()[kept],
            label_range=training.label_spec.label_range,
        )
    )


def evaluate_last_and_best(training: Training, *, representations: int = 0) -> FinalEvaluation:
    """Evaluate a finished run; its model then has the weights of the best epoch.

    Args:
        training: the run, after its last epoch.
        representations: number of test samples whose representation is recorded; with per-pixel labels none is.
    """
    metrics, predictions = [], {}
    for selection in ("last", "best_val"):
        # The last epoch is evaluated first: loading the best weights replaces its own.
        if selection == "best_val":
            load_best_weights(training)
        for split in names.EVALUATED_SPLITS:
            found = evaluate(training, split)
            keys = {"split": split, "selection": selection}
            metrics += [{**keys, **row} for row in found.metrics]
            if selection == "best_val":
                rows = training.data.splits[split]
                predictions[split] = schema.SplitPredictions(
                    sample_ids=rows.sample_ids,
                    labels=rows.exact_labels,
                    predictions=found.predictions,
                    deviations=found.deviations,
                )
    keys = {"split": REPRESENTED_SPLIT, "selection": "best_val"}
    metrics += [{**keys, **row} for row in evaluate_representations(training, REPRESENTED_SPLIT)]
    recorded = {}
    if representations and training.task.has_representations:
        rows = training.data.splits[REPRESENTED_SPLIT]
        chosen = select_evenly_over_labels(rows, representations)
        recorded[REPRESENTED_SPLIT] = schema.SplitRepresentations(
            sample_ids=[rows.sample_ids[row] for row in chosen.tolist()],
            vectors=represent(training, REPRESENTED_SPLIT)[chosen],
        )
    return FinalEvaluation(metrics=metrics, predictions=predictions, representations=recorded)


def select_evenly_over_labels(rows: Split, count: int) -> np.typing.NDArray[np.int64]:
    """Select at most `count` positions of a split, ascending: every k-th row in the order of label bins."""
    # Stable, so that ties are in the order of sample ids on every machine.
    by_label = np.argsort(rows.label_bins.cpu().numpy(), kind="stable")
    places = np.linspace(0, len(by_label) - 1, min(count, len(by_label))).round().astype(np.int64)
    return np.sort(by_label[places])
