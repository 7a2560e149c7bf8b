"""Plans of sweeps on the toy data, without Ray. Run with `pytest tests/tuning/plan/test_plan.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import dirtune
from dirtune import cli
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.study.resolve import ResolvedStudy, load_study, resolve
from dirtune.training.trial import TrialJob, TrialRun
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.reconcile import StudyFolder
from dirtune.tuning.plan.capacity import Node
from dirtune.tuning.plan.plan import Plan
from dirtune.tuning.plan.runtime import START_SECONDS, compute_makespan
from tests.training.conftest import SETTINGS
from tests.training.runs import finish

STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "?",
    "reference": "vanilla",
    "seeds": [0, 1],
    "base": SETTINGS,
    "arms": {"vanilla": {}, "mse": {"loss": {"name": "mse"}}},
    "resources": {"cpus": 1, "concurrent": 2},
}
RATE = {"recipe.learning_rate": {"distribution": "uniform", "low": 0.001, "high": 0.1}}
UNREAD = {"recipe.momentum": {"distribution": "uniform", "low": 0.1, "high": 0.99}}
WriteStudy = Callable[..., str]


@pytest.fixture
def study_file(tmp_path: Path) -> WriteStudy:
    def write(**changes: Any) -> str:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return str(path)

    return write


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of these tests."""
    monkeypatch.setattr("dirtune.tuning.plan.capacity.list_available_nodes", lambda: (Node(8),))


def run_all(study: ResolvedStudy, toy: Any, results: Path, *, keep: Callable[[TrialJob], bool]) -> None:
    """Run the planned trials, those that are kept, in the study's folder."""
    for job in JobMaker(study=study, fingerprint=toy.manifest.fingerprint).make_planned_jobs():
        if keep(job):
            finish(TrialRun(job, toy, Storage.open(results).get_folder(study.name)))


def reconcile(folder: StudyFolder) -> None:
    """Make the folder the study's, as a sweep does before its first trial."""
    with folder.open_journal() as journal:
        folder.reconcile(journal)


def test_without_records_the_run_time_is_unknown(data_root: Path, tmp_path: Path, study_file: WriteStudy) -> None:
    found = dirtune.plan(study_file(), data=data_root, results=tmp_path / "results")
    assert found.forecast is not None
    assert found.forecast.trials == {"vanilla": None, "mse": None}
    assert found.forecast.left == {"vanilla": 2, "mse": 2}
    assert (found.forecast.seconds, found.setting_effects, found.inert_settings) == (None, None, ())
    assert not (tmp_path / "results").exists()


def test_the_run_time_is_estimated_from_recorded_trials(
    data_root: Path, toy: Any, tmp_path: Path, study_file: WriteStudy
) -> None:
    path, results = study_file(), tmp_path / "results"
    study = load_study(path)
    text = Path(path).read_text()
    reconcile(StudyFolder(Storage.open(results).get_folder("tiny"), study, toy.manifest, text))
    run_all(study, toy, results, keep=lambda job: job.arm == "vanilla" or job.replicate == 0)
    found = dirtune.plan(path, data=data_root, results=results)
    forecast = found.forecast
    assert forecast is not None
    assert forecast.left == {"vanilla": 0, "mse": 1}
    vanilla, mse = forecast.trials["vanilla"], forecast.trials["mse"]
    assert vanilla is not None
    assert mse is not None
    assert (vanilla.source, mse.source) == ("from 2 recorded trials of the arm", "from 1 recorded trial of the arm")
    rows = dirtune.query(
        "select seconds_train + seconds_eval + seconds_data + seconds_overhead s from trials where arm = 'mse'",
        results=results,
    )
    (seconds,) = rows["s"]
    assert mse.seconds == pytest.approx(seconds)
    assert forecast.seconds == pytest.approx(seconds + START_SECONDS)


def test_orphaned_records_that_are_planned_again_need_not_run(
    data_root: Path, toy: Any, tmp_path: Path, study_file: WriteStudy
) -> None:
    results = tmp_path / "results"

    def take(**changes: Any) -> ResolvedStudy:
        path = study_file(**changes)
        study = load_study(path)
        folder = Storage.open(results).get_folder("tiny")
        reconcile(StudyFolder(folder, study, toy.manifest, Path(path).read_text()))
        return study

    run_all(take(), toy, results, keep=lambda job: job.arm == "mse")
    take(arms={"vanilla": {}})
    found = dirtune.plan(study_file(), data=data_root, results=results)
    assert found.recorded_trials == 2
    assert found.forecast is not None
    assert found.forecast.left == {"vanilla": 2, "mse": 0}


def test_a_probe_estimates_the_time_of_every_arm(data_root: Path, tmp_path: Path, study_file: WriteStudy) -> None:
    found = dirtune.plan(study_file(), data=data_root, results=tmp_path, probe=True)
    assert found.forecast is not None
    estimates = list(found.forecast.trials.values())
    assert {each.source for each in estimates if each} == {"from a probe of 10 steps of every arm"}
    seconds = [each.seconds for each in estimates if each]
    assert min(seconds) > 0
    assert found.forecast.seconds == pytest.approx(compute_makespan([*seconds, *seconds], 2) + START_SECONDS)
    assert not (tmp_path / "tiny").exists()


def test_inert_settings_are_found_without_running_trials(
    data_root: Path, tmp_path: Path, study_file: WriteStudy
) -> None:
    path = study_file(space={**RATE, **UNREAD}, search={"trials": 3})
    found = dirtune.plan(path, data=data_root, results=tmp_path, effects=True)
    assert [str(each) for each in found.inert_settings] == [
        f"arm {arm}: setting recipe.momentum changes neither loss nor gradient (0.1 against 0.99)"
        for arm in ("vanilla", "mse")
    ]
    assert found.setting_effects is not None
    assert [each.change.kind for each in found.setting_effects] == [
        "gradient",
        "updates",
        "nothing",
        "updates",
        "nothing",
    ]
    assert not (tmp_path / "tiny").exists()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["dirtune", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    code = end.value.code or 0
    assert isinstance(code, int)
    return code


def test_the_command_exits_with_one_if_a_measured_setting_is_inert(
    data_root: Path,
    tmp_path: Path,
    study_file: WriteStudy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = ["--data", data_root, "--results", tmp_path / "results"]
    dead = study_file(space=UNREAD)
    assert call(monkeypatch, "plan", dead, *places) == 0
    assert "changes neither" not in capsys.readouterr().out
    assert call(monkeypatch, "plan", dead, *places, "--effects", "--probe") == 1
    out = capsys.readouterr().out
    assert "time: about " in out
    assert "from a probe of 10 steps of every arm" in " ".join(out.split())
    sentence = "arm mse: setting recipe.momentum changes neither loss nor gradient (0.1 against 0.99)"
    assert sentence in out.splitlines()
    alive = study_file(space=RATE)
    assert call(monkeypatch, "plan", alive, *places, "--effects") == 0
    assert "changes the updates" in capsys.readouterr().out


def test_a_study_that_fits_on_no_node_is_rejected_with_exit_code_2(
    data_root: Path,
    tmp_path: Path,
    study_file: WriteStudy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dirtune.tuning.plan.capacity.list_available_nodes", lambda: (Node(3), Node(3)))
    path = study_file(resources={"cpus": 4})
    with pytest.raises(InputError, match="a worker needs 4 CPUs and 0 GPUs on one node"):
        dirtune.plan(path, data=data_root, results=tmp_path)
    assert call(monkeypatch, "plan", path, "--data", data_root, "--results", tmp_path) == 2
    assert capsys.readouterr().err == (
        "dirtune: tiny: resources: a worker needs 4 CPUs and 0 GPUs on one node; "
        "the nodes (2 with 3 CPUs and 0 GPUs) hold 0 of the 1 of a trial\n"
    )


def test_a_plan_has_the_total_of_all_trials() -> None:
    plan = Plan(
        study=resolve(STUDY, where="test"),
        samples={"train": 3},
        trials={"a": 2, "b": 5},
        recorded_trials=1,
        concurrency=2,
        parameters={"a": 1, "b": 1},
    )
    assert plan.total_trials == 7
