"""Run with `pytest tests/tuning/folder/test_damaged_files.py`: torn and oddly typed files of a study's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.analysis.status import status
from dirtune.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from dirtune.training.trial import read_progress
from tests.tuning.simulated_sweep import SimulatedSweep

DAMAGES = ["", "{", "[]", "3", "null", '{"conr": 3}', "[" * 100_000, "9" * 5_000, "\ud800"]


def damage(folder: Storage, name: str, text: str) -> None:
    folder.write(name, text.encode(errors="surrogatepass"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSweep:
    found = SimulatedSweep(tmp_path_factory.mktemp("finished"))
    found.sweep()
    return found


def test_a_damaged_selection_is_written_again_from_the_records(finished: SimulatedSweep) -> None:
    before = finished.folder.read("selected.json")
    for text in DAMAGES:
        damage(finished.folder, "selected.json", text)
        assert not finished.find_reuse().is_complete
        assert finished.sweep() == []
        assert json.loads(finished.folder.read("selected.json")) == json.loads(before)
    assert finished.find_reuse().is_complete


def test_a_lost_study_file_is_written_again(finished: SimulatedSweep) -> None:
    before = finished.folder.read("study.yaml")
    finished.folder.remove("study.yaml")
    assert finished.sweep() == []
    assert finished.folder.read("study.yaml") == before


def test_a_damaged_study_or_configuration_is_one_sentence_with_its_name(finished: SimulatedSweep) -> None:
    trial_id = json.loads(finished.folder.read("selected.json"))["conr"]["trial_id"]
    for name in ("study.json", f"trials/{trial_id}/config.json"):
        whole = finished.folder.read(name)
        for text in (each for each in DAMAGES if not each.endswith("}")):
            damage(finished.folder, name, text)
            with pytest.raises(InputError, match=name) as refused:
                finished.find_reuse()
            assert len(str(refused.value)) <= 2000
        finished.folder.write(name, whole)


def test_damaged_progress_counts_as_none_and_status_names_it(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.make_queue()
    for text in [*DAMAGES, '{"trial": {}}', '{"trial": {"arm": "a", "seed": "x"}}']:
        damage(found.folder, "trials/t/progress.json", text)
        assert read_progress(found.folder, "t") is None or "trial" in text
        with pytest.raises(InputError, match=r"trials/t/progress.json: "):
            status("tiny", results=tmp_path)


def test_a_torn_checkpoint_counts_as_none(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    save_checkpoint(folder, {"weights": torch.arange(5_000.0)})
    whole = folder.read(CHECKPOINT)
    assert load_checkpoint(folder) is not None
    for content in (b"", b"torn", whole[:100], whole[: len(whole) // 2], whole[:-9], bytes(len(whole))):
        folder.write(CHECKPOINT, content)
        assert load_checkpoint(folder) is None
