"""Floors: reference predictors without a training run. A regressor that is no better than one of them has learned nothing.

    median, mean                  of the training labels, in each dimension; of the training pixels, with per-pixel labels
    ridge, ridge_weighted         linear regression on standardized inputs, its penalty by generalized cross-validation
    boosting, boosting_weighted   histogram gradient boosting, scikit-learn's defaults

The last four exist where every input is a vector (tables, frozen features); of texts with frozen features the vectors are
read, of a pair of vectors `u` and `v` the comparison `[|u - v|; u * v]`. `_weighted` is fitted with the sample weights of
`sqrt_inverse`. A floor sees the whole training split, without augmentation, and has no seed. It is recorded once per data
fingerprint and shot rule, in a folder of its own of the study's folder: it is no trial, and nothing that reads trials
counts it.

Two limits: more than `MAX_FITTED_VALUES` numbers are not fitted, but every k-th row (column `config.floor.rows` of the
record has their number); the median and mean of pixels are those of the label histogram, exact to a bin's width.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dirtune.data import blocks
from dirtune.data.cache import ResidentData, Split
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.resplit import redraw_splits
from dirtune.frozen import hash_json
from dirtune.io.jsonfile import encode_json_object
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, Manifest
from dirtune.metrics import RegionMetric, compute_region_metrics
from dirtune.models.encoders import pair_mlp
from dirtune.results.records import names
from dirtune.results.records.schema import SplitPredictions, TrialRecord
from dirtune.results.records.store import write_record
from dirtune.reweighting import Reweighting
from dirtune.reweighting.density import shot_regions
from dirtune.training.dense_evaluation import evaluate_dense
from dirtune.training.distributed import Ranks
from dirtune.training.provenance import get_code_version

MAX_FITTED_VALUES = 2_000_000
"""Training rows times inputs times label dimensions to which ridge and boosting are fitted: a few seconds on two cores."""
MIN_FITTED_ROWS = 1000
PENALTIES = tuple(10.0**power for power in range(-2, 5))
"""Penalties that ridge chooses from, on standardized inputs."""
READING_ROWS = 4096
VERSION = 1
"""To be raised when a floor is computed in another way."""

Array = NDArray[np.float64]


class FloorPredictions(NamedTuple):
    """Predictions of a floor by split, in the label's unit, of the shape of the split's labels."""

    by_split: Mapping[str, Array]
    rows: int
    """Training rows that it was fitted to."""
    seconds: float


def list_floors(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the floors of a data set."""
    is_dense = manifest.label.dense is not None
    return names.CONSTANT_FLOORS + (names.LEARNED_FLOORS if list_vector_inputs(manifest) and not is_dense else ())


def list_vector_inputs(manifest: Manifest) -> list[str]:
    """Return the names of the vector inputs, sorted; empty if an input is neither a vector nor a text."""
    kinds = {name: spec.kind for name, spec in manifest.features.items()}
    if not set(kinds.values()) <= {"vector", "tokens"}:
        return []
    return sorted(name for name, kind in kinds.items() if kind == "vector")


def compute_floor_id(floor: str, manifest: Manifest, shot_rule: str, split: int = 0) -> str:
    """Return the identity of a floor's record.

    Args:
        floor: its name.
        manifest: of the data set as ingested.
        shot_rule: name of the shot rule.
        split: number of the split of the data.
    """
    rule = manifest.shot_rules[shot_rule].model_dump(mode="json")
    value = {"floor": floor, "version": VERSION, "data": manifest.fingerprint, "name": shot_rule, "rule": rule}
    return f"floor-{hash_json({**value, 'split': split} if split else value)}"


def record_floors(
    study: Storage,
    data: Storage,
    manifest: Manifest,
    shot_rules: Collection[str],
    splits: int = 1,
    report: Callable[[str], None] = lambda activity: None,
) -> tuple[str, ...]:
    """Compute and record the floors that a study's folder lacks; return their names.

    Args:
        study: the study's folder.
        data: the data root.
        manifest: of the data set.
        shot_rules: names of the shot rules of the study's arms.
        splits: number of splits of the data, each of which has floors of its own.
        report: called with what is being done, if a floor is missing.
    """
    folder = study.get_folder(names.FLOORS)
    known = set(folder.list_files("results/trials", suffix=".parquet"))
    missing = [
        (split, floor, rule)
        for split in range(splits)
        for floor in list_floors(manifest)
        for rule in sorted(shot_rules)
        if f"{compute_floor_id(floor, manifest, rule, split)}.parquet" not in known
    ]
    if not missing:
        return ()
    report("floors: predictions without a training run")
    # Of the data of the records, so that their predictions can be evaluated in other regions without the study.
    folder.write(MANIFEST, encode_json_object(manifest.model_dump(mode="json")))
    # Labels alone are kept in memory: inputs are read once, batch by batch, if a floor needs them.
    found = blocks.read_without_ray(data, manifest, torch.device("cpu"), MemoryBudget(device_bytes=0, host_bytes=0))
    code_version = get_code_version()
    for split in dict.fromkeys(split for split, _, _ in missing):
        own = redraw_splits(found, split)
        floors = {floor for number, floor, _ in missing if number == split}
        for floor, predictions in predict_floors(own, floors):
            for rule in (rule for number, each, rule in missing if (number, each) == (split, floor)):
                record = _make_record(study, floor, own, predictions, rule, code_version)
                identity = {"trial_id": compute_floor_id(floor, manifest, rule, split), "data_split": split}
                write_record(folder, replace(record, trial={**record.trial, **identity}))
    return tuple(dict.fromkeys(floor for _, floor, _ in missing))


def predict_floors(data: ResidentData, floors: Collection[str]) -> Iterator[tuple[str, FloorPredictions]]:
    """Yield each of these floors with its predictions of the validation and test splits."""
    evaluated = {name: data.splits[name] for name in names.EVALUATED_SPLITS}
    train = data.splits["train"]
    for floor, value in compute_constants(data).items():
        if floor in floors:
            predictions = {
                name: np.broadcast_to(value, split.exact_labels.shape).astype(np.float64)
                for name, split in evaluated.items()
            }
            yield floor, FloorPredictions(predictions, len(train), 0.0)
    learned = [floor for floor in names.LEARNED_FLOORS if floor in floors]
    if not learned:
        return
    kept = _select_fitted_rows(train, data.manifest)
    bins = train.label_bins.numpy()
    # Of all training rows, as in a training: the weights of a subset would be other ones.
    weights = Reweighting(scheme="sqrt_inverse").compute_weights(
        bins, data.manifest.label.num_bins, labels=train.exact_labels
    )
    inputs = list_vector_inputs(data.manifest)
    fitted = FittedRows(
        inputs=_read_vectors(train, inputs, kept), labels=train.exact_labels[kept], weights=weights[kept]
    )
    vectors = {name: _read_vectors(split, inputs, np.arange(len(split))) for name, split in evaluated.items()}
    for floor in learned:
        started = time.perf_counter()
        predictions = predict_learned(floor, fitted, vectors)
        yield floor, FloorPredictions(predictions, len(kept), time.perf_counter() - started)


def compute_constants(data: ResidentData) -> dict[str, Array]:
    """Return median and mean of the training labels; shape `()`, or `(L,)` for labels of L dimensions."""
    manifest = data.manifest
    if manifest.label.dense is None:
        labels = data.splits["train"].exact_labels
        return {"median": np.asarray(np.median(labels, axis=0)), "mean": np.asarray(np.mean(labels, axis=0))}
    # Label images of a whole training split are tens of gigabytes; their histogram is in the manifest.
    label, counts = manifest.label, np.asarray(manifest.train_counts, dtype=np.float64)
    edges = label.low + label.bin_width * np.arange(label.num_bins + 1)
    shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    middles = (edges[:-1] + edges[1:]) / 2
    return {"median": np.asarray(np.interp(0.5, shares, edges)), "mean": np.asarray(counts @ middles / counts.sum())}


@dataclass(frozen=True, kw_only=True)
class FittedRows:
    """Training rows of the learned floors."""

    inputs: Array
    """(n, d)."""
    labels: Array
    """(n,), or (n, L) for labels of L dimensions."""
    weights: Array
    """(n,), of `sqrt_inverse`."""


def predict_learned(floor: str, fitted: FittedRows, vectors: Mapping[str, Array]) -> dict[str, Array]:
    """Fit ridge or boosting, in each dimension of the label by itself; return its predictions by split.

    Args:
        floor: a name of `LEARNED_FLOORS`.
        fitted: rows to fit it to.
        vectors: inputs by split, (rows, d).
    """
    # Importing scikit-learn takes a second, which a data set of images need not wait for.
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from threadpoolctl import threadpool_limits

    weights = fitted.weights if floor.endswith("_weighted") else None
    center, spread = fitted.inputs.mean(axis=0), fitted.inputs.std(axis=0)
    # A column of one value tells nothing, and is not divided by zero.
    spread = np.where(spread > 0, spread, 1.0)
    by_dimension = []
    for labels in fitted.labels.reshape(len(fitted.labels), -1).T:
        if floor.startswith("ridge"):
            model: Any = RidgeCV(alphas=PENALTIES)
        else:
            # Without early stopping, which would hold out rows at random.
            model = HistGradientBoostingRegressor(early_stopping=False, random_state=0)
        # One thread: several, which wait for each other in every node of a tree, take twenty times as long on a busy machine.
        with threadpool_limits(1):
            model.fit((fitted.inputs - center) / spread, labels, sample_weight=weights)
            by_dimension.append({name: model.predict((rows - center) / spread) for name, rows in vectors.items()})
    has_dimensions = fitted.labels.ndim == 2
    return {
        name: np.stack([each[name] for each in by_dimension], axis=1) if has_dimensions else by_dimension[0][name]
        for name in vectors
    }


def _select_fitted_rows(train: Split, manifest: Manifest) -> NDArray[np.int64]:
    """Return the positions of the rows to fit to: every k-th in the order of sample ids, if there are too many."""
    sizes = [manifest.features[name].size for name in list_vector_inputs(manifest)]
    width = sum(sizes) * len(manifest.label.axes)
    most = max(MIN_FITTED_ROWS, MAX_FITTED_VALUES // width)
    return np.arange(0, len(train), -(-len(train) // most), dtype=np.int64)


def _read_vectors(split: Split, inputs: Sequence[str], rows: NDArray[np.int64]) -> Array:
    """Return the inputs with these names, or the comparison of a pair, as columns of one matrix, shape `(rows, d)`."""
    parts = []
    for read in split.read(torch.from_numpy(rows).split(READING_ROWS)):
        columns = [read[name].double().flatten(1).numpy() for name in inputs]
        if list(inputs) == [pair_mlp.FIRST, pair_mlp.SECOND]:
            first, second = columns
            # No linear function of the two vectors tells how similar they are.
            columns = [np.abs(first - second), first * second]
        parts.append(np.concatenate(columns, axis=1))
    return np.concatenate(parts)


def _make_record(
    study: Storage, floor: str, data: ResidentData, predictions: FloorPredictions, shot_rule: str, code_version: str
) -> TrialRecord:
    """Return the record of a floor without its identity."""
    manifest = data.manifest
    regions = shot_regions(manifest.train_counts, manifest.shot_rules[shot_rule])
    metrics, by_split = [], {}
    for name, values in predictions.by_split.items():
        split = data.splits[name]
        means, rows = _evaluate(data, split, values, regions)
        metrics += [{"split": name, "selection": names.PREDICTED_EPOCH, **row} for row in rows]
        by_split[name] = SplitPredictions(sample_ids=split.sample_ids, labels=split.exact_labels, predictions=means)
    now = datetime.now(UTC)
    return TrialRecord(
        trial={
            "study": study.root.rsplit("/", 1)[-1],
            "arm": floor,
            "cell": "{}",
            "role": "floor",
            "status": "complete",
            "seconds_train": predictions.seconds,
            "data": manifest.name,
            "data_fingerprint": manifest.fingerprint,
            "code_version": code_version,
            "started_at": now,
            "finished_at": now,
        },
        config={"data": {"name": manifest.name, "shot_rule": shot_rule}, "floor": {"rows": predictions.rows}},
        metrics=metrics,
        predictions=by_split,
    )


def _evaluate(
    data: ResidentData, split: Split, values: Array, regions: NDArray[Any]
) -> tuple[Array, list[RegionMetric]]:
    """Return a prediction per sample, and all metrics."""
    manifest = data.manifest
    if manifest.label.dense is None:
        bins = split.label_bins.numpy()
        rows = compute_region_metrics(split.exact_labels, values, regions[bins], bins=bins, extra=manifest.metrics)
        return values, rows
    return evaluate_dense(_ConstantPixels(float(values[0])), split, Ranks(), manifest, regions)


class _PixelOutput(NamedTuple):
    predictions: Tensor


class _ConstantPixels(nn.Module):
    """A dense regressor that predicts one number for every pixel."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, view: Mapping[str, Tensor]) -> _PixelOutput:
        rows = len(next(iter(view.values())))
        # At any size: the evaluation scales predictions up to that of the labels.
        return _PixelOutput(torch.full((rows, 2, 2), self.value))
