"""Run with `pytest tests/training/test_trial.py`; interruption is in `test_trial_resumed`, groups in `test_on_ranks`."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.diagnostics import DIAGNOSTICS
from dirtune.frozen import read
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_statuses, write_record
from dirtune.training.evaluation import predict, represent
from dirtune.training.loop import run_epochs
from dirtune.training.state import begin_training, load_best_weights
from dirtune.training.trial import TrialRun, read_progress, remove_temporary_files
from tests.training.runs import EXPLODING, TERMS, Configure, files, finish, job_of, tables


def strict_json(path: Path) -> Any:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


# --- Files


def test_a_running_trial_has_its_config_progress_and_checkpoint_and_a_recorded_one_its_config(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job = job_of(configuration(), toy)
    folder = Path(study.path(f"trials/{job.trial_id}"))
    trial = TrialRun(job, toy, study, representations=5)
    assert files(folder) == ["config.json"]
    assert read(TrialConfig, read_json_object(Storage.open(folder), "config.json"), where="file") == job.config
    for epoch in (1, 2):
        values = trial.step()
        trial.wait_for_checkpoint()
        best, *others = files(folder)
        assert re.fullmatch(r"checkpoint/best-[0-9a-f]{16}\.pt", best)
        assert others == ["checkpoint/state.pt", "config.json", "progress.json"]
        progress = strict_json(folder / "progress.json")
        assert progress["epochs"][-1] == values
        assert progress["trial"]["epochs_run"] == len(progress["epochs"]) == epoch
        assert read_statuses(study) == {}
    trial.step()
    assert trial.status == "complete"
    assert files(folder) == ["config.json"]
    assert files(Path(study.path("results"))) == sorted(f"{name}/{job.trial_id}.parquet" for name in TABLES)


def test_progress_is_json_where_a_metric_is_undefined_and_becomes_a_record(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job = job_of(configuration(data={"shot_rule": "no_few"}), toy)
    TrialRun(job, toy, study).step()
    path = Path(study.path(f"trials/{job.trial_id}/progress.json"))
    assert strict_json(path)["epochs"][0]["val/few/mae"] is None

    progress = read_progress(study, job.trial_id)
    assert progress is not None
    write_record(study, progress.make_record("pruned"))
    remove_temporary_files(study, job.trial_id)
    assert files(path.parent) == ["config.json"]
    found = tables(study)
    (row,) = found["trials"]
    assert (row["status"], row["epochs_run"], row["best_epoch"]) == ("pruned", 1, 1)
    values = {row["name"]: row["value"] for row in found["epochs"]}
    assert values["val/few/mae"] is None
    assert values["val/all/mae"] == row["objective"]
    assert found["metrics"] == found["predictions"] == []


def test_a_trial_without_progress_has_none(study: Storage) -> None:
    assert read_progress(study, "0" * 16) is None


def test_no_checkpoint_is_written_before_it_is_due(configuration: Configure, toy: ResidentData, study: Storage) -> None:
    trial = TrialRun(job_of(configuration(), toy), toy, study, checkpoint_seconds=1e9)
    trial.step()
    folder = Path(study.path(f"trials/{trial.job.trial_id}"))
    assert files(folder) == ["config.json", "progress.json"]


def test_progress_is_written_once_a_second_and_when_the_trial_is_left(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    trial = TrialRun(job_of(configuration(recipe={"epochs": 5}), toy), toy, study, checkpoint_seconds=1e9)
    trial.step()
    # As if this machine took no time
    trial._progressed_at = float("inf")
    trial.step()

    def count_epochs() -> int:
        progress = read_progress(study, trial.job.trial_id)
        assert progress is not None
        return len(progress.epochs)

    assert count_epochs() == 1
    trial.write_checkpoint()
    assert count_epochs() == 2
    trial.step()
    assert count_epochs() == 2
    trial._progressed_at = 0.0
    trial.step()
    assert count_epochs() == 4


# --- The record


def test_the_record_describes_the_run(configuration: Configure, toy: ResidentData, study: Storage) -> None:
    config = configuration(terms=TERMS, seed=5)
    job, before = job_of(config, toy), datetime.now(UTC)
    trial = finish(TrialRun(job, toy, study))
    found = tables(study)

    (row,) = found["trials"]
    expected = {
        "study": "study",
        "arm": "conr",
        "cell": '{"a":1}',
        "trial_id": job.trial_id,
        "role": "evaluation",
        "replicate": 2,
        "seed": 5,
        "status": "complete",
        "error": None,
        "error_term": None,
        "error_epoch": None,
        "epochs_planned": 3,
        "epochs_run": 3,
        "best_epoch": trial.training.best_epoch,
        "objective": min(values["val/all/mae"] for values in trial.training.history),
        "workers": 1,
        "float32_arithmetic": None,
        "data_placement": "device",
        "sample_order_digest": trial.training.order_digest,
        "data": "toy",
        "data_fingerprint": toy.manifest.fingerprint,
        "code_version": "1+abc",
        "config.terms.conr.omega": 2.0,
        "config.recipe.epochs": 3,
        "config.model.encoder.name": "mlp",
    }
    assert {name: row[name] for name in expected} == expected
    assert before <= row["started_at"] <= row["finished_at"] <= datetime.now(UTC)
    # One clock and time zone
    assert row["finished_at"] - row["started_at"] < timedelta(hours=1)
    assert row["device"] == f"cpu ({torch.get_num_threads()} threads)"
    assert row["peak_memory_bytes"] > 1e6
    seconds = row["seconds_train"] + row["seconds_data"]
    assert row["samples_per_second"] == pytest.approx(3 * 202 / seconds)

    assert {(each["epoch"], each["name"]): each["value"] for each in found["epochs"]} == {
        (epoch, name): value
        for epoch, values in enumerate(trial.training.history, start=1)
        for name, value in values.items()
    }


def test_predictions_are_those_of_the_best_epoch_and_metrics_those_of_best_and_last(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    recipe = {"epochs": 8, "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 16}
    config, by_epoch = configuration(recipe=recipe), []
    for training in run_epochs(begin_training(config, toy)):
        by_epoch.append({split: predict(training, split) for split in ("val", "test")})
    best = finish(TrialRun(job_of(config, toy), toy, study)).training.best_epoch
    assert best < 8
    found = tables(study)

    for split in ("val", "test"):
        rows = [row for row in found["predictions"] if row["split"] == split]
        assert tuple(row["sample_id"] for row in rows) == toy.splits[split].sample_ids
        assert [row["label"] for row in rows] == toy.splits[split].exact_labels.tolist()
        assert [row["prediction"] for row in rows] == by_epoch[best - 1][split].tolist()

    metrics = {
        (row["split"], row["selection"], row["region"], row["metric"]): (row["value"], row["n"])
        for row in found["metrics"]
    }
    assert len(metrics) == len(found["metrics"]) == 2 * 2 * 4 * 9 + 5
    for split, rows in (("val", 30), ("test", 40)):
        for selection, epoch in (("best_val", best), ("last", 8)):
            errors = np.abs(by_epoch[epoch - 1][split] - toy.splits[split].exact_labels)
            value, n = metrics[split, selection, "all", "mae"]
            assert value == pytest.approx(errors.mean(), rel=1e-12)
            assert n == rows
            few = errors[toy.splits[split].label_bins.numpy() >= 6]
            value, n = metrics[split, selection, "few", "mae"]
            assert value == pytest.approx(few.mean(), rel=1e-12)
            assert n == len(few)


def test_the_representations_of_the_best_epoch_are_diagnosed_on_the_test_split(
    configuration: Configure, toy: ResidentData, tmp_path: Path
) -> None:
    recipe = {"epochs": 8, "optimizer": "sgd", "learning_rate": 0.3, "batch_size": 16}
    model = {"projection_dim": 4}
    # Which epoch is the best depends on the last digits of a processor.
    for seed in range(20):
        study = Storage.open(tmp_path / str(seed))
        trial = finish(TrialRun(job_of(configuration(recipe=recipe, model=model, seed=seed), toy), toy, study))
        if trial.training.best_epoch < 8:
            break
    assert trial.training.best_epoch < 8
    found = {row["metric"]: row for row in tables(study)["metrics"] if row["metric"] in DIAGNOSTICS}
    assert {(row["split"], row["selection"], row["region"], row["n"]) for row in found.values()} == {
        ("test", "best_val", "all", 40)
    }

    # By pairs of rows, from a model with the best weights.
    best = begin_training(trial.job.config, toy)
    best.model.load_state_dict(trial.training.best_weights)
    z = best.model.eval()(toy.splits["test"].inputs).representations.detach().double().numpy()
    labels, bins = toy.splits["test"].exact_labels, toy.splits["test"].label_bins.numpy()
    pairs = [(i, j) for i in range(40) for j in range(i)]
    cosines = np.array([z[i] @ z[j] for i, j in pairs])
    distances = np.array([abs(labels[i] - labels[j]) for i, j in pairs])
    close = np.array([bins[i] == bins[j] for i, j in pairs])
    deviations = np.degrees(np.abs(np.arccos(cosines.clip(-1, 1)) - np.pi * distances / 20))
    assert {name: row["value"] for name, row in found.items()} == pytest.approx(
        {
            "alignment": np.mean(2 - 2 * cosines[close]),
            "uniformity": np.log(np.mean(np.exp(-2 * (2 - 2 * cosines)))),
            "tolerance": np.mean(cosines[close]),
            "cosine_correlation": np.corrcoef(cosines, distances)[0, 1],
            "angle_deviation": np.mean(deviations),
        },
        rel=1e-4,
    )


def test_representations_are_kept_of_the_best_epoch_and_spread_over_the_labels(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    trial = TrialRun(job_of(configuration(model={"projection_dim": 4}), toy), toy, study, representations=10)
    kept = tables(finish(trial).study)["representations"]
    test = toy.splits["test"]
    at = {name: row for row, name in enumerate(test.sample_ids)}
    rows = [at[row["sample_id"]] for row in kept]
    assert rows == sorted(rows)
    # The split has 4 samples in each of 10 bins
    assert sorted(test.label_bins[rows].tolist()) == list(range(10))
    assert {row["split"] for row in kept} == {"test"}
    load_best_weights(trial.training)
    expected = represent(trial.training, "test")[rows]
    assert np.array_equal(np.array([row["vector"] for row in kept], np.float32), expected)
    assert np.linalg.norm(expected, axis=1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("asked", "kept"), [(0, 0), (1, 1), (7, 7), (40, 40), (1000, 40)])
def test_as_many_representations_are_kept_as_asked_for_and_there_are(
    configuration: Configure, toy: ResidentData, study: Storage, asked: int, kept: int
) -> None:
    job = job_of(configuration(recipe={"epochs": 1}), toy)
    finish(TrialRun(job, toy, study, representations=asked))
    ids = [row["sample_id"] for row in tables(study)["representations"]]
    assert len(set(ids)) == len(ids) == kept


def test_a_loss_that_is_not_finite_is_recorded_and_not_raised(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    trial = finish(TrialRun(job_of(configuration(recipe=EXPLODING), toy), toy, study))
    assert trial.status == "failed"
    found = tables(study)
    (row,) = found["trials"]
    expected = {
        "status": "failed",
        "error_class": "nan",
        "error_term": "regression",
        "error_epoch": 3,
        "epochs_planned": 4,
        "epochs_run": 2,
    }
    assert {name: row[name] for name in expected} == expected
    assert "loss term 'regression' is not finite at epoch 3, step" in row["error"]
    assert {each["epoch"] for each in found["epochs"]} == {1, 2}
    assert found["metrics"] == found["predictions"] == []
    assert files(Path(study.path(f"trials/{row['trial_id']}"))) == ["config.json"]


def test_a_loss_that_breaks_in_the_first_epoch_leaves_a_record_without_epochs(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    config = configuration(terms={"conr": {"push_power": 1e300}})
    trial = TrialRun(job_of(config, toy), toy, study)
    assert trial.step() == {}
    found = tables(study)
    (row,) = found["trials"]
    assert (row["status"], row["error_term"], row["error_epoch"]) == ("failed", "conr", 1)
    assert (row["epochs_run"], row["best_epoch"], row["objective"]) == (0, None, None)
    assert found["epochs"] == []


# --- Time


@dataclass(frozen=True)
class Clocked(Storage):
    """Notes when the files of the record are written."""

    moments: list[float] = field(default_factory=list)

    def write(self, name: str, content: bytes) -> None:
        if name.startswith("results/"):
            self.moments.append(time.perf_counter())
        super().write(name, content)


def total(seconds: Any) -> float:
    """All columns that account for time."""
    return sum(seconds[f"seconds_{part}"] for part in ("train", "eval", "data", "overhead"))


def test_the_recorded_seconds_add_up_to_the_time_from_being_free_to_the_record(
    configuration: Configure, toy: ResidentData, tmp_path: Path
) -> None:
    # Whatever the worker waited for belongs to the trial
    idle_since = time.perf_counter() - 100.0
    study = Clocked.open(tmp_path / "study")
    trial = TrialRun(job_of(configuration(), toy), toy, study, idle_since=idle_since)
    while trial.status is None:
        started, before = time.perf_counter() - idle_since, trial.training.seconds.total
        trial.step()
        least = started + trial.training.seconds.total - before
        if (progress := read_progress(study, trial.job.trial_id)) is not None:
            assert least <= total(progress.trial) <= time.perf_counter() - idle_since

    (row,) = tables(study)["trials"]
    assert least <= total(row) <= study.moments[0] - idle_since
    assert all(row[f"seconds_{part}"] > 0 for part in ("train", "eval", "data"))
    assert row["seconds_overhead"] >= 100.0


def test_the_seconds_of_an_interrupted_trial_are_those_of_both_runs(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job, started = job_of(configuration(), toy), time.perf_counter()
    first = TrialRun(job, toy, study, idle_since=time.perf_counter() - 100.0, waits_for_checkpoints=True)
    first.step()
    again = TrialRun(job, toy, study, idle_since=time.perf_counter() - 100.0)
    assert vars(again.training.seconds) == vars(first.training.seconds)
    finish(again)
    (row,) = tables(study)["trials"]
    assert 200.0 <= row["seconds_overhead"] <= 200.0 + time.perf_counter() - started
    assert row["seconds_train"] > first.training.seconds.train
