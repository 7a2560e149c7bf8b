"""Run with `pytest tests/tuning/folder/test_models.py`: which models a sweep keeps, and what plan and status say of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dirtune
from dirtune.cli.display import format_bytes, format_plan, format_status
from dirtune.io.storage import Storage
from dirtune.results.records.kept import measure_models
from dirtune.results.records.store import read_table
from dirtune.tuning.folder.jobs import JobMaker
from tests.tuning.sweeps import open_folder, sweep_without_ray

SEARCH: dict[str, Any] = {
    "space": {"terms.conr.beta": {"distribution": "uniform", "low": 0.05, "high": 0.5}},
    "search": {"trials": 3, "sampler": "random", "confirm": True, "tuning_seed": 7},
}
WriteStudy = Callable[..., str]


def kept_rows(folder: Storage) -> list[dict[str, Any]]:
    rows = read_table(folder, "trials", columns=["arm", "role", "seed", "objective"]).to_pylist()
    return [row for row in rows if row["trial_id"] in measure_models(folder)]


def test_the_setting_is_no_part_of_a_trials_id(data_root: Path, tmp_path: Path, study_file: WriteStudy) -> None:
    ids = []
    for keep in ("best", "all", "none"):
        folder = open_folder(study_file(keep_models=keep), data_root, tmp_path)
        maker = JobMaker(study=folder.study, fingerprint=folder.manifest.fingerprint)
        ids.append([job.trial_id for job in maker.make_planned_jobs()])
    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize(("keep", "expected"), [("best", 4), ("all", 7), ("none", 0)])
def test_of_a_confirmed_search_the_trials_of_the_selection_are_kept(
    data_root: Path, tmp_path: Path, study_file: WriteStudy, keep: str, expected: int
) -> None:
    study = study_file(**SEARCH, keep_models=keep)
    planned = dirtune.plan(study, data=data_root, results=tmp_path)
    assert planned.kept_models == expected
    sweep_without_ray(study, data_root, tmp_path)
    folder = Storage.open(tmp_path / "tiny")
    rows = kept_rows(folder)
    assert len(rows) == expected
    assert keep == "all" or all(row["role"] == "evaluation" for row in rows)
    # Files have a header and the contract beside the numbers of the weights.
    assert planned.kept_bytes <= sum(measure_models(folder).values())
    caption = str(format_plan(planned).caption)
    assert f"models kept: {f'{expected} ({keep}), ' if expected else 'none'}" in caption


def test_of_another_search_the_best_model_is_kept(data_root: Path, tmp_path: Path, study_file: WriteStudy) -> None:
    study = study_file(**{**SEARCH, "search": {"trials": 3, "sampler": "random"}})
    assert dirtune.plan(study, data=data_root, results=tmp_path).kept_models == 3
    sweep_without_ray(study, data_root, tmp_path)
    # Removal is the driver's; the next sweep removes what a killed one has left.
    sweep_without_ray(study, data_root, tmp_path)
    folder = Storage.open(tmp_path / "tiny")
    rows = read_table(folder, "trials", columns=["arm", "objective"]).to_pylist()
    best = min((row for row in rows if row["arm"] == "conr"), key=lambda row: row["objective"])
    assert [row["trial_id"] for row in kept_rows(folder) if row["arm"] == "conr"] == [best["trial_id"]]
    assert dirtune.status("tiny", results=tmp_path).without_model == ()


def test_models_move_with_their_records_and_missing_ones_are_named(
    data_root: Path, tmp_path: Path, study_file: WriteStudy
) -> None:
    study, folder = study_file(), Storage.open(tmp_path / "tiny")
    sweep_without_ray(study, data_root, tmp_path)
    before = measure_models(folder)
    assert len(before) == 4
    study = study_file(seeds=[0])
    sweep_without_ray(study, data_root, tmp_path)
    assert len(measure_models(folder)) == 2
    study = study_file()
    assert sweep_without_ray(study, data_root, tmp_path) == 0
    assert measure_models(folder) == before
    assert not folder.list_folders("orphaned/models")

    lost = sorted(before)[0]
    folder.remove(f"models/{lost}")
    assert sweep_without_ray(study, data_root, tmp_path) == 0
    status = dirtune.status("tiny", results=tmp_path)
    assert (status.models, status.without_model) == (3, (lost,))
    assert f"recorded without a model: {lost}" in str(format_status(status).caption)


def test_sizes_have_a_decimal_unit() -> None:
    found = [format_bytes(number) for number in (0, 999, 1000, 999_600, 3_440_000, 2.5e9, 7e12)]
    assert found == ["0 bytes", "999 bytes", "1 kB", "1 MB", "3.44 MB", "2.5 GB", "7 TB"]
