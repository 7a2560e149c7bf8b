"""Run with `pytest tests/training/test_floors.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from dirtune.data.cache import ResidentData
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec
from dirtune.results.records.names import CONSTANT_FLOORS, FLOORS, LEARNED_FLOORS
from dirtune.results.records.store import read_table
from dirtune.training import floors
from dirtune.training.floors import list_floors, predict_floors, record_floors


def labels_of(data: ResidentData, split: str) -> Any:
    return data.splits[split].exact_labels


def vectors_of(data: ResidentData, split: str) -> Any:
    rows = data.splits[split]
    (inputs,) = rows.read([torch.arange(len(rows))])
    return inputs["vector"].double().numpy()


@pytest.fixture(scope="module")
def vectors(toy: ResidentData) -> ResidentData:
    """The toy data without their images."""
    inputs = {"vector": toy.manifest.inputs["vector"]}
    return replace(toy, manifest=toy.manifest.model_copy(update={"inputs": inputs}))


@pytest.fixture(scope="module")
def predicted(vectors: ResidentData) -> dict[str, floors.FloorPredictions]:
    return dict(predict_floors(vectors, list_floors(vectors.manifest)))


def test_only_vectors_have_learned_floors(toy: ResidentData, vectors: ResidentData) -> None:
    assert list_floors(toy.manifest) == CONSTANT_FLOORS
    assert list_floors(vectors.manifest) == (*CONSTANT_FLOORS, *LEARNED_FLOORS)


def test_the_constants_are_those_of_the_training_labels(
    vectors: ResidentData, predicted: dict[str, floors.FloorPredictions]
) -> None:
    train = np.sort(labels_of(vectors, "train"))
    # 202 labels: the median is between two of them
    expected = {"median": (train[100] + train[101]) / 2, "mean": sum(train) / 202}
    for name, value in expected.items():
        for split, rows in (("val", 30), ("test", 40)):
            assert predicted[name].by_split[split] == pytest.approx(np.full(rows, value), rel=1e-12)


def test_learned_floors_are_those_of_scikit_learn(
    vectors: ResidentData, predicted: dict[str, floors.FloorPredictions]
) -> None:
    y, counts = labels_of(vectors, "train"), np.array(vectors.manifest.train_counts)
    scaler = StandardScaler().fit(vectors_of(vectors, "train"))
    x, test = (scaler.transform(vectors_of(vectors, split)) for split in ("train", "test"))
    # One over the root of the number of samples in the label's bin, with mean one
    weights = 1 / np.sqrt(counts[(y // 2).astype(int)])
    weights /= weights.mean()
    for suffix, own in (("", None), ("_weighted", weights)):
        ridge = RidgeCV(alphas=floors.PENALTIES).fit(x, y, sample_weight=own)
        boosting = HistGradientBoostingRegressor(early_stopping=False, random_state=0).fit(x, y, sample_weight=own)
        # The two standardizations differ by rounding, which can move a value to the next bin of a tree.
        assert predicted[f"ridge{suffix}"].by_split["test"] == pytest.approx(ridge.predict(test), rel=1e-6)
        found = predicted[f"boosting{suffix}"].by_split["test"]
        assert np.median(np.abs(found - boosting.predict(test))) < 1e-6
    assert not np.allclose(predicted["ridge"].by_split["test"], predicted["ridge_weighted"].by_split["test"])
    errors = {
        name: np.abs(each.by_split["test"] - labels_of(vectors, "test")).mean() for name, each in predicted.items()
    }
    assert max(errors["ridge"], errors["boosting"]) < min(errors["median"], errors["mean"])


def test_a_pair_of_texts_is_compared_by_its_features(vectors: ResidentData) -> None:
    vector = InputSpec(kind="vector", shape=(6,))
    tokens = InputSpec(kind="tokens", shape=(3,), vocabulary=9)
    specs = {"first": tokens, "first_features": vector, "second": tokens, "second_features": vector}
    splits = {}
    for name, rows in vectors.splits.items():
        first = rows.inputs["vector"]
        text = torch.ones(len(rows), 3, dtype=torch.int32)
        inputs = {"first": text, "first_features": first, "second": text, "second_features": first.roll(1, dims=0) ** 2}
        splits[name] = replace(rows, inputs=inputs)
    pairs = replace(vectors, manifest=vectors.manifest.model_copy(update={"inputs": specs}), splits=splits)
    assert list_floors(pairs.manifest) == (*CONSTANT_FLOORS, *LEARNED_FLOORS)
    ((_, found),) = predict_floors(pairs, ("ridge",))
    compared = {}
    for name, split in splits.items():
        u, v = (split.inputs[f"{side}_features"].double().numpy() for side in ("first", "second"))
        compared[name] = np.hstack([np.abs(u - v), u * v])
    scaler = StandardScaler().fit(compared["train"])
    model = RidgeCV(alphas=floors.PENALTIES).fit(scaler.transform(compared["train"]), labels_of(pairs, "train"))
    assert found.by_split["test"] == pytest.approx(model.predict(scaler.transform(compared["test"])), rel=1e-6)
    alone = pairs.manifest.model_copy(update={"inputs": {"first": tokens, "second": tokens}})
    assert list_floors(alone) == CONSTANT_FLOORS


def test_a_label_of_two_dimensions_has_a_floor_in_each(vectors: ResidentData) -> None:
    def double(split: str) -> Any:
        rows = vectors.splits[split]
        # The second dimension is a function of its own of the first
        return replace(rows, exact_labels=np.stack([rows.exact_labels, 7 - 0.3 * rows.exact_labels], axis=1))

    axis = vectors.manifest.label
    grid = LabelSpec.grid("two", "m", (axis, axis.model_copy(update={"low": -20.0, "high": 20.0, "num_bins": 20})))
    manifest = vectors.manifest.model_copy(update={"label": grid})
    data = replace(vectors, manifest=manifest, splits={split: double(split) for split in vectors.splits})
    one, two = (dict(predict_floors(each, ("median", "mean", "ridge"))) for each in (vectors, data))
    for name in ("median", "mean", "ridge"):
        found, first = two[name].by_split["test"], one[name].by_split["test"]
        assert found.shape == (40, 2)
        # Least squares, means and medians are equivariant; the rounding of a solver is not.
        assert found == pytest.approx(np.stack([first, 7 - 0.3 * first], axis=1), rel=1e-6)


def test_too_many_rows_are_thinned_and_counted(vectors: ResidentData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floors, "MIN_FITTED_ROWS", 50)
    monkeypatch.setattr(floors, "MAX_FITTED_VALUES", 6 * 70)
    ((_, found),) = predict_floors(vectors, ("ridge",))
    # Every third of 202 rows: at most 70
    assert found.rows == 68
    kept = slice(None, None, 3)
    scaler = StandardScaler().fit(vectors_of(vectors, "train")[kept])
    x, test = scaler.transform(vectors_of(vectors, "train")[kept]), scaler.transform(vectors_of(vectors, "test"))
    model = RidgeCV(alphas=floors.PENALTIES).fit(x, labels_of(vectors, "train")[kept])
    assert found.by_split["test"] == pytest.approx(model.predict(test), rel=1e-6)


def test_floors_are_recorded_once_for_each_shot_rule(toy: ResidentData, data_root: Path, study: Storage) -> None:
    data = Storage.open(data_root)
    assert record_floors(study, data, toy.manifest, ["toy"]) == ("median", "mean")
    before = {file.name: file.stat().st_mtime_ns for file in Path(study.path(FLOORS)).rglob("*.parquet")}
    assert record_floors(study, data, toy.manifest, ["toy"]) == ()
    assert record_floors(study, data, toy.manifest, ["toy", "no_few"]) == ("median", "mean")
    after = {file.name: file.stat().st_mtime_ns for file in Path(study.path(FLOORS)).rglob("*.parquet")}
    assert {name: after[name] for name in before} == before
    trials = read_table(study.get_folder(FLOORS), "trials").to_pylist()
    assert sorted((row["arm"], row["config.data.shot_rule"]) for row in trials) == [
        (arm, rule) for arm in ("mean", "median") for rule in ("no_few", "toy")
    ]
    assert {(row["role"], row["seed"], row["replicate"], row["status"]) for row in trials} == {
        ("floor", None, None, "complete")
    }
    assert {row["config.floor.rows"] for row in trials} == {202}
    # A floor is no trial of the study.
    assert read_table(study, "trials").num_rows == 0


def test_the_recorded_metrics_are_those_of_the_predictions(toy: ResidentData, data_root: Path, study: Storage) -> None:
    record_floors(study, Storage.open(data_root), toy.manifest, ["toy"])
    folder = study.get_folder(FLOORS)
    arms = {row["trial_id"]: row["arm"] for row in read_table(folder, "trials").to_pylist()}
    metrics = [{**row, "arm": arms[row["trial_id"]]} for row in read_table(folder, "metrics").to_pylist()]
    test, median = labels_of(toy, "test"), np.median(labels_of(toy, "train"))
    # Bins of more than 40 training samples are many, of fewer than 10 few.
    counts = np.array(toy.manifest.train_counts)[(test // 2).astype(int)]
    for region, chosen in (("all", counts > 0), ("many", counts > 40), ("few", counts < 10)):
        (row,) = (
            row
            for row in metrics
            if (row["arm"], row["split"], row["region"], row["metric"]) == ("median", "test", region, "mae")
        )
        assert (row["n"], row["selection"]) == (chosen.sum(), "best_val")
        assert row["value"] == pytest.approx(np.abs(test - median)[chosen].mean(), rel=1e-12)
    predictions = read_table(folder, "predictions").to_pylist()
    assert len(predictions) == 2 * (30 + 40)
    assert {row["sample_id"] for row in predictions} == {
        sample for split in ("val", "test") for sample in toy.splits[split].sample_ids
    }
