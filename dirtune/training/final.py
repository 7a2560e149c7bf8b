"""What is found out about a trial at its end: metrics, predictions and, if asked for, representations.

The last and the best epoch are evaluated on validation and test data; predictions and representations are those of the
best. Of a test split only some samples' representations are kept, evenly over its label bins, the same in every trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dirtune.data.cache import Split
from dirtune.results.records.schema import SplitPredictions, SplitRepresentations
from dirtune.training.loop import assess, evaluate_representations, represent
from dirtune.training.state import Training, use_best_weights

EVALUATED_SPLITS = ("val", "test")
REPRESENTED = "test"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The fields of a `TrialRecord` that a whole trial has."""

    metrics: list[dict[str, Any]]
    predictions: Mapping[str, SplitPredictions]
    representations: Mapping[str, SplitRepresentations]


def final_evaluation(training: Training, *, representations: int = 0) -> Findings:
    """Evaluate a finished run; its model then has the weights of the best epoch.

    Args:
        representations: test samples whose representation is kept; of labels that are maps, none is.
    """
    metrics, predictions = [], {}
    for selection in ("last", "best_val"):
        if selection == "best_val":
            use_best_weights(training)
        for split in EVALUATED_SPLITS:
            values, rows_of_metrics = assess(training, split)
            keys = {"split": split, "selection": selection}
            metrics += [{**keys, **row} for row in rows_of_metrics]
            if selection == "best_val":
                rows = training.data.splits[split]
                predictions[split] = SplitPredictions(
                    sample_ids=rows.sample_ids, labels=rows.exact_labels, predictions=values
                )
    keys = {"split": REPRESENTED, "selection": "best_val"}
    metrics += [{**keys, **row} for row in evaluate_representations(training, REPRESENTED)]
    is_map = training.data.manifest.label.map is not None
    kept = {} if is_map or not representations else {REPRESENTED: _kept(training, representations)}
    return Findings(metrics=metrics, predictions=predictions, representations=kept)


def _kept(training: Training, count: int) -> SplitRepresentations:
    rows = training.data.splits[REPRESENTED]
    chosen = spread_over_labels(rows, count)
    return SplitRepresentations(
        sample_ids=[rows.sample_ids[row] for row in chosen.tolist()], vectors=represent(training, REPRESENTED)[chosen]
    )


def spread_over_labels(rows: Split, count: int) -> NDArray[np.int64]:
    """At most `count` positions, in ascending order: every k-th row of the split when it is sorted by label bin."""
    by_label = np.argsort(rows.label_bins.cpu().numpy(), kind="stable")
    places = np.linspace(0, len(by_label) - 1, min(count, len(by_label))).round().astype(np.int64)
    return np.sort(by_label[places])
