"""Metrics from the stored predictions, without training: another metric, bin width or shot rule, errors by bin or sample.

A sweep stores the predictions of its selected models for every sample of the validation and test splits. Shot regions
depend on the training labels too, which no record has: they come from the manifest of the data set, a copy of which a
sweep keeps in its study's folder, or which the caller gives. With nothing changed, the results are the stored metrics
to the last bit, because they are made by the same functions from the same numbers.

One trial is one file, read by itself, so that memory does not grow with the study (except for `read_sample_predictions`).
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.label_transform import compute_bin_edges
from dirtune.manifest import MANIFEST, LabelSpec, Manifest, ShotRule
from dirtune.metrics import METRICS, REGIONS, compute_metrics
from dirtune.results.analysis.arms import filter_rows
from dirtune.results.analysis.binning import check_bin_lists, make_binning
from dirtune.results.records import parquetfile, store, studies
from dirtune.results.records.names import EVALUATED_SPLITS, GROUPS, check_known
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
    """Errors of a trial on the labels of one bin; error is prediction minus label."""

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


@dataclass(frozen=True, kw_only=True)
class SamplePredictions:
    """Predictions of several trials for the same samples, in one order."""

    sample_ids: Sequence[str]
    predictions: Mapping[str, NDArray[np.float64]]
    """By trial, of the labels' shape, in their unit; only trials whose predictions are stored."""
    labels: NDArray[np.float64]
    """Shape `(samples,)`, or `(samples, L)` for labels of L dimensions."""
    bins: NDArray[np.int64]
    """Label bin of each sample, shape `(samples,)`."""
    regions: Mapping[str, NDArray[np.bool_]]
    """Membership of the samples, shape `(samples,)`, by region."""
    groups: NDArray[np.int64] | None
    """Number of each sample's group, shape `(samples,)`; None if the data set has no groups."""
    group: str = ""
    """What a group is, such as "person"; empty without groups."""
    deviations: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Predicted standard deviations, shape `(samples,)`, of the trials whose head predicts them."""
    label: LabelSpec | None = None
    """Label with the bins of `bins`."""
    regions_by_bin: NDArray[np.str_] | None = None
    """Shot region of each label bin."""

    def find_regions(self, labels: ArrayLike) -> NDArray[np.str_]:
        """Return the shot region of other labels, such as predictions, of one dimension."""
        assert self.label is not None, "these are the predictions of a study"
        assert self.regions_by_bin is not None, "these are the predictions of a study"
        return self.regions_by_bin[label_bins(labels, self.label)]


@dataclass(frozen=True)
class _TrialPredictions:
    trial_id: str
    sample_ids: list[str]
    labels: NDArray[np.float64]
    predictions: NDArray[np.float64]
    deviations: NDArray[np.float64] | None = None


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
    """Compute a metric by trial and region, from the predictions at the best validation epoch.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        metric: a name of `dirtune.metrics.METRICS`, or one of the data set's own.
        split: test or val.
        rule: which bins are many, medium and few; None means each trial's own.
        bin_width: of the label bins, in the label's unit; None means the data set's.
        trials: only these; None means all that have predictions.
        manifest: of the data set; None means the copy in the study's folder.
        train_labels: needed for a bin width that is no multiple of the data set's.

    Raises:
        InputError: a name is unknown, there is no manifest or it is of other data, or the bins cannot be counted.
    """
    storage, manifest = _open_study(root, study, split, manifest)
    check_known("metric", metric, (*METRICS, *manifest.metrics))
    binning = make_binning(manifest, bin_width, train_labels)
    rules = _read_rules(storage, manifest) if rule is None else dict.fromkeys(_read_fingerprints(storage), rule)
    check_bin_lists(rules.values(), bin_width, manifest.label.bin_width)
    # Once per rule, of which a study has few, and not once per trial.
    by_bin = {each: shot_regions(binning.train_counts, each) for each in set(rules.values())}
    values: dict[str, dict[str, RegionValue]] = {}
    for found in _read_predictions(root, study, split, trials):
        bins = label_bins(found.labels, binning.label)
        values[found.trial_id] = {
            region: RegionValue(
                compute_metrics([metric], found.labels[rows], found.predictions[rows], bins[rows])[metric],
                int(np.count_nonzero(rows)),
            )
            for region, rows in _select_regions(by_bin[rules[found.trial_id]][bins]).items()
        }
    return values


def read_sample_predictions(
    storage: Storage,
    trials: Collection[str],
    *,
    split: str = "test",
    rule: ShotRule | None = None,
    bin_width: float | None = None,
) -> SamplePredictions:
    """Read the predictions of trials for every sample of a split, so that trials can be compared sample by sample.

    Args:
        storage: the study's folder.
        trials: identities of trials; those without stored predictions are left out.
        split: test or val.
        rule: which bins are many, medium and few; None means the trials' own, which must be one.
        bin_width: of the label bins, in the label's unit; None means the data set's.

    Raises:
        InputError: no trial has predictions, or trials differ in their samples or shot rules; or as `recompute`.
    """
    where = _name_study(storage)
    names = [f"results/predictions/{trial}.parquet" for trial in sorted(trials)]
    tables = parquetfile.read_files(
        storage, names, ["trial_id", "split", "sample_id", "component", "label", "prediction", "deviation"]
    )
    found = [_to_predictions(rows) for rows in (filter_rows(table, split=split) for table in tables) if rows.num_rows]
    if not found:
        raise InputError(Fault(where=where, rule=f"has no stored predictions of split {split}"))
    manifest = _read_own_manifest(storage, None)
    own = _read_rules(storage, manifest) if rule is None else {}
    rules = {own[each.trial_id] for each in found} if rule is None else {rule}
    # The regions are masks over one list of samples: under two rules a sample would be in two regions.
    if len(rules) > 1:
        raise InputError(Fault(where=where, rule="has trials of several shot rules; choose one (shots)"))
    check_bin_lists(rules, bin_width, manifest.label.bin_width)
    first = _sort_samples(found[0])
    predictions, deviations = {}, {}
    for each in found:
        ordered = each if each.sample_ids == first.sample_ids else _sort_samples(each)
        if ordered.sample_ids != first.sample_ids or not np.array_equal(ordered.labels, first.labels):
            text = f"has trials with different samples in split {split}: {first.trial_id}, {each.trial_id}"
            raise InputError(Fault(where=where, rule=text))
        predictions[each.trial_id] = ordered.predictions
        if ordered.deviations is not None:
            deviations[each.trial_id] = ordered.deviations
    binning = make_binning(manifest, bin_width)
    bins = label_bins(first.labels, binning.label)
    by_bin = shot_regions(binning.train_counts, next(iter(rules)))
    return SamplePredictions(
        sample_ids=first.sample_ids,
        predictions=predictions,
        labels=first.labels,
        bins=bins,
        regions=_select_regions(by_bin[bins]),
        groups=_read_groups(storage, first.sample_ids),
        group=manifest.group or "",
        deviations=deviations,
        label=binning.label,
        regions_by_bin=by_bin,
    )


def read_split_overlap(
    storage: Storage,
    trials: Sequence[str],
    *,
    split: str = "test",
    rule: ShotRule | None = None,
    bin_width: float | None = None,
) -> dict[str, float]:
    """Return the share of common samples of two splits of the data by region, the mean over all pairs.

    Args:
        storage: the study's folder.
        trials: one of each split of the data.
        split: test or val.
        rule: as in `read_sample_predictions`.
        bin_width: as in `read_sample_predictions`.

    Returns:
        NaN where a region has no samples, and for a single trial.

    Raises:
        InputError: as `read_sample_predictions`.
    """
    found = [read_sample_predictions(storage, [trial], split=split, rule=rule, bin_width=bin_width) for trial in trials]
    overlap = {}
    for region in REGIONS:
        members = [{each.sample_ids[row] for row in np.flatnonzero(each.regions[region]).tolist()} for each in found]
        shares = [
            2 * len(one & other) / (len(one) + len(other)) for one, other in combinations(members, 2) if one or other
        ]
        overlap[region] = float(np.mean(shares)) if shares else math.nan
    return overlap


def compute_bin_errors(
    root: str | Path,
    study: str,
    *,
    split: str = "test",
    bin_width: float | None = None,
    trials: Collection[str] | None = None,
    manifest: Manifest | None = None,
    train_labels: ArrayLike | None = None,
) -> dict[str, list[BinErrors]]:
    """Compute mean signed and absolute error per label bin, by trial; arguments and errors are those of `recompute`.

    A negative signed error on rare large labels, and a positive one on rare small ones, is the pull towards the labels
    that are frequent.
    """
    _, manifest = _open_study(root, study, split, manifest)
    if manifest.label.components:
        raise InputError(Fault(where=f"study {study}", rule="has labels of several dimensions"))
    binning = make_binning(manifest, bin_width, train_labels)
    label, size = binning.label, binning.label.num_bins
    edges = compute_bin_edges(label).tolist()
    by_trial: dict[str, list[BinErrors]] = {}
    for found in _read_predictions(root, study, split, trials):
        bins, errors = label_bins(found.labels, label), found.predictions - found.labels
        counts = np.bincount(bins, minlength=size)
        # A bin without samples has NaN, without a warning.
        with np.errstate(invalid="ignore"):
            signed = np.bincount(bins, errors, size) / counts
            absolute = np.bincount(bins, np.abs(errors), size) / counts
        by_trial[found.trial_id] = [
            BinErrors(
                low=edges[position],
                high=edges[position + 1],
                train=int(binning.train_counts[position]),
                n=int(counts[position]),
                signed=float(signed[position]),
                absolute=float(absolute[position]),
            )
            for position in range(size)
        ]
    return by_trial


def read_stored_manifest(storage: Storage) -> Manifest:
    """Return the copy of the data set's manifest that a sweep keeps in its study's folder.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    where = storage.path(MANIFEST)
    if not storage.exists(MANIFEST):
        rule = "is not there; give the manifest of the data set"
        raise InputError(Fault(where=where, rule=rule))
    return read(Manifest, read_json_object(storage, MANIFEST), where=where)


def _open_study(root: str | Path, study: str, split: str, manifest: Manifest | None) -> tuple[Storage, Manifest]:
    """Return the study's folder and the manifest of its data, after checking that its predictions can be used."""
    check_known("split", split, EVALUATED_SPLITS)
    storage = studies.open_study(root, study)
    return storage, _read_own_manifest(storage, manifest)


def _read_own_manifest(storage: Storage, manifest: Manifest | None) -> Manifest:
    """Return the manifest of the study's data, after checking that it is the one of its predictions."""
    manifest = manifest or read_stored_manifest(storage)
    where = _name_study(storage)
    if manifest.label.dense is not None:
        rule = "has per-pixel labels, of which only the means of each image are stored"
        raise InputError(Fault(where=where, rule=rule, got=manifest.name))
    # Older records may lack the fingerprint; those of other data would be binned by the wrong counts.
    strangers = {print_ for print_ in _read_fingerprints(storage).values() if print_} - {manifest.fingerprint}
    if strangers:
        rule = f"has trials on other data than {manifest.name} {manifest.fingerprint}"
        raise InputError(Fault(where=where, rule=rule, got=sorted(strangers)))
    return manifest


def _name_study(storage: Storage) -> str:
    return f"study {storage.root.rsplit('/', 1)[-1]}"


def _to_predictions(rows: pa.Table) -> _TrialPredictions:
    labels, predictions = store.stack_components(rows)
    # Every sample has a row for each dimension of its label.
    ids = rows["sample_id"].to_pylist()[:: rows.num_rows // len(labels)]
    deviations = None
    # Older records have no such column.
    if "deviation" in rows.column_names and rows["deviation"].null_count == 0:
        deviations = rows["deviation"].to_numpy()
    return _TrialPredictions(rows["trial_id"][0].as_py(), ids, labels, predictions, deviations)


def _sort_samples(found: _TrialPredictions) -> _TrialPredictions:
    """Return the predictions in the order of the sample ids, as trials may have been evaluated in different orders."""
    order = sorted(range(len(found.sample_ids)), key=found.sample_ids.__getitem__)
    ids = [found.sample_ids[position] for position in order]
    deviations = None if found.deviations is None else found.deviations[order]
    return _TrialPredictions(found.trial_id, ids, found.labels[order], found.predictions[order], deviations)


def _read_groups(storage: Storage, sample_ids: Collection[str]) -> NDArray[np.int64] | None:
    """Return the number of each sample's group; None if the study's folder has no groups, or not of all samples."""
    if not storage.exists(GROUPS):
        return None
    (rows,) = parquetfile.read_files(storage, [GROUPS])
    # Sample ids are unique in a data set, and a study with several splits has groups of all of them
    by_sample = dict(zip(rows["sample_id"].to_pylist(), rows["group"].to_pylist(), strict=True))
    names = [by_sample.get(sample) for sample in sample_ids]
    if None in names:
        return None
    numbers: NDArray[np.int64] = np.unique(np.array(names, dtype=str), return_inverse=True)[1]
    return numbers


def _read_fingerprints(storage: Storage) -> dict[str, str | None]:
    rows = store.read_table(storage, "trials", columns=["data_fingerprint"])
    return dict(zip(rows["trial_id"].to_pylist(), rows["data_fingerprint"].to_pylist(), strict=True))


def _read_rules(storage: Storage, manifest: Manifest) -> dict[str, ShotRule]:
    """Return each trial's own shot rule."""
    rows = store.read_table(storage, "trials", columns=[RULE_COLUMN])
    names = rows[RULE_COLUMN].to_pylist() if RULE_COLUMN in rows.column_names else [None] * len(rows)
    ids, default = rows["trial_id"].to_pylist(), manifest.default_shot_rule
    for name in {name or default for name in names}:
        check_known("shot rule", name, tuple(manifest.shot_rules))
    return {trial: manifest.shot_rules[name or default] for trial, name in zip(ids, names, strict=True)}


def _read_predictions(
    root: str | Path, study: str, split: str, trials: Collection[str] | None
) -> Iterator[_TrialPredictions]:
    """Yield the predictions of one trial after the other; trials without any are left out."""
    dataset = store.scan_predictions(root, studies=[study])
    for fragment in dataset.get_fragments():
        # The name of the file is the identity, so that other trials are not opened.
        trial_id = Path(fragment.path).stem
        if trials is not None and trial_id not in trials:
            continue
        rows: pa.Table = fragment.to_table(
            schema=dataset.schema,
            columns=["sample_id", "component", "label", "prediction"],
            filter=pc.field("split") == split,
        )
        if rows.num_rows:
            yield _TrialPredictions(trial_id, rows["sample_id"].to_pylist(), *store.stack_components(rows))


def _select_regions(own: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """Return a mask of the samples of every region.

    Args:
        own: the shot region of each sample, shape `(samples,)`.
    """
    return {region: own == region for region in REGIONS} | {"all": np.full(len(own), True)}
