"""Run with `pytest tests/training/test_task.py`: per-pixel labels from the raw files to the record."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dirtune.config import TrialConfig
from dirtune.data.blocks import fetch, materialize, read_without_ray
from dirtune.data.cache import ResidentData
from dirtune.data.contract import InputContract
from dirtune.data.store import decode, read_manifest, read_split
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.metrics import REGIONS
from dirtune.nested import merge
from dirtune.pipelines.nyud2 import ingest
from dirtune.results.analysis.recompute import recompute
from dirtune.results.records.store import read_table
from dirtune.study.files import list_shipped_studies
from dirtune.study.resolve import resolve
from dirtune.training import floors
from dirtune.training.distributed import Ranks
from dirtune.training.evaluation import evaluate
from dirtune.training.kept_model import read_model
from dirtune.training.loop import run_epochs, run_steps
from dirtune.training.state import Training, begin_training
from dirtune.training.task import make_task
from dirtune.training.train import check_data_settings
from dirtune.training.trial import TrialRun
from dirtune.tuning.plan.checks import check_study
from tests.pipelines.depth_scenes import OPTIONS, write_scenes
from tests.training.runs import Weights, finish, job_of, lasting, same, tables, trained, weights_of

pytestmark = [
    pytest.mark.ray,
    # Ray sets its own deprecated settings when it makes its first DataContext.
    pytest.mark.filterwarnings(r"ignore:.use_\w+. is deprecated:DeprecationWarning:ray.data.context"),
]

SETTINGS: dict[str, Any] = {
    "data": {"name": "nyud2"},
    "model": {"encoder": {"name": "depth_resnet", "base": "resnet18"}, "label_scale": 1.0, "label_offset": 2.0},
    "loss": {"name": "mse"},
    "recipe": {"epochs": 2, "batch_size": 6, "learning_rate": 0.002, "views": {"augmentation": "depth"}},
    "objective": {"metric": "rmse"},
}
EVERYTHING: dict[str, Any] = {
    "terms": {"conr": {"variant": "nyu", "omega": 0.2, "beta": 0.2, "push_power": 0.2, "tau": 0.2}},
    "reweighting": {
        "scheme": "inverse",
        "lds": {"boundary": "reflect", "first_bin": 7},
        "fds": {"first_bin": 7, "clip": [0.2, 5.0]},
    },
}


def _config(**settings: Any) -> TrialConfig:
    return read(TrialConfig, merge(SETTINGS, settings), where="test")


@pytest.fixture(scope="module")
def storage(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    raw = tmp_path_factory.mktemp("raw")
    write_scenes(raw)
    storage = Storage.open(tmp_path_factory.mktemp("data"))
    ingest(storage, raw, OPTIONS)
    return storage


@pytest.fixture(scope="module")
def manifest(storage: Storage) -> Manifest:
    return read_manifest(storage, "nyud2")


@pytest.fixture(scope="module")
def rooms(storage: Storage, manifest: Manifest) -> ResidentData:
    return read_without_ray(storage, manifest, torch.device("cpu"))


class _Constant(nn.Module):
    """A predictor that is constant over an image and differs between images."""

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        values = torch.linspace(-2.5, 0.5, len(embeddings))
        return values[:, None, None, None].expand(-1, 1, *embeddings.shape[-2:])


def _with_constant_predictions(rooms: ResidentData) -> Training:
    training = begin_training(_config(), rooms)
    training.model.predictor = _Constant()  # type: ignore[assignment]
    return training


def _expected(labels: list[float], predictions: list[float], bins: list[int]) -> dict[str, float]:
    """Every metric in plain Python."""
    errors = [abs(p - y) for y, p in zip(labels, predictions, strict=True)]
    floored = [max(p, 0.001) for p in predictions]
    ratios = [max(p / y, y / p) for y, p in zip(labels, floored, strict=True)]
    by_bin: dict[int, list[float]] = {}
    for index, error in zip(bins, errors, strict=True):
        by_bin.setdefault(index, []).append(error)
    n = len(errors)
    return {
        "mae": sum(errors) / n,
        "mse": sum(e * e for e in errors) / n,
        "rmse": math.sqrt(sum(e * e for e in errors) / n),
        "abs_rel": sum(e / y for e, y in zip(errors, labels, strict=True)) / n,
        "log10": sum(abs(math.log10(p / y)) for p, y in zip(floored, labels, strict=True)) / n,
        **{f"delta{k}": sum(r <= 1.25**k for r in ratios) / n for k in (1, 2, 3)},
        "balanced_mae": sum(sum(each) / len(each) for each in by_bin.values()) / len(by_bin),
    }


@pytest.mark.parametrize("masked", [True, False])
def test_dense_metrics_equal_a_plain_loop_over_pixels(
    storage: Storage, manifest: Manifest, rooms: ResidentData, masked: bool
) -> None:
    found = evaluate(_with_constant_predictions(rooms), "test")
    arrays = decode(read_split(storage, manifest, "test"), manifest)
    # One of them negative
    constants = (2.0 + torch.linspace(-2.5, 0.5, 6)).tolist()
    many, medium = set(range(9, 46)) | {47, 49}, {7, 8, 46, 48, *range(50, 57), 58, 60, 61, 63}
    pixels: dict[str, list[tuple[float, float, int]]] = {region: [] for region in REGIONS}
    for row in range(6):
        for y in range(6, 42):
            for x in range(8, 56):
                count = int(arrays["depth"][row, 0, y, x])
                if not count or (masked and not arrays["mask"][row, 0, y, x]):
                    continue
                index = min(count // 100, 99)
                region = "many" if index in many else "medium" if index in medium else "few"
                for name in ("all", region):
                    pixels[name].append((count / 1000, constants[row], index))
    values = {(row["region"], row["metric"]): row for row in found.metrics}
    for region in REGIONS:
        labels, predictions, bins = map(list, zip(*pixels[region], strict=True))
        for name, value in _expected(labels, predictions, bins).items():
            row = values[region, name if masked else f"whole_{name}"]
            assert row["n"] == len(labels)
            assert row["value"] == pytest.approx(value, rel=1e-5), (region, name)
    np.testing.assert_allclose(found.predictions, constants, rtol=1e-6)


def test_the_floors_of_pixels_are_those_of_their_histogram(
    storage: Storage, manifest: Manifest, rooms: ResidentData, tmp_path: Path
) -> None:
    counts = manifest.train_counts
    # Half of the pixels are in bins of 0.1 m below the median; the rest of the way is a share of its own bin.
    below = next(index for index in range(100) if sum(counts[: index + 1]) >= sum(counts) / 2)
    median = 0.1 * (below + (sum(counts) / 2 - sum(counts[:below])) / counts[below])
    mean = sum((index + 0.5) * 0.1 * count for index, count in enumerate(counts)) / sum(counts)
    study = Storage.open(tmp_path)
    assert floors.record_floors(study, storage, manifest, [manifest.default_shot_rule]) == ("median", "mean")
    folder = study.get_folder("floors")
    depths = decode(read_split(storage, manifest, "test"), manifest)["depth"][:, 0, 6:42, 8:56] / 1000
    trials = {row["arm"]: row["trial_id"] for row in read_table(folder, "trials").to_pylist()}
    for arm, value in (("median", median), ("mean", mean)):
        rows = [row for row in read_table(folder, "metrics").to_pylist() if row["trial_id"] == trials[arm]]
        (whole,) = (
            row["value"] for row in rows if (row["split"], row["region"], row["metric"]) == ("test", "all", "whole_mae")
        )
        # Predictions are float32.
        assert whole == pytest.approx(np.abs(depths[depths > 0] - value).mean(), rel=1e-5)
        images = [row for row in read_table(folder, "predictions").to_pylist() if row["trial_id"] == trials[arm]]
        assert {round(row["prediction"], 4) for row in images} == {round(value, 4)}


@pytest.fixture(scope="module")
def one_epoch(rooms: ResidentData) -> Weights:
    return weights_of(trained(_config(recipe={"epochs": 1}), rooms))


def test_dense_training_learns_and_is_deterministic(rooms: ResidentData, one_epoch: Weights) -> None:
    training = begin_training(_config(recipe={"epochs": 4}), rooms)
    weights = [weights_of(training) for _ in run_epochs(training)]
    losses = [values["train/loss"] for values in training.history]
    assert losses[-1] < 0.7 * losses[0]
    assert same(weights[0], one_epoch)
    assert not same(weights[1], one_epoch)


def test_dense_micro_batches_are_weighted_by_their_images(rooms: ResidentData) -> None:
    still = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-30}

    def losses(steps: int, **recipe: Any) -> list[float]:
        views = {"augmentation": "none"}
        training = begin_training(_config(recipe={**still, "views": views, **recipe}, **EVERYTHING), rooms)
        return [float(loss.total) for loss in islice(run_steps(training), steps)]

    (whole,), parts = losses(1, batch_size=6, accumulation=2), losses(2, batch_size=3)
    assert whole == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_dense_training_runs_in_half_precision_and_channels_last(rooms: ResidentData) -> None:
    # Adam's first step has the length of the learning rate in every direction, however small the gradient: not repeatable
    still = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-30}

    def losses(**recipe: Any) -> list[float]:
        training = begin_training(_config(recipe={**still, **recipe}, **EVERYTHING), rooms)
        return [float(loss.total) for loss in islice(run_steps(training), 2)]

    plain, half = losses(), losses(precision="bf16", channels_last=True)
    assert half != plain
    assert half == pytest.approx(plain, rel=0.05)


@pytest.fixture(scope="module")
def run(rooms: ResidentData, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialRun, Path, TrialConfig]:
    config = _config(recipe={"epochs": 2}, **EVERYTHING)
    root = tmp_path_factory.mktemp("results")
    contract = InputContract(manifest=rooms.manifest)
    trial = TrialRun(job_of(config, rooms), rooms, Storage.open(root / "study"), contract=contract)
    return finish(trial), root, config


def test_a_trial_with_smoothing_weights_and_conr_is_recorded(
    run: tuple[TrialRun, Path, TrialConfig], rooms: ResidentData
) -> None:
    trial, root, _ = run
    assert trial.status == "complete"
    assert trial.training.history[0].keys() >= {"train/conr", "train/regression", "val/few/rmse"}
    found = tables(Storage.open(root / "study"))
    named = {(row["split"], row["region"], row["metric"]) for row in found["metrics"]}
    assert {("test", "few", "rmse"), ("test", "all", "delta1"), ("val", "all", "whole_rmse")} <= named
    assert {name for _, _, name in named}.isdisjoint({"pearson", "spearman", "r2"})
    means = [row for row in found["predictions"] if row["split"] == "test"]
    assert len(means) == len(rooms.splits["test"])
    kept = read_model(Storage.open(root / "study"), trial.job.trial_id)
    again = kept.task.evaluate(kept.regressor, rooms.splits["test"], Ranks(), trial.training.regions).predictions
    assert again.tolist() == [row["prediction"] for row in means]
    assert sorted(row["label"] for row in means) == sorted(rooms.splits["test"].exact_labels)


def test_smoothing_learns_from_the_features_of_all_labeled_pixels(
    run: tuple[TrialRun, Path, TrialConfig], manifest: Manifest
) -> None:
    smoothing = run[0].training.model.smoothing
    assert smoothing is not None
    # Every epoch up to the best takes in the labeled pixels of all training images, at half their height and width.
    seen = int(smoothing.count.sum()) / smoothing.epochs
    assert seen == pytest.approx(sum(manifest.train_counts) / 4, rel=0.02)


def test_a_killed_trial_resumes_with_the_same_record(
    run: tuple[TrialRun, Path, TrialConfig], rooms: ResidentData, tmp_path: Path
) -> None:
    _, root, config = run
    study = Storage.open(tmp_path / "study")
    TrialRun(job_of(config, rooms), rooms, study, waits_for_checkpoints=True).step()
    finish(TrialRun(job_of(config, rooms), rooms, study))
    assert lasting(tables(study)) == lasting(tables(Storage.open(root / "study")))


def test_metrics_cannot_be_recomputed_from_means(run: tuple[TrialRun, Path, TrialConfig], manifest: Manifest) -> None:
    root = run[1]
    with pytest.raises(InputError, match="has per-pixel labels, of which only the means"):
        recompute(root, "study", metric="rmse", manifest=manifest)


def test_a_second_stage_trains_a_new_last_convolution(rooms: ResidentData) -> None:
    config = _config(recipe={"epochs": 1}, scheme={"name": "rrt", "epochs": 1}, reweighting={"scheme": "inverse"})
    training = trained(config, rooms)
    assert isinstance(training.model.predictor, nn.Conv2d)
    assert np.isfinite(evaluate(training, "val").predictions).all()


def test_the_data_are_the_same_from_the_object_store(storage: Storage, manifest: Manifest, one_epoch: Weights) -> None:
    config = _config(recipe={"epochs": 1})
    # Budgets for decoded pixels, for encoded bytes, and for neither
    for budget in (2**40, 300_000, 0):
        blocks = materialize(storage, manifest, budget_bytes=budget)
        fetched = fetch(manifest, blocks, torch.device("cpu"))
        assert same(weights_of(trained(config, fetched)), one_epoch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"terms": {"accon": {}}}, r"nyud2: terms.accon: is not defined for per-pixel labels; the term conr is"),
        (
            {"loss": {"name": "bmc"}},
            r"nyud2: loss.name: is not defined for per-pixel labels; l1, mse, gai and bni are, got 'bmc'",
        ),
        (
            {"scheme": {"name": "rrt", "loss": {"name": "bmc"}}},
            r"nyud2: scheme.loss.name: is not defined for per-pixel labels; l1, mse, gai and bni are, got 'bmc'",
        ),
        ({"reweighting": {"scheme": "dense"}}, r"nyud2: reweighting.scheme: is not defined"),
        ({"objective": {"metric": "spearman"}}, r"objective.metric: the data set has no such metric"),
    ],
)
def test_settings_without_a_dense_form_are_refused_by_their_key(
    manifest: Manifest, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_task(manifest).check(_config(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": {"name": "cnn"}}, r"model.encoder: makes one embedding for the whole sample"),
        ({"projection_dim": 8}, r"model.projection_dim: per-pixel embeddings have no projection"),
    ],
)
def test_a_regressor_that_is_not_dense_is_refused(rooms: ResidentData, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        begin_training(_config(model=settings), rooms)


def test_an_augmentation_of_images_alone_is_unknown(manifest: Manifest) -> None:
    config = _config(recipe={"views": {"augmentation": "light"}})
    with pytest.raises(InputError, match=r"unknown augmentation, got 'light'; known: depth, none"):
        check_data_settings(config, manifest, where="test")


def test_the_shipped_study_fits_the_data(manifest: Manifest) -> None:
    file = list_shipped_studies()["nyud2_conr"]
    study = resolve(file.read_plain(), where=file.where)
    check_study(study, manifest)
    settings = {arm.name: arm.config for arm in study.arms}
    assert settings["conr"].terms.conr.variant == "nyu"
    assert settings["inverse_lds"].reweighting.lds.first_bin == 7
    assert settings["sqrt_inverse_lds"].reweighting.scheme == "sqrt_inverse"
