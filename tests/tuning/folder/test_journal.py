"""Run with `pytest tests/tuning/folder/test_journal.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dirtune.io.storage import Storage
from dirtune.tuning.folder.journal import open_journal

SPACE = {
    "rate": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
    "loss": optuna.distributions.CategoricalDistribution(("l1", "mse", None)),
}


def open_study(storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="search", load_if_exists=True)


def drive(study: optuna.Study, first: int, count: int) -> list[dict[str, object]]:
    """Ask, report and tell; return the proposals."""
    proposals = []
    for number in range(first, first + count):
        study.sampler = optuna.samplers.TPESampler(seed=number, n_startup_trials=4)
        trial = study.ask(SPACE)
        trial.set_user_attr("trial_id", f"id-{number}")
        proposals.append(trial.params)
        trial.report(trial.params["rate"], 1)
        study.tell(trial, trial.params["rate"], state=TrialState.COMPLETE)
    return proposals


def test_proposals_are_those_of_optunas_own_storage_which_reads_the_file(tmp_path: Path) -> None:
    expected = drive(open_study(InMemoryStorage()), 0, 12)
    with open_journal(Storage.open(tmp_path)) as journal:
        study = open_study(journal)
        assert drive(study, 0, 8) == expected[:8]
        before = study.trials
    with open_journal(Storage.open(tmp_path)) as journal:
        assert open_study(journal).trials == before
        assert drive(open_study(journal), 8, 4) == expected[8:]
        theirs = JournalStorage(JournalFileBackend(str(tmp_path / "optuna.log")))
        assert open_study(theirs).trials == open_study(journal).trials


@pytest.mark.parametrize("part", [b"{", b'{"op_code":4,"worker_id":"a","study_id":0}'])
def test_a_part_of_a_line_is_cut_off(tmp_path: Path, part: bytes) -> None:
    folder = Storage.open(tmp_path)
    with open_journal(folder) as journal:
        drive(open_study(journal), 0, 2)
    whole = folder.read("optuna.log")
    folder.append("optuna.log", part)
    with open_journal(folder) as journal:
        assert len(open_study(journal).trials) == 2
        drive(open_study(journal), 2, 1)
    content = folder.read("optuna.log")
    assert content.startswith(whole)
    assert all(json.loads(line) for line in content.splitlines())


def damage_middle(content: bytes) -> bytes:
    return content[: len(content) // 3] + bytes(len(content) // 3) + content[2 * len(content) // 3 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "no journal": lambda content: b"SQLite format 3\n" * 99,
    "not a step": lambda content: b"[]\n" + content,
    "no line break": lambda content: content.replace(b"\n", b" ") + b"\n",
    "middle": damage_middle,
    "a step of another release": lambda content: content.replace(b'"op_code":4', b'"op_code":99'),
    "a distribution": lambda content: content.replace(b"FloatDistribution", b"FloatDistributiom"),
    "a setting out of range": lambda content: content.replace(b'"param_value_internal":0', b'"param_value_internal":5'),
    "a list for an id": lambda content: content.replace(b'"id-1"', b'["id-1"]'),
    "a missing study": lambda content: content.split(b"\n", 1)[1],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_journal_that_optuna_cannot_replay_is_begun_anew(tmp_path: Path, name: str) -> None:
    folder = Storage.open(tmp_path)
    with open_journal(folder) as journal:
        drive(open_study(journal), 0, 5)
    folder.write("optuna.log", DAMAGES[name](folder.read("optuna.log")))
    with open_journal(folder) as journal:
        assert journal.get_all_studies() == []
        expected = drive(open_study(InMemoryStorage()), 0, 3)
        assert drive(open_study(journal), 0, 3) == expected


@pytest.mark.parametrize("name", ["what?x=1", "a%2Fb", "a b#c"])
def test_the_journal_of_a_folder_of_any_name_is_inside_of_it(tmp_path: Path, name: str) -> None:
    with open_journal(Storage.open(tmp_path / name)) as journal:
        open_study(journal)
    assert [path.name for path in (tmp_path / name).iterdir()] == ["optuna.log"]
