"""Run with `pytest tests/pipelines/test_downloads.py`. Nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dirtune.data.downloads import RawFile
from dirtune.errors import InputError
from dirtune.pipelines.downloads import RAW_DATA, RawData, download_raw

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the raw lists are not part of the repository")
def test_the_hashes_are_those_of_the_known_lists() -> None:
    checked = set()
    for name, data in RAW_DATA.items():
        for file in data.files:
            if file.sha256 is not None:
                copy = (SHARED / name / file.name).read_bytes()
                assert hashlib.sha256(copy).hexdigest() == file.sha256
                checked.add(file.name)
    assert checked == {
        "agedb.csv",
        "train_new.tsv",
        "dev_new.tsv",
        "test_new.tsv",
        "nyu2_test.csv",
        "nyu2_train_FDS_subset.csv",
    }


def test_all_files_are_tried_and_the_manual_instruction_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple(RawFile(name=name, url=f"http://127.0.0.1:9/{name}") for name in "ab")
    monkeypatch.setitem(RAW_DATA, "nyud2", RawData(files=files, by_hand="fetch the rest"))
    reported: list[str] = []
    with pytest.raises(InputError) as caught:
        download_raw("nyud2", tmp_path, report=reported.append)
    assert [fault.where for fault in caught.value.faults] == [file.url for file in files]
    assert reported == [f"nyud2: fetch the rest ({tmp_path})"]


def test_files_that_are_here_need_no_network(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the raw lists are not part of the repository")
    (tmp_path / "agedb.csv").write_bytes((SHARED / "agedb" / "agedb.csv").read_bytes())
    reported: list[str] = []
    download_raw("agedb", tmp_path, report=reported.append)
    assert reported[0].endswith("as published")
    assert "need a password from their authors" in reported[1]


def test_a_data_set_without_raw_files_lists_those_with_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to download .* got 'digits'; known: agedb, imdb"):
        download_raw("digits", tmp_path)
