"""Run with `pytest tests/training/test_kept_model.py`: a kept model predicts what its trial has recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dirtune.data.cache import ResidentData
from dirtune.data.contract import InputContract
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.kept import MODEL_FILES, measure_models
from dirtune.results.records.store import read_statuses, read_table
from dirtune.training.distributed import Ranks
from dirtune.training.kept_model import read_model
from dirtune.training.trial import TrialRun
from tests.training.runs import Configure, files, finish, job_of
from tests.training.test_trial_resumed import RESUMED, DyingBeforeTheRecord


def recorded(study: Storage) -> np.ndarray:
    table = read_table(study, "predictions", columns=["split", "prediction"]).to_pandas()
    return table.loc[table["split"] == "test", "prediction"].to_numpy()


def predict_test(study: Storage, trial_id: str, data: ResidentData) -> np.ndarray:
    model = read_model(study, trial_id)
    found = model.task.collect_outputs(model.regressor, data.splits["test"], Ranks(), lambda output: output.predictions)
    return found.double().numpy()


@pytest.mark.parametrize("name", RESUMED)
def test_a_kept_model_predicts_the_recorded_numbers_bit_for_bit(
    configuration: Configure, toy: ResidentData, study: Storage, name: str
) -> None:
    job = job_of(configuration(**RESUMED[name]), toy)
    trial = TrialRun(job, toy, study, contract=InputContract(manifest=toy.manifest))
    trial.step()
    assert measure_models(study) == {}
    finish(trial)
    folder = Path(study.path(f"models/{job.trial_id}"))
    assert files(folder) == sorted(MODEL_FILES)
    assert measure_models(study) == {job.trial_id: sum((folder / name).stat().st_size for name in MODEL_FILES)}
    # Another global random state must not matter.
    torch.manual_seed(99)
    np.testing.assert_array_equal(predict_test(study, job.trial_id, toy), recorded(study))


def test_a_trial_killed_between_model_and_record_writes_both_again(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job, contract = job_of(configuration(), toy), InputContract(manifest=toy.manifest)
    with pytest.raises(OSError, match="died here"):
        finish(TrialRun(job, toy, DyingBeforeTheRecord(study.filesystem, study.root), contract=contract))
    assert job.trial_id in measure_models(study)
    assert read_statuses(study) == {}
    finish(TrialRun(job, toy, study, contract=contract))
    np.testing.assert_array_equal(predict_test(study, job.trial_id, toy), recorded(study))


def test_no_model_is_kept_without_a_contract_or_of_a_failed_trial(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    finish(TrialRun(job_of(configuration(), toy), toy, study))
    exploding = configuration(recipe={"optimizer": "sgd", "learning_rate": 1e30})
    failed = finish(TrialRun(job_of(exploding, toy), toy, study, contract=InputContract(manifest=toy.manifest)))
    assert failed.status == "failed"
    assert measure_models(study) == {}


def test_a_missing_or_damaged_model_is_one_sentence(
    configuration: Configure, toy: ResidentData, study: Storage
) -> None:
    job = job_of(configuration(), toy)
    finish(TrialRun(job, toy, study, contract=InputContract(manifest=toy.manifest)))
    where = f"models/{job.trial_id}"
    weights, config = study.read(f"{where}/model.safetensors"), study.read(f"{where}/config.json")
    flipped = bytearray(weights)
    # In the mantissa of the last weight
    flipped[-2] ^= 1
    for name, content, expected in (
        ("model.safetensors", bytes(flipped), "damaged weights .their content was changed"),
        ("model.safetensors", weights.replace(b'"workers":"1"', b'"workers":"2"'), "damaged weights"),
        ("model.safetensors", weights[:100], "damaged weights"),
        ("model.safetensors", b"", "damaged weights"),
        ("config.json", config.replace(b'"mlp"', b'"cnn"'), "unknown|not readable"),
        ("config.json", b"{", "not readable as JSON"),
        ("inputs.json", b"{}", "not readable by this version"),
    ):
        before = study.read(f"{where}/{name}")
        study.write(f"{where}/{name}", content)
        with pytest.raises(InputError, match=expected):
            read_model(study, job.trial_id)
        study.write(f"{where}/{name}", before)
    changed = config.replace(b"8\n", b"9\n", 1)
    study.write(f"{where}/config.json", changed)
    with pytest.raises(InputError, match="content was changed after it was written"):
        read_model(study, job.trial_id)
    # Without its checksum a file may be written by hand.
    by_hand = {key: value for key, value in json.loads(changed).items() if key != "checksum"}
    study.write(f"{where}/config.json", json.dumps(by_hand).encode())
    with pytest.raises(InputError, match="not the weights of this configuration"):
        read_model(study, job.trial_id)
    study.remove(f"{where}/inputs.json")
    with pytest.raises(InputError, match="no model of this trial was kept"):
        read_model(study, job.trial_id)
