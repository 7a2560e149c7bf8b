"""Run with `pytest tests/tuning/folder/test_reconcile.py`; reuse of records is tested in `test_confirmation` and `test_sweep`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from optuna.storages import InMemoryStorage

from dirtune.errors import InputError
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.results.records.parquetfile import encode_table, read_files
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.layout import STUDY_YAML
from dirtune.tuning.folder.records import TrialOutcome
from tests.tuning.plan.test_checks import MANIFEST
from tests.tuning.simulated_sweep import SimulatedSweep


def test_the_study_file_is_updated_even_if_only_the_resources_differ(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.reconcile()

    def read_study() -> dict[str, object]:
        plain = read_json_object(found.folder, "study.json")
        return {key: plain[key] for key in plain if key != "study_yaml"}

    before = read_study()
    for cpus in (2, 1):
        found.reconcile(resources={"cpus": cpus})
        kept = json.loads(found.folder.read(STUDY_YAML))
        assert kept == {"resources": {"cpus": cpus}}
        assert read_study() == before


def test_a_claim_that_is_changed_once_there_are_results_is_marked_for_good(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)

    def read_claim() -> dict[str, object]:
        return json.loads(found.folder.read("study.json"))["claim"]

    first, second = {"region": "few"}, {"region": "many", "margin": "5%"}
    found.reconcile(claim=first)
    found.reconcile(claim=second)
    # Without a result, nothing has been seen
    assert read_claim() == {"metric": "mae", **second}
    found.sweep(claim=second)
    assert read_claim() == {"metric": "mae", **second}
    found.reconcile(claim=first)
    assert read_claim() == {"metric": "mae", "region": "few", "margin": None, "is_changed": True}
    found.reconcile(claim=second)
    assert read_claim()["is_changed"]
    assert found.sweep(claim=second) == []


def test_groups_of_the_evaluated_samples_are_copied_into_the_folder(tmp_path: Path) -> None:
    data, found = Storage.open(tmp_path / "data"), SimulatedSweep(tmp_path / "results")
    splits = {}
    for split in ("train", "val", "test"):
        file = f"v/{split}.parquet"
        rows = {"sample_id": [f"{split}0", f"{split}1"], "label": [1.0, 2.0], "group": ["p0", f"p{len(split)}"]}
        data.write(f"toy/{file}", encode_table(pa.table(rows)))
        splits[split] = MANIFEST.splits["train"].model_copy(update={"files": (file,), "rows": 2})
    manifest = MANIFEST.model_copy(update={"group": "person", "splits": splits})
    folder = replace(found.make_folder(), manifest=manifest, data=data)

    folder.reconcile(InMemoryStorage())

    (rows,) = read_files(found.folder, ["groups.parquet"])
    assert rows.to_pylist() == [
        {"split": split, "sample_id": f"{split}{i}", "group": group}
        for split in ("val", "test")
        for i, group in enumerate(("p0", f"p{len(split)}"))
    ]
    found.reconcile()


def test_a_resumed_sweep_never_changes_the_study(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep()
    # Resources are no part of the study, and a file of an earlier release has no hash
    found.make_folder(resources={"cpus": 2}).check_text()
    changed = found.make_folder(seeds=[3, 5])
    with pytest.raises(InputError, match=r"study\.yaml: is not the study of this folder: the file was changed"):
        changed.check_text()
    plain = read_json_object(found.folder, "study.json")
    found.folder.write("study.json", json.dumps({key: plain[key] for key in plain if key != "study_yaml"}).encode())
    changed.check_text()


def test_a_plan_of_many_trials_makes_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {
        "reference": "vanilla omega=1",
        "axes": {"terms.conr.omega": list(range(1, 41))},
        "space": {},
        "search": {},
    }
    arms = {"vanilla": {"terms": {"conr": {}}}, "wide": {"terms": {"conr": {}}, "model": {"projection_dim": 8}}}
    found = SimulatedSweep(tmp_path, lambda config: TrialOutcome(status="complete", objective=1.0))
    found.sweep(arms=arms, seeds=[0], **levels)
    monkeypatch.setattr(JobMaker, "make_job", None)
    reuse = found.find_reuse(arms=arms, seeds=[*range(200)], **levels)
    assert (len(reuse.kept), reuse.is_complete) == (80, False)
    assert found.find_reuse(arms=arms, seeds=[0], **levels).is_complete
