"""The results tables: a public, versioned interface.

`trials` has one row per training run, `metrics` and `epochs` are long tables, `predictions` keeps what the selected
model said about every validation and test sample, so that any metric can be computed later. `representations` holds z of
some test samples, where a study asks for it. The `config.*` columns of `trials` are the leaves of the trial's
configuration, typed as they are.

A label of several dimensions takes a row of `predictions` for each, so that `label` and `prediction` are numbers for every
data set, and an average over rows is one over elements, as the losses and metrics are. Of labels that are maps, a row
holds the means over an image's labelled pixels, because the pixels of a trial would be tens of millions of rows.

Version 2 has `component` in `predictions`. It is null for labels of one dimension, the only ones of version 1, so that files
of version 1, which lack the column, read as what they are. Version 3 has `error_class` in `trials`. It is null where a trial
has not failed, and in files of older versions, of which every failed trial had a loss that was not finite. Version 4 has
`accumulation_used`, which is null in older files: their trials ran with the micro-batches of their configuration; and
`device_memory_bytes`, null there, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA_VERSION = 4
READABLE_VERSIONS = ("1", "2", "3", "4")
TABLES = ("metrics", "epochs", "predictions", "representations", "trials")
"""Written in this order: trials/ commits."""
REGIONS = ("all", "many", "medium", "few")
Status = Literal["complete", "pruned", "failed"]
ErrorClass = Literal["out_of_memory", "nan", "infrastructure", "code"]
# Replicate of the trials of a search whose selection is trained on the study's seeds
TUNING = -1

TRIALS = pa.schema(
    {
        "study": pa.string(),
        "arm": pa.string(),
        # The arm's values on the axes, as JSON; "{}" for a named arm
        "cell": pa.string(),
        "trial_id": pa.string(),
        # Position of the seed in the study's list, or TUNING
        "replicate": pa.int64(),
        "seed": pa.int64(),
        # Complete, pruned, failed
        "status": pa.string(),
        "error": pa.string(),
        # Of a failed trial: out_of_memory, nan, infrastructure, code
        "error_class": pa.string(),
        # The loss term that was not finite
        "error_term": pa.string(),
        "error_epoch": pa.int64(),
        # Micro-batches of a batch; more than planned after running out of memory
        "accumulation_used": pa.int64(),
        "epochs_planned": pa.int64(),
        "epochs_run": pa.int64(),
        # Smallest validation objective, counted from 1
        "best_epoch": pa.int64(),
        # Validation objective at best_epoch
        "objective": pa.float64(),
        "seconds_train": pa.float64(),
        "seconds_eval": pa.float64(),
        # Waiting for and augmenting batches
        "seconds_data": pa.float64(),
        # From the worker being free for this trial to its record, less the above
        "seconds_overhead": pa.float64(),
        # Training samples over seconds_train + seconds_data
        "samples_per_second": pa.float64(),
        # Device memory on CUDA, resident set of the process on CPU
        "peak_memory_bytes": pa.int64(),
        # All that a GPU has; null on CPU
        "device_memory_bytes": pa.int64(),
        "device": pa.string(),
        "workers": pa.int64(),
        # Host and process that ran it
        "worker": pa.string(),
        "sample_order_digest": pa.string(),
        "data": pa.string(),
        "data_fingerprint": pa.string(),
        "code_version": pa.string(),
        "started_at": pa.timestamp("us", tz="UTC"),
        "finished_at": pa.timestamp("us", tz="UTC"),
    }
)

METRICS = pa.schema(
    {
        "trial_id": pa.string(),
        # Val, test
        "split": pa.string(),
        # Best_val, last
        "selection": pa.string(),
        # All, many, medium, few
        "region": pa.string(),
        "metric": pa.string(),
        # Null where the metric is undefined
        "value": pa.float64(),
        # Samples in the region
        "n": pa.int64(),
    }
)

EPOCHS = pa.schema({"trial_id": pa.string(), "epoch": pa.int64(), "name": pa.string(), "value": pa.float64()})

PREDICTIONS = pa.schema(
    {
        "trial_id": pa.string(),
        "split": pa.string(),
        "sample_id": pa.string(),
        # Dimension of the label, from 0; null for labels of one dimension
        "component": pa.int8(),
        "label": pa.float64(),
        "prediction": pa.float64(),
    }
)

REPRESENTATIONS = pa.schema(
    {
        "trial_id": pa.string(),
        "split": pa.string(),
        "sample_id": pa.string(),
        # Z, L2-normalised, at the best epoch
        "vector": pa.list_(pa.float32()),
    }
)

SCHEMAS = {
    "trials": TRIALS,
    "metrics": METRICS,
    "epochs": EPOCHS,
    "predictions": PREDICTIONS,
    "representations": REPRESENTATIONS,
}


@dataclass(frozen=True, kw_only=True)
class SplitPredictions:
    """What the selected model said about one split; all arrays have one entry per sample."""

    sample_ids: Sequence[str]
    labels: NDArray[np.float64]
    """(n,), or (n, L) for labels of L dimensions."""
    predictions: NDArray[np.float64]
    """Of the labels' shape."""


@dataclass(frozen=True, kw_only=True)
class SplitRepresentations:
    """Where the selected model puts some samples of one split."""

    sample_ids: Sequence[str]
    vectors: NDArray[np.float32]
    """(n, dim), L2-normalised."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """Everything that is kept of one trial."""

    trial: Mapping[str, object]
    """Columns of TRIALS that are known; absent ones become null."""
    config: Mapping[str, object]
    """Nested configuration; leaves become config.<dotted.path>."""
    metrics: Sequence[Mapping[str, object]] = ()
    """Rows of METRICS without trial_id."""
    epochs: Sequence[Mapping[str, float]] = ()
    """One mapping name -> value per epoch, first epoch first."""
    predictions: Mapping[str, SplitPredictions] = field(default_factory=dict)
    """By split."""
    representations: Mapping[str, SplitRepresentations] = field(default_factory=dict)
    """By split."""

    @property
    def trial_id(self) -> str:
        return str(self.trial["trial_id"])
