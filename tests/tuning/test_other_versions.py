"""`resume` of a folder that another version of dirtune has written. Run with `pytest tests/tuning/test_other_versions.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records import parquetfile
from tests.tuning.sweeps import sweep_without_ray, with_epochs


@pytest.fixture
def swept(study_file: Callable[..., str], data_root: Path, tmp_path: Path) -> Path:
    """The folder of a complete sweep."""
    assert sweep_without_ray(study_file(**with_epochs(1)), data_root, tmp_path / "results") == 4
    return tmp_path / "results/tiny"


def test_records_of_another_schema_version_are_not_run_again(
    swept: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquetfile, "SCHEMA_VERSION", 6)
    files = sorted((swept / "results/trials").glob("*.parquet"))
    for file in files:
        (rows,) = parquetfile.read_files(Storage.open(swept), [f"results/trials/{file.name}"])
        file.write_bytes(parquetfile.encode_table(rows))
    monkeypatch.undo()
    before = [file.read_bytes() for file in files]
    for call in (dirtune.resume, dirtune.sweep):
        with pytest.raises(InputError) as caught:
            call(
                "tiny" if call is dirtune.resume else str(swept.parents[1] / "tiny.yaml"),
                data=data_root,
                results=swept.parent,
            )
        assert str(caught.value) == (
            f"{files[0]}: has schema version 6, but this dirtune reads 5; it was written by a newer dirtune; "
            "so do 3 other files"
        )
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    "key", ["seeds", "arms", "configs", "trials", "claim", "reference", "question", "splits", "search"]
)
def test_a_study_file_without_a_key_is_continued(swept: Path, data_root: Path, key: str) -> None:
    plain = json.loads((swept / "study.json").read_text())
    del plain["checksum"], plain[key]
    (swept / "study.json").write_text(json.dumps({**plain, "of_tomorrow": 1}))
    summary = dirtune.resume("tiny", data=data_root, results=swept.parent)
    assert (summary.reused, summary.run, summary.left) == (4, {}, 0)


def test_provenance_of_a_newer_version_is_left_alone(swept: Path, data_root: Path) -> None:
    (swept / "provenance.json").write_text(json.dumps({"code_version": "99.0", "of_tomorrow": [1]}))
    assert dirtune.resume("tiny", data=data_root, results=swept.parent).reused == 4
    assert dirtune.status("tiny", results=swept.parent).done == 4
