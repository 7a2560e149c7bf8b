"""Metrics from the stored predictions, without training: another metric, bin width or shot rule, errors per label bin.

A sweep stores what its selected models said about every sample of the validation and test splits. What a shot region is
depends on the training labels too, which no record has: they come from the manifest of the data set, a copy of which a
sweep keeps in its study's folder, or which the caller gives. With nothing changed, the results are the stored metrics
to the last bit, because they are made by the same functions from the same numbers.

One trial is one file, read by itself, so that memory does not grow with the study.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, Manifest, ShotRule
from dirtune.metrics import METRICS, metric_values
from dirtune.results.analysis.binning import Binning, binning_of, check_lists
from dirtune.results.records.schema import REGIONS
from dirtune.results.records.store import by_sample, read_table, scan_predictions
from dirtune.results.records.studies import open_study
from dirtune.results.tables.table import SPLITS, check_known
from dirtune.reweighting.density import label_bins, shot_regions

RULE_COLUMN = "config.data.shot_rule"


class RegionValue(NamedTuple):
    """A metric of one region."""

    value: float
    """NaN where undefined."""
    n: int
    """Samples."""


@dataclass(frozen=True, kw_only=True)
class BinErrors:
    """How wrong a trial is about the labels of one bin; error is prediction minus label."""

    low: float
    """In the label's unit."""
    high: float
    train: int
    """Training samples."""
    n: int
    """Samples of the split."""
    signed: float
    """Mean error: the bias; NaN without samples."""
    absolute: float
    """Mean absolute error."""


@dataclass(frozen=True)
class _Predicted:
    trial_id: str
    labels: NDArray[np.float64]
    predictions: NDArray[np.float64]


def recompute(
    root: str | Path,
    study: str,
    *,
    metric: str,
    split: str = "test",
    rule: ShotRule | None = None,
    bin_width: float | None = None,
    trials: Collection[str] | None = None,
    manifest: Manifest | None = None,
    train_labels: ArrayLike | None = None,
) -> dict[str, dict[str, RegionValue]]:
    """A metric by trial and region, from the predictions at the best validation epoch.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        metric: of `dirtune.metrics.METRICS`, or of the data set's own.
        split: test or val.
        rule: which bins are many, medium and few; none: each trial's own.
        bin_width: of the label bins, in the label's unit; none: the data set's.
        trials: only these; none: all that have predictions.
        manifest: of the data set; none: the copy in the study's folder.
        train_labels: needed for a bin width that is no multiple of the data set's.

    Raises:
        InputError: a name is unknown, there is no manifest or it is of other data, or the bins cannot be counted.
    """
    storage, manifest = _opened(root, study, split, manifest)
    check_known("metric", metric, (*METRICS, *manifest.metrics))
    binning = binning_of(manifest, bin_width, train_labels)
    rules = _rules(storage, manifest) if rule is None else dict.fromkeys(_fingerprints(storage), rule)
    check_lists(rules.values(), bin_width, manifest.label.bin_width)
    regions = {each: shot_regions(binning.train_counts, each) for each in set(rules.values())}
    return {
        found.trial_id: _by_region(metric, found, regions[rules[found.trial_id]], binning)
        for found in _predictions(root, study, split, trials)
    }


def errors_by_bin(
    root: str | Path,
    study: str,
    *,
    split: str = "test",
    bin_width: float | None = None,
    trials: Collection[str] | None = None,
    manifest: Manifest | None = None,
    train_labels: ArrayLike | None = None,
) -> dict[str, list[BinErrors]]:
    """Mean signed and absolute error per label bin, by trial; the arguments and errors are those of `recompute`.

    A negative signed error on rare large labels, and a positive one on rare small ones, is the pull towards the labels
    that are frequent.
    """
    _, manifest = _opened(root, study, split, manifest)
    if manifest.label.components:
        raise InputError(Fault(where=f"study {study}", rule="has labels of several dimensions"))
    binning = binning_of(manifest, bin_width, train_labels)
    return {found.trial_id: _bin_errors(found, binning) for found in _predictions(root, study, split, trials)}


def _opened(root: str | Path, study: str, split: str, manifest: Manifest | None) -> tuple[Storage, Manifest]:
    check_known("split", split, SPLITS)
    storage = open_study(root, study)
    manifest = manifest or own_manifest(storage)
    if manifest.label.map is not None:
        rule = "has labels of pixels, and of those only the means of each image are stored"
        raise InputError(Fault(where=f"study {study}", rule=rule, got=manifest.name))
    strangers = {print_ for print_ in _fingerprints(storage).values() if print_} - {manifest.fingerprint}
    if strangers:
        rule = f"has trials on other data than {manifest.name} {manifest.fingerprint}"
        raise InputError(Fault(where=f"study {study}", rule=rule, got=sorted(strangers)))
    return storage, manifest


def own_manifest(storage: Storage) -> Manifest:
    """The copy of the data set's manifest that a sweep keeps in its study's folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    where = storage.path(MANIFEST)
    if not storage.exists(MANIFEST):
        rule = "is not there; give the manifest of the data set"
        raise InputError(Fault(where=where, rule=rule))
    try:
        raw = json.loads(storage.read(MANIFEST))
    except ValueError as error:
        raise InputError(Fault(where=where, rule=f"not readable as JSON ({error})")) from None
    return read(Manifest, raw, where=where)


def _fingerprints(storage: Storage) -> dict[str, str | None]:
    rows = read_table(storage, "trials", columns=["data_fingerprint"])
    return dict(zip(rows["trial_id"].to_pylist(), rows["data_fingerprint"].to_pylist(), strict=True))


def _rules(storage: Storage, manifest: Manifest) -> dict[str, ShotRule]:
    """Each trial's own shot rule."""
    rows = read_table(storage, "trials", columns=[RULE_COLUMN])
    names = rows[RULE_COLUMN].to_pylist() if RULE_COLUMN in rows.column_names else [None] * len(rows)
    ids, default = rows["trial_id"].to_pylist(), manifest.default_shot_rule
    for name in {name or default for name in names}:
        check_known("shot rule", name, tuple(manifest.shot_rules))
    return {trial: manifest.shot_rules[name or default] for trial, name in zip(ids, names, strict=True)}


def _predictions(root: str | Path, study: str, split: str, trials: Collection[str] | None) -> Iterator[_Predicted]:
    """The predictions of one trial after the other."""
    dataset = scan_predictions(root, studies=[study])
    for fragment in dataset.get_fragments():
        trial_id = Path(fragment.path).stem
        if trials is not None and trial_id not in trials:
            continue
        rows: pa.Table = fragment.to_table(
            schema=dataset.schema, columns=["component", "label", "prediction"], filter=pc.field("split") == split
        )
        if rows.num_rows:
            yield _Predicted(trial_id, *by_sample(rows))


def _by_region(metric: str, found: _Predicted, regions: NDArray[np.str_], binning: Binning) -> dict[str, RegionValue]:
    bins = label_bins(found.labels, binning.label)
    own = regions[bins]
    chosen = {region: own == region for region in REGIONS} | {"all": np.full(len(bins), True)}
    return {
        region: RegionValue(
            metric_values([metric], found.labels[rows], found.predictions[rows], bins[rows])[metric],
            int(np.count_nonzero(rows)),
        )
        for region, rows in chosen.items()
    }


def _bin_errors(found: _Predicted, binning: Binning) -> list[BinErrors]:
    label, size = binning.label, binning.label.num_bins
    bins, errors = label_bins(found.labels, label), found.predictions - found.labels
    counts = np.bincount(bins, minlength=size)
    with np.errstate(invalid="ignore"):
        signed = np.bincount(bins, errors, size) / counts
        absolute = np.bincount(bins, np.abs(errors), size) / counts
    return [
        BinErrors(
            low=label.low + position * label.bin_width,
            high=label.low + (position + 1) * label.bin_width,
            train=int(binning.train_counts[position]),
            n=int(counts[position]),
            signed=float(signed[position]),
            absolute=float(absolute[position]),
        )
        for position in range(size)
    ]
