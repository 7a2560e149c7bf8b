"""Run with `pytest tests/training/test_two_dimensions.py`: a label of two dimensions from the ingest to the record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dirtune.config import TrialConfig
from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import ResidentData, ResidentSplit
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import decode, read_manifest, read_split, write_dataset
from dirtune.data.streaming import StreamedSplit
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.metrics import METRICS
from dirtune.results.query.query import query
from dirtune.results.records.store import stack_components
from dirtune.training.evaluation import evaluate, predict
from dirtune.training.state import begin_training, load_best_weights
from dirtune.training.trial import TrialRun
from tests.training.runs import Configure, finish, job_of, lasting, tables, trained

pytestmark = pytest.mark.ray

GAZE = LabelSpec.grid(
    "gaze",
    "rad",
    (
        LabelSpec(name="pitch", unit="rad", low=-0.4, high=0.2, bin_width=0.1, num_bins=6),
        LabelSpec(name="yaw", unit="rad", low=-0.5, high=0.5, bin_width=0.1, num_bins=10),
    ),
)
ROWS = {"train": 150, "val": 40, "test": 60}
SETTINGS: dict[str, Any] = {
    "data": {"name": "gazes"},
    "model": {
        "encoder": {"name": "mlp", "hidden": [16], "dropout": 0.2},
        "label_scale": 1.0,
        "label_offset": 0.0,
        "projection_dim": 8,
        "predictor_input": "embedding",
    },
    "loss": {"name": "l1"},
    "terms": {
        "conr": {"beta": 0.2, "omega": 0.1, "label_distance": "angular"},
        "accon": {"gamma": 0.2, "label_distance": "angular"},
    },
    "reweighting": {"scheme": "sqrt_inverse"},
    "recipe": {"epochs": 2, "batch_size": 32, "learning_rate": 0.01, "views": {"count": 2}},
    "objective": {"metric": "angular_error"},
}


def _samples(split: str, rows: int) -> list[dict[str, Any]]:
    """Directions, most of them near straight ahead, and vectors that tell them up to noise."""
    drawn = np.random.default_rng(rows)
    labels = np.clip(drawn.normal(0, [0.1, 0.15], (rows, 2)), -0.39, 0.19)
    mixing = np.random.default_rng(0).normal(size=(2, 5))
    vectors = labels @ mixing * 5 + drawn.normal(0, 0.1, (rows, 5))
    return [
        {"sample_id": f"{split}-{row:03d}", "label": label, "vector": vector.astype(np.float32)}
        for row, (label, vector) in enumerate(zip(labels, vectors, strict=True))
    ]


@pytest.fixture(scope="module")
def storage(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    import ray.data

    storage = Storage.open(tmp_path_factory.mktemp("data"))
    write_dataset(
        storage,
        "gazes",
        {split: ray.data.from_items(_samples(split, rows), override_num_blocks=2) for split, rows in ROWS.items()},
        inputs={"vector": InputSpec(kind="vector", shape=(5,))},
        label=GAZE,
        metrics=("angular_error",),
        shot_rules={"counts": ShotRule(many_above=6, few_below=3)},
        default_shot_rule="counts",
        source={},
    )
    return storage


@pytest.fixture(scope="module")
def gazes(storage: Storage) -> ResidentData:
    manifest = read_manifest(storage, "gazes")
    splits = {split: _resident(storage, manifest, split) for split in ROWS}
    return ResidentData(manifest=manifest, device=torch.device("cpu"), splits=splits)


def _resident(storage: Storage, manifest: Manifest, split: str) -> ResidentSplit:
    columns = decode(read_split(storage, manifest, split), manifest)
    cells = [_cell(*label) for label in columns["label"].tolist()]
    return ResidentSplit(
        sample_ids=tuple(columns["sample_id"].tolist()),
        inputs={"vector": torch.tensor(columns["vector"])},
        labels=torch.tensor(columns["label"], dtype=torch.float32),
        label_bins=torch.tensor(cells),
        exact_labels=columns["label"],
    )


def _cell(pitch: float, yaw: float) -> int:
    return 10 * math.floor((pitch + 0.4) * 10) + math.floor((yaw + 0.5) * 10)


@pytest.fixture(scope="module")
def config() -> TrialConfig:
    return read(TrialConfig, SETTINGS, where="test")


def _angle(label: list[float], prediction: list[float]) -> float:
    """The angle between two directions in degrees, by the arccosine of their product."""
    one, other = (
        np.array([-math.cos(p) * math.sin(y), -math.sin(p), -math.cos(p) * math.cos(y)]) for p, y in (label, prediction)
    )
    return math.degrees(math.acos(min(1.0, float(one @ other))))


def _few_cells(gazes: ResidentData) -> set[int]:
    counts = np.bincount(gazes.splits["train"].label_bins, minlength=60)
    return set(np.flatnonzero(counts < 3).tolist())


def test_a_trial_is_recorded_with_the_angular_error_of_its_predictions(
    gazes: ResidentData, config: TrialConfig, study: Storage
) -> None:
    trial = finish(TrialRun(job_of(config, gazes), gazes, study))
    assert trial.status == "complete", trial.error
    found = tables(study)
    values = {
        (row["split"], row["selection"], row["region"], row["metric"]): (row["value"], row["n"])
        for row in found["metrics"]
    }
    assert {metric for *_, region, metric in values if region == "few"} == {*METRICS, "angular_error"}
    few = _few_cells(gazes)
    for split in ("val", "test"):
        labels = gazes.splits[split].exact_labels
        rows = [row for row in found["predictions"] if row["split"] == split]
        assert len(rows) == 2 * ROWS[split]
        by_sample = {(row["sample_id"], row["component"]): row["prediction"] for row in rows}
        for row in rows:
            at = gazes.splits[split].sample_ids.index(row["sample_id"])
            assert row["label"] == labels[at, row["component"]]
        predictions = [[by_sample[sample, 0], by_sample[sample, 1]] for sample in gazes.splits[split].sample_ids]
        angles = [_angle(*pair) for pair in zip(labels.tolist(), predictions, strict=True)]
        rare = [angle for angle, label in zip(angles, labels.tolist(), strict=True) if _cell(*label) in few]
        assert 0 < len(rare) < len(angles)
        for region, chosen in {"all": angles, "few": rare}.items():
            expected = (pytest.approx(np.mean(chosen), rel=1e-7), len(chosen))
            assert values[split, "best_val", region, "angular_error"] == expected
        errors = np.abs(np.array(predictions) - labels)
        assert values[split, "best_val", "all", "mae"][0] == pytest.approx(errors.mean(), rel=1e-12)
        assert values[split, "best_val", "all", "rmse"][0] == pytest.approx(np.sqrt(np.square(errors).mean()))


def test_the_objective_is_the_angular_error_and_picks_the_epoch(
    gazes: ResidentData, config: TrialConfig, study: Storage
) -> None:
    trial = finish(TrialRun(job_of(config, gazes), gazes, study))
    errors = [values["val/all/angular_error"] for values in trial.training.history]
    (row,) = tables(study)["trials"]
    assert row["objective"] == min(errors)
    assert row["best_epoch"] == errors.index(min(errors)) + 1
    names = {name for name in trial.training.history[-1] if name.startswith("train/")}
    assert names == {"train/regression", "train/conr", "train/accon", "train/loss"}


def test_training_lowers_the_error_below_that_of_looking_straight_ahead(
    gazes: ResidentData, config: TrialConfig
) -> None:
    longer = config.model_copy(update={"recipe": config.recipe.model_copy(update={"epochs": 20})})
    training = trained(longer, gazes)
    load_best_weights(training)
    predictions = predict(training, "test")
    assert predictions.shape == (60, 2)
    found = {(row["region"], row["metric"]): row["value"] for row in evaluate(training, "test").metrics}
    labels = gazes.splits["test"].exact_labels
    ahead = np.mean([_angle(label, [0.0, 0.0]) for label in labels.tolist()])
    assert found["all", "angular_error"] < ahead / 2


def test_an_interrupted_trial_resumes_with_the_same_record(
    gazes: ResidentData, config: TrialConfig, study: Storage, tmp_path: Path
) -> None:
    job = job_of(config, gazes)
    finish(TrialRun(job, gazes, study))
    other = Storage.open(tmp_path / "other")
    # And then the process is gone
    TrialRun(job, gazes, other, waits_for_checkpoints=True).step()
    again = TrialRun(job, gazes, other)
    assert again.training.epoch == 1
    finish(again)
    assert lasting(tables(other)) == lasting(tables(study))


@pytest.mark.parametrize("host_bytes", [10**9, 0], ids=["in memory", "on disk"])
def test_a_trial_on_gazes_that_are_not_on_the_device_is_bitwise_the_same(
    storage: Storage, gazes: ResidentData, config: TrialConfig, host_bytes: int
) -> None:
    budget = MemoryBudget(device_bytes=0, host_bytes=host_bytes, threads=2)
    streamed = read_without_ray(storage, gazes.manifest, torch.device("cpu"), budget)
    assert all(isinstance(split, StreamedSplit) for split in streamed.splits.values())
    resident, other = trained(config, gazes), trained(config, streamed)
    assert other.history == resident.history
    assert np.array_equal(predict(other, "test"), predict(resident, "test"))


def test_the_record_can_be_queried_and_gives_the_arrays_back(
    gazes: ResidentData, config: TrialConfig, study: Storage, tmp_path: Path
) -> None:
    trial = finish(TrialRun(job_of(config, gazes), gazes, study))
    load_best_weights(trial.training)
    rows = query("select component, label, prediction from predictions where split = 'test'", tmp_path)
    labels, predictions = stack_components(rows)
    np.testing.assert_array_equal(labels, gazes.splits["test"].exact_labels)
    np.testing.assert_array_equal(predictions, predict(trial.training, "test"))
    by_axis = query(
        "select component, avg(abs(prediction - label)) as mae from predictions "
        "where split = 'test' group by component order by component",
        tmp_path,
    )
    assert by_axis["component"].to_pylist() == [0, 1]
    assert by_axis["mae"].to_pylist() == pytest.approx(np.abs(predictions - labels).mean(axis=0).tolist())


def test_weights_are_those_of_the_cells(gazes: ResidentData, config: TrialConfig) -> None:
    training = begin_training(config, gazes)
    split = gazes.splits["train"]
    cells = [_cell(*label) for label in split.exact_labels.tolist()]
    expected = np.array([1 / math.sqrt(cells.count(cell)) for cell in cells])
    weights = training.stage.config.reweighting.compute_weights(
        split.label_bins.numpy(), GAZE.num_bins, labels=split.exact_labels
    )
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-12)


def test_settings_for_one_dimension_are_refused(gazes: ResidentData, config: TrialConfig) -> None:
    smoothed = {**SETTINGS, "reweighting": {"scheme": "inverse", "fds": {}}}
    with pytest.raises(InputError, match=r"gazes: reweighting\.fds: is made for labels of one dimension, got 2"):
        begin_training(read(TrialConfig, smoothed, where="test"), gazes)
    dense = {**SETTINGS, "reweighting": {"scheme": "dense"}}
    with pytest.raises(InputError, match=r"reweighting\.scheme: is made for labels of one dimension, got 2"):
        trained(read(TrialConfig, dense, where="test"), gazes)


def test_an_objective_that_the_data_set_has_not_is_refused(configuration: Configure, toy: ResidentData) -> None:
    with pytest.raises(
        InputError, match=r"toy: objective\.metric: the data set has no such metric, got 'angular_error'"
    ):
        begin_training(configuration(objective={"metric": "angular_error"}), toy)
