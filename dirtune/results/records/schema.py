"""Schema of the results tables: a public, versioned interface.

`trials` has one row per training run, `metrics` and `epochs` are long tables, `predictions` has the selected model's output
for every validation and test sample, so that any metric can be computed later. `representations` has z of some test
samples, if a study asks for it. The `config.*` columns of `trials` are the leaves of the trial's configuration, with their
types.

A label of several dimensions takes a row of `predictions` for each, so that `label` and `prediction` are numbers for every
data set, and an average over rows is an average over elements, as in the losses and metrics. With per-pixel labels, a row
has the means over an image's labeled pixels, because the pixels of a trial would be tens of millions of rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA_VERSION = 5
READABLE_VERSIONS = ("5",)
"""Earlier versions were never released."""
TABLES = ("metrics", "epochs", "predictions", "representations", "trials")
"""Names in the order in which a record is written: the file in `trials/` commits."""
Role = Literal["search", "evaluation", "floor"]
"""A `search` trial only helps to select a configuration; `evaluation` trials are the ones that tables compare. A `floor` is no
trial but a reference predictor, without a seed, and is recorded in a folder of its own (`names.FLOORS`).

Where a search does not confirm its selection, its trials are both, and are recorded as `evaluation`.
"""
Status = Literal["complete", "pruned", "failed"]
ErrorClass = Literal["out_of_memory", "nan", "infrastructure", "code"]

SCHEMAS = {
    "trials": pa.schema(
        {
            "study": pa.string(),
            "arm": pa.string(),
            # The arm's values on the axes, as JSON; "{}" for a named arm
            "cell": pa.string(),
            "trial_id": pa.string(),
            # Values of `Role`
            "role": pa.string(),
            # Index of the seed in the study's list; null for a trial whose role is "search"
            "replicate": pa.int64(),
            "seed": pa.int64(),
            # Values of `Status`
            "status": pa.string(),
            "error": pa.string(),
            # Values of `ErrorClass`; null unless the status is "failed"
            "error_class": pa.string(),
            # Loss term that was not finite
            "error_term": pa.string(),
            "error_epoch": pa.int64(),
            "epochs_planned": pa.int64(),
            "epochs_run": pa.int64(),
            # Epoch of the best validation objective, counted from 1
            "best_epoch": pa.int64(),
            # Validation objective at best_epoch
            "objective": pa.float64(),
            "seconds_train": pa.float64(),
            "seconds_eval": pa.float64(),
            # Time to wait for batches and to augment them
            "seconds_data": pa.float64(),
            # From the moment the worker was free for this trial to its record, less the three above
            "seconds_overhead": pa.float64(),
            # Training samples over seconds_train + seconds_data
            "samples_per_second": pa.float64(),
            # Device memory on CUDA, resident set size of the process on CPU
            "peak_memory_bytes": pa.int64(),
            # Total memory of the GPU; null on CPU
            "device_memory_bytes": pa.int64(),
            "device": pa.string(),
            # Arithmetic in which the GPU computed float32, such as "tf32 (convolutions)"; null on CPU
            "float32_arithmetic": pa.string(),
            # Where the training inputs were kept: "device" (decoded), "memory" of the host or "disk" (streamed from there)
            "data_placement": pa.string(),
            "workers": pa.int64(),
            # HOST/PID
            "worker": pa.string(),
            "sample_order_digest": pa.string(),
            "data": pa.string(),
            "data_fingerprint": pa.string(),
            # Number of the split of the data; 0 or null is the ingested one. Not `split`, a column of metrics and predictions.
            "data_split": pa.int64(),
            "code_version": pa.string(),
            # Fingerprints of the plug-ins that the trial uses, by name, as JSON; null if it uses none
            "plugins": pa.string(),
            "started_at": pa.timestamp("us", tz="UTC"),
            "finished_at": pa.timestamp("us", tz="UTC"),
        }
    ),
    "metrics": pa.schema(
        {
            "trial_id": pa.string(),
            # dirtune.results.records.names.EVALUATED_SPLITS
            "split": pa.string(),
            # dirtune.results.records.names.EVALUATED_EPOCHS
            "selection": pa.string(),
            # dirtune.metrics.REGIONS
            "region": pa.string(),
            "metric": pa.string(),
            # Null if the metric is undefined
            "value": pa.float64(),
            # Number of samples in the region
            "n": pa.int64(),
        }
    ),
    "epochs": pa.schema({"trial_id": pa.string(), "epoch": pa.int64(), "name": pa.string(), "value": pa.float64()}),
    "predictions": pa.schema(
        {
            "trial_id": pa.string(),
            "split": pa.string(),
            "sample_id": pa.string(),
            # Dimension of the label, from 0; null for labels of one dimension
            "component": pa.int8(),
            "label": pa.float64(),
            "prediction": pa.float64(),
            # Predicted standard deviation of the label; null without a head that predicts one
            "deviation": pa.float64(),
        }
    ),
    "representations": pa.schema(
        {
            "trial_id": pa.string(),
            "split": pa.string(),
            "sample_id": pa.string(),
            # z, L2-normalized, at the best epoch
            "vector": pa.list_(pa.float32()),
        }
    ),
}


REQUIRED_COLUMNS = {
    "trials": ("study", "arm", "trial_id", "role", "seed", "status"),
    "metrics": tuple(SCHEMAS["metrics"].names),
    "epochs": tuple(SCHEMAS["epochs"].names),
    "predictions": ("trial_id", "split", "sample_id", "label", "prediction"),
    "representations": tuple(SCHEMAS["representations"].names),
}
"""Columns without which the rows of a table say nothing; the others are null where a file lacks them."""


@dataclass(frozen=True, kw_only=True)
class SplitPredictions:
    """Predictions of the selected model for one split; all arrays have one entry per sample."""

    sample_ids: Sequence[str]
    labels: NDArray[np.float64]
    """(n,), or (n, L) for labels of L dimensions."""
    predictions: NDArray[np.float64]
    """Same shape as the labels."""
    deviations: NDArray[np.float64] | None = None
    """Predicted standard deviations of the labels, (n,); None if none were predicted."""


@dataclass(frozen=True, kw_only=True)
class SplitRepresentations:
    """Representations of some samples of one split by the selected model."""

    sample_ids: Sequence[str]
    vectors: NDArray[np.float32]
    """(n, dim), L2-normalized."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """Everything that is kept of one trial."""

    trial: Mapping[str, object]
    """Row of the table `trials`; missing columns become null."""
    config: Mapping[str, object]
    """Nested configuration; leaves become config.<dotted.path>."""
    metrics: Sequence[Mapping[str, object]] = ()
    """Rows of the table `metrics` without trial_id."""
    epochs: Sequence[Mapping[str, float]] = ()
    """One mapping name -> value per epoch, first epoch first."""
    predictions: Mapping[str, SplitPredictions] = field(default_factory=dict)
    """By split."""
    representations: Mapping[str, SplitRepresentations] = field(default_factory=dict)
    """By split."""

    @property
    def trial_id(self) -> str:
        return str(self.trial["trial_id"])
