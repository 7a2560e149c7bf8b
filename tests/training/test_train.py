"""Run with `pytest tests/training/test_train.py`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dirtune.config import TrialConfig
from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.data.cache import ResidentData
from dirtune.data.store import read_manifest
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.losses import LOSSES
from dirtune.manifest import InputSpec
from dirtune.nested import merge
from dirtune.recipe import Recipe
from dirtune.results.records.store import read_table
from dirtune.study.schema import Study
from dirtune.training import trial
from dirtune.training.checkpoint import load_checkpoint
from dirtune.training.objective import TrainingLoss
from dirtune.training.train import STUDY, check_data_settings, read_vocabulary, train
from dirtune.training.trial import TrialJob, TrialRun

PLAIN: dict[str, Any] = {
    "data": {"name": "toy"},
    "model": {"encoder": {"name": "mlp", "hidden": [8]}, "label_scale": 1.0, "label_offset": 0.0},
    "recipe": {"epochs": 2, "batch_size": 64},
}


def faults_of(config: dict[str, Any], data_root: Path, tmp_path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        train(merge(PLAIN, config), data=data_root, results=tmp_path, where="run.yaml")
    assert not list(tmp_path.iterdir())
    return [str(fault) for fault in caught.value.faults]


def test_plain_data_become_a_recorded_trial(data_root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, dict[str, float]]] = []
    result = train(PLAIN, data=data_root, results=tmp_path, arm="vanilla", on_epoch=lambda *values: seen.append(values))
    assert (result.status, result.reused) == ("complete", False)
    assert [(epoch, planned) for epoch, planned, _ in seen] == [(1, 2), (2, 2)]
    assert result.values == seen[-1][2]

    (row,) = read_table(tmp_path, "trials").to_pylist()
    expected = {
        "study": "train",
        "arm": "vanilla",
        "trial_id": result.trial_id,
        "status": "complete",
        "best_epoch": result.best_epoch,
        "data": "toy",
        "config.recipe.epochs": 2,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["objective"] == min(values["val/all/mae"] for _, _, values in seen)
    assert row["code_version"]
    assert {row["split"] for row in read_table(tmp_path, "predictions").to_pylist()} == {"val", "test"}


def test_sigterm_ends_a_run_with_a_checkpoint_within_the_epoch_and_the_same_call_continues(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "STOP_CHECK_SECONDS", 0.0)
    train(PLAIN, data=data_root, results=tmp_path / "whole")
    asked = trial.TrialRun._is_pause_due

    def terminate(run: TrialRun) -> bool:
        if run.training.epoch == 1:
            signal.raise_signal(signal.SIGTERM)
        return asked(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "_is_pause_due", terminate)
        with pytest.raises(KeyboardInterrupt, match="SIGTERM after 1 epochs and 1 steps"):
            train(PLAIN, data=data_root, results=tmp_path / "parts")
    (folder,) = (tmp_path / "parts/train/trials").iterdir()
    state = load_checkpoint(Storage.open(folder))
    assert state is not None
    assert (len(state["training"]["history"]), state["training"]["unfinished"]["means"]["steps"]) == (1, 1)
    assert train(PLAIN, data=data_root, results=tmp_path / "parts").status == "complete"
    values = [read_table(tmp_path / name, "metrics") for name in ("whole", "parts")]
    assert values[0].equals(values[1])


def test_the_epochs_of_both_stages_are_planned_and_recorded(data_root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = train(
        {**PLAIN, "scheme": {"name": "rrt", "epochs": 1}},
        data=data_root,
        results=tmp_path,
        on_epoch=lambda epoch, planned, _: seen.append((epoch, planned)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    (row,) = read_table(tmp_path, "trials").to_pylist()
    assert (row["epochs_planned"], row["epochs_run"], row["best_epoch"]) == (3, 3, 3)
    assert row["config.scheme.name"] == "rrt"
    assert result.best_epoch == 3


def test_a_configuration_value_and_the_plain_data_it_was_read_from_are_one_trial(
    data_root: Path, tmp_path: Path
) -> None:
    first = train(read(TrialConfig, PLAIN, where="value"), data=data_root, results=tmp_path)
    again = train(PLAIN, data=data_root, results=tmp_path)
    assert (first.trial_id, False, True) == (again.trial_id, first.reused, again.reused)


def test_a_recorded_trial_is_not_run_again(data_root: Path, tmp_path: Path) -> None:
    first = train(PLAIN, data=data_root, results=tmp_path)
    before = read_table(tmp_path, "trials").to_pylist()

    def refuse(*_: object) -> None:
        raise AssertionError("it was run again")

    again = train(PLAIN, data=data_root, results=tmp_path, on_epoch=refuse)
    assert again.reused
    assert (again.trial_id, again.status, again.best_epoch, again.values) == (
        first.trial_id,
        "complete",
        first.best_epoch,
        first.values,
    )
    assert read_table(tmp_path, "trials").to_pylist() == before
    other = train({**PLAIN, "seed": 1}, data=data_root, results=tmp_path)
    assert not other.reused
    assert len(read_table(tmp_path, "trials")) == 2


def test_a_study_is_trained_by_its_arm_and_a_configuration_by_its_file(data_root: Path, tmp_path: Path) -> None:
    arms = {"vanilla": {}, "conr": {"terms": {"conr": {}}}}
    study = {"name": "s", "question": "?", "reference": "vanilla", "seeds": [0], "base": PLAIN, "arms": arms}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(PLAIN))
    results = tmp_path / "results"
    plain = train(PLAIN, data=data_root, results=results)
    for source in (
        tmp_path / "run.yaml",
        str(tmp_path / "run.yaml"),
        study,
        tmp_path / "s.yaml",
        read(Study, study, where="test"),
    ):
        found = train(source, data=data_root, results=results)
        assert (found.trial_id, found.reused) == (plain.trial_id, True)
    other = train(study, data=data_root, results=results, arm="conr")
    assert not other.reused
    assert {row["arm"] for row in read_table(results, "trials").to_pylist()} == {"train", "conr"}
    for wrong, message in (
        (lambda: train(study, data=data_root, arm="cnr"), "unknown arm, got 'cnr'; .*did you mean 'conr'"),
        (lambda: train({}, data=data_root), "configuration: data"),
        (lambda: train("nowhere.yaml", data=data_root), "nowhere.yaml"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


def test_a_failed_trial_stays_failed_when_it_is_asked_for_again(data_root: Path, tmp_path: Path) -> None:
    config = {**PLAIN, "terms": {"conr": {"push_power": 1e300}}}
    results = [train(config, data=data_root, results=tmp_path) for _ in range(2)]
    assert [result.status for result in results] == ["failed", "failed"]
    assert [result.best_epoch for result in results] == [0, 0]
    assert [result.reused for result in results] == [False, True]


def test_an_out_of_memory_run_names_its_batch_and_can_be_repeated(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoss, "forward", lambda *_: torch.empty(10**15))
        result = train(PLAIN, data=data_root, results=tmp_path)
    assert (result.status, result.reused) == ("failed", False)
    assert "out of memory at epoch 1, step 1: a batch of 64 rows x 1 view" in str(result.error)
    assert not (tmp_path / STUDY / "results").exists()
    again = train(PLAIN, data=data_root, results=tmp_path)
    assert (again.status, again.reused) == ("complete", False)


def test_a_killed_trial_resumes_and_a_recorded_one_is_not_run_again(
    data_root: Path, toy: ResidentData, tmp_path: Path, dying_after_the_record: Callable[[Path], Storage]
) -> None:
    config = read(TrialConfig, PLAIN, where="value")
    trial_id = config.compute_trial_id(toy.manifest.fingerprint)
    job = TrialJob(study=STUDY, arm="train", trial_id=trial_id, config=config)
    epochs: list[int] = []
    early, late = tmp_path / "early", tmp_path / "late"

    TrialRun(job, toy, Storage.open(early / STUDY), waits_for_checkpoints=True).step()
    result = train(PLAIN, data=data_root, results=early, on_epoch=lambda epoch, *_: epochs.append(epoch))
    assert (result.status, result.reused, epochs) == ("complete", False, [2])

    trial = TrialRun(job, toy, dying_after_the_record(late / STUDY))
    trial.step()
    with pytest.raises(OSError, match="died here"):
        trial.step()
    assert train(PLAIN, data=data_root, results=late).reused


def test_all_faults_of_a_configuration_come_at_once(data_root: Path, tmp_path: Path) -> None:
    faults = faults_of(
        {"recipe": {"epochs": 0, "optimiz": "sgd"}, "loss": {"name": "l3"}, "seed": -1}, data_root, tmp_path
    )
    assert sorted(faults) == [
        f"run.yaml: loss.name: unknown name, got 'l3'; known: {', '.join(sorted(LOSSES))}",
        "run.yaml: recipe.epochs: should be greater than or equal to 1, got 0",
        f"run.yaml: recipe.optimiz: unknown key, got 'optimiz'; known: {', '.join(sorted(Recipe.model_fields))} "
        "(did you mean 'optimizer'?)",
        "run.yaml: seed: should be greater than or equal to 0, got -1",
    ]


def test_an_unknown_shot_rule_and_augmentation_are_refused_together_with_the_known_ones(
    data_root: Path, tmp_path: Path
) -> None:
    views = {"views": {"augmentation": "shfit"}}
    config = {"data": {"shot_rule": "tyo"}, "recipe": views, "scheme": {"name": "rrt", **views}}
    assert faults_of(config, data_root, tmp_path) == [
        "run.yaml: data.shot_rule: unknown shot rule, got 'tyo'; known: no_few, toy (did you mean 'toy'?)",
        *(
            f"run.yaml: {part}.views.augmentation: unknown augmentation, got 'shfit'; "
            f"known: {', '.join(AUGMENTATIONS)} (did you mean 'shift'?)"
            for part in ("recipe", "scheme")
        ),
    ]


def test_half_precision_that_a_cpu_lacks_is_refused(data_root: Path, tmp_path: Path) -> None:
    assert faults_of({"recipe": {"precision": "fp16"}}, data_root, tmp_path) == [
        "run.yaml: recipe.precision: needs a GPU (resources.gpus, or --device cuda); a CPU can do bf16, got 'fp16'"
    ]


def test_a_key_before_the_faults_tells_which_arm_they_belong_to(data_root: Path) -> None:
    config = read(TrialConfig, merge(PLAIN, {"data": {"shot_rule": "tyo"}}), where="value")
    manifest = read_manifest(Storage.open(data_root), "toy")
    with pytest.raises(InputError, match=r"^study\.yaml: arms\.one\.data\.shot_rule: unknown"):
        check_data_settings(config, manifest, where="study.yaml", key="arms.one")
    check_data_settings(read(TrialConfig, PLAIN, where="value"), manifest, where="study.yaml")


def test_a_data_set_that_is_not_ingested_is_refused_with_those_that_are(data_root: Path, tmp_path: Path) -> None:
    (fault,) = faults_of({"data": {"name": "toi"}}, data_root, tmp_path)
    assert "data set is not ingested (own data: `dirtune ingest table --raw FILE --option name=toi " in fault
    assert "got 'toi'; known: toy" in fault
    assert "did you mean 'toy'" in fault


def test_an_encoder_that_cannot_read_the_data_is_refused(data_root: Path, tmp_path: Path) -> None:
    (fault,) = faults_of({"model": {"encoder": {"name": "bilstm"}}}, data_root, tmp_path)
    assert fault.startswith("model.encoder: encoder 'bilstm' needs")


def test_a_text_data_set_has_a_vocabulary_and_others_have_none(data_root: Path, tmp_path: Path) -> None:
    manifest = read_manifest(Storage.open(data_root), "toy")
    assert read_vocabulary(manifest, Storage.open(data_root)) is None
    tokens = {"first": InputSpec(kind="tokens", shape=(3,), vocabulary=4)}
    text = manifest.model_copy(update={"inputs": tokens})
    storage = Storage.open(tmp_path)
    storage.write("toy/version-1/vocabulary.json", json.dumps({"word": 2, "other": 3}).encode())
    assert read_vocabulary(text, storage) == ["", "", "word", "other"]
