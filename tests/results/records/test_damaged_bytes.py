"""Run with `pytest tests/results/records/test_damaged_bytes.py`: a changed file is refused, or its numbers are the same."""

from __future__ import annotations

import json
import random
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.status import status as read_status
from dirtune.results.query.query import query
from dirtune.results.records.compaction import compact_study
from dirtune.results.records.parquetfile import encode_table
from dirtune.results.records.schema import SplitPredictions
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from tests.results.record_factory import record, write_study
from tests.study.mutations import mutate, mutate_text

TABLES = ("trials", "metrics")


def _store(root: Path) -> list[Path]:
    write_study(root, [record(arm, seed, 4.0 + seed) for arm in ("vanilla", "conr") for seed in (0, 1)])
    return sorted(root.rglob("*.parquet"))


def _read(root: Path, table: str) -> str:
    return str(query(f"select * from {table} order by all", root).to_pylist())


def _damage(content: bytes, others: list[bytes], drawn: random.Random) -> bytes:
    changed = bytearray(content)
    kind = drawn.choice(("flip", "flip", "flip", "cut", "zero", "swap"))
    if kind == "flip":
        for _ in range(drawn.choice((1, 1, 3))):
            changed[drawn.randrange(len(changed))] ^= 1 << drawn.randrange(8)
    elif kind == "cut":
        changed = changed[: drawn.randrange(len(changed))]
    elif kind == "zero":
        at = drawn.randrange(len(changed))
        end = min(len(changed), at + drawn.choice((1, 8, 64)))
        changed[at:end] = bytes(end - at)
    else:
        changed = bytearray(drawn.choice(others))
    return bytes(changed)


def _count_outcomes(root: Path, seeds: range, *, compacted: bool = False) -> Counter[str]:
    files = _store(root)
    if compacted:
        compact_study("study", results=root)
        files = sorted((root / "study/results/compacted").glob("*.parquet"))
    before = {table: _read(root, table) for table in TABLES}
    contents = {file: file.read_bytes() for file in files}
    outcomes = Counter[str]()
    for seed in seeds:
        drawn = random.Random(seed)
        file = drawn.choice(files)
        table = file.stem if compacted else file.parent.name
        file.write_bytes(_damage(contents[file], list(contents.values()), drawn))
        try:
            outcome = "equal" if _read(root, table) == before[table] else f"other numbers with seed {seed}"
        except InputError as error:
            outcome = "refused" if len(str(error)) <= 2000 else f"a long message with seed {seed}"
        outcomes[outcome] += 1
        file.write_bytes(contents[file])
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("compacted", [False, True])
def test_changed_bytes_give_the_same_numbers_or_one_sentence(tmp_path: Path, compacted: bool) -> None:
    outcomes = _count_outcomes(tmp_path, range(60), compacted=compacted)
    assert outcomes.keys() <= {"equal", "refused"}
    # The trials' own files have the rows of a damaged cache
    assert outcomes["refused"] == 0 if compacted else outcomes["refused"] > 20


@pytest.mark.soak
@pytest.mark.parametrize("compacted", [False, True])
def test_many_changed_bytes(tmp_path: Path, compacted: bool) -> None:
    outcomes = _count_outcomes(tmp_path, range(1000, 3000), compacted=compacted)
    assert outcomes.keys() <= {"equal", "refused"}


def test_flipped_bits_of_predictions_give_the_same_numbers_or_one_sentence(tmp_path: Path) -> None:
    values = np.arange(300.0)
    found = SplitPredictions(sample_ids=[str(each) for each in range(300)], labels=values, predictions=values / 3)
    write_study(tmp_path, [replace(record("a", 0), predictions={"test": found})])
    file = tmp_path / "study/results/predictions/a-0.parquet"
    content, before = file.read_bytes(), _read(tmp_path, "predictions")
    outcomes = Counter[str]()
    # The end of the file, where bits change the index and not the checked pages
    for at in range(len(content) - 1600, len(content), 23):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        file.write_bytes(bytes(changed))
        try:
            outcomes["equal" if _read(tmp_path, "predictions") == before else f"other numbers at {at}"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert outcomes.keys() <= {"equal", "refused"}
    assert outcomes["refused"] > 10


def test_a_retyped_column_is_refused(tmp_path: Path) -> None:
    _store(tmp_path)
    path = tmp_path / "study/results/metrics/conr-0.parquet"
    table = pq.ParquetFile(path).read()
    texts = table.set_column(table.column_names.index("value"), "value", table["value"].cast(pa.string()))
    path.write_bytes(encode_table(texts.replace_schema_metadata(None)))
    with pytest.raises(
        InputError, match=r"conr-0.parquet: has not the columns of the table 'metrics', got \['value'\]"
    ):
        _read(tmp_path, "metrics")


def test_the_rows_of_another_trial_are_refused(tmp_path: Path) -> None:
    _store(tmp_path)
    folder = tmp_path / "study/results/metrics"
    (folder / "conr-0.parquet").write_bytes((folder / "conr-1.parquet").read_bytes())
    with pytest.raises(InputError, match=r"conr-0.parquet: has rows of another trial, got \['conr-1'\]"):
        _read(tmp_path, "metrics")


STUDY = {
    "question": "q",
    "reference": "vanilla",
    "seeds": [0, 1],
    "objective": {"metric": "mae", "region": "all"},
    "claim": {"metric": "mae", "region": "all", "margin": "2%"},
    "data": {"name": "digits", "fingerprint": "data-a", "unit": "px"},
    "configs": {"vanilla": {}, "conr": {}},
    "transfers": {},
    "trials": {"vanilla": 2, "conr": 2},
    "spaces": {},
}


def _find_study_failures(root: Path, seeds: range) -> tuple[Counter[str], list[str]]:
    write_study(
        root, [record(arm, seed) for arm in ("vanilla", "conr") for seed in (0, 1)], arms=["vanilla", "conr"], **STUDY
    )
    path = root / "study/study.json"
    text, outcomes, failures = path.read_text(), Counter[str](), list[str]()
    for seed in seeds:
        drawn = random.Random(seed)
        changes = drawn.choice((1, 1, 2))
        changed = mutate(json.loads(text), drawn, changes)
        path.write_text(mutate_text(text, drawn, changes) if seed % 3 == 0 else json.dumps(changed))
        try:
            render(compare(root, TableRequest(studies=("study",))), "table")
            read_status("study", results=root)
            outcomes["shown"] += 1
        except InputError as error:
            outcomes["refused" if len(str(error)) <= 2000 else "long"] += 1
        except Exception:
            failures.append(f"seed {seed}: {traceback.format_exc(limit=-3)}")
    return outcomes, failures


def test_a_changed_study_file_is_read_or_refused_in_one_sentence(tmp_path: Path) -> None:
    outcomes, failures = _find_study_failures(tmp_path, range(100))
    assert not failures, failures[0]
    assert outcomes.keys() == {"shown", "refused"}


@pytest.mark.soak
def test_many_changed_study_files(tmp_path: Path) -> None:
    outcomes, failures = _find_study_failures(tmp_path, range(1000, 3000))
    assert not failures, "\n".join(failures[:5])
    assert outcomes.keys() == {"shown", "refused"}
