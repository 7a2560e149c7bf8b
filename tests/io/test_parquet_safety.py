"""Parquet files with pickled objects never execute code, wherever they are read.

Run with `pytest tests/io/test_parquet_safety.py`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dirtune.data.blocks import read_without_ray
from dirtune.data.store import read_manifest
from dirtune.errors import InputError
from dirtune.io.parquet_safety import check_columns, find_column_fault
from dirtune.io.storage import Storage
from dirtune.pipelines.sheets import read_sheet
from dirtune.results.records.store import read_table
from dirtune.training.trial import get_trial_folder
from tests.results.record_factory import record, write_study
from tests.training.conftest import data_root

__all__ = ["data_root"]

OBJECT = "ray.data.arrow_pickled_object"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return exec, ("from pathlib import Path; Path(mark).touch()", {"mark": str(self.mark)})


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "exploded"


@pytest.fixture
def bombs(mark: Path) -> pa.ExtensionArray:
    """Return two values of the type that Ray Data registers."""
    import ray.data
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    assert ray.data
    stored = pa.array([pickle.dumps(Bomb(mark))] * 2, pa.large_binary())
    return ArrowPythonObjectType().wrap_array(stored)


def test_pyarrow_alone_executes_pickled_code(bombs: pa.ExtensionArray, mark: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": bombs}), tmp_path / "a.parquet")
    table = pq.ParquetFile(tmp_path / "a.parquet").read()
    assert not mark.exists()
    table.to_pylist()
    assert mark.exists()


def test_a_results_table_with_pickled_values_is_refused(bombs: pa.ExtensionArray, mark: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "results", [record("a", 0, 1.0)])
    file = Path(study.path("results/trials/a-0.parquet"))
    rows = pq.read_table(file)
    rows = rows.set_column(rows.column_names.index("arm"), "arm", bombs.slice(0, 1))
    pq.write_table(rows, file)
    with pytest.raises(InputError, match=rf"a-0\.parquet: only plain columns .*'arm': '{OBJECT}'"):
        read_table(tmp_path / "results", "trials")
    assert not mark.exists()


def test_a_shard_with_pickled_values_is_refused(
    bombs: pa.ExtensionArray, mark: Path, data_root: Path, tmp_path: Path
) -> None:
    storage = Storage.open(data_root)
    content = {path: path.read_bytes() for path in (data_root / "toy").rglob("*") if path.is_file()}
    for path, each in content.items():
        Storage.open(tmp_path).write(str(path.relative_to(data_root)), each)
    shard = next((tmp_path / "toy").rglob("test/*.parquet"))
    rows = pq.read_table(shard)
    pickled = pa.ExtensionArray.from_storage(
        bombs.type, pa.array([bombs.storage[0].as_py()] * len(rows), pa.large_binary())
    )
    pq.write_table(rows.set_column(0, rows.column_names[0], pickled), shard)
    assert read_without_ray(storage, read_manifest(storage, "toy"), torch.device("cpu"))
    copy = Storage.open(tmp_path)
    with pytest.raises(InputError, match=rf"only plain columns are read.*{OBJECT}"):
        read_without_ray(copy, read_manifest(copy, "toy"), torch.device("cpu"))
    assert not mark.exists()


def test_a_user_table_with_pickled_values_is_refused(bombs: pa.ExtensionArray, mark: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"strength": bombs}), tmp_path / "mine.parquet")
    with pytest.raises(InputError, match=rf"mine\.parquet: only plain columns .*{OBJECT}"):
        read_sheet(tmp_path / "mine.parquet")
    assert not mark.exists()


def test_nested_extension_types_are_found(bombs: pa.ExtensionArray) -> None:
    inside = {
        "list": pa.list_(bombs.type),
        "struct": pa.struct({"a": pa.int8(), "b": bombs.type}),
        "dictionary": pa.dictionary(pa.int8(), pa.list_(bombs.type)),
        "built in": pa.uuid(),
    }
    schema = pa.schema({**inside, "plain": pa.float64(), "name of one: extension<": pa.string()})
    fault = find_column_fault(schema, where="file")
    assert fault is not None
    assert fault.got == {"list": OBJECT, "struct": OBJECT, "dictionary": OBJECT, "built in": "arrow.uuid"}


def test_plain_columns_are_accepted() -> None:
    plain = [pa.float64(), pa.list_(pa.float32(), 3), pa.dictionary(pa.int8(), pa.string())]
    check_columns(pa.schema({str(kind): kind for kind in plain}), where="file")
    check_columns(pa.schema({"extension<": pa.string()}), where="file")


@pytest.mark.parametrize("name", ["../outside", "../../home", "..", "a/../../outside"])
def test_a_record_cannot_name_a_folder_outside_its_study(tmp_path: Path, name: str) -> None:
    study = Storage.open(tmp_path / "results" / "study")
    with pytest.raises(InputError, match="a name must stay inside of its folder, got"):
        get_trial_folder(study, name).remove("checkpoint")
    assert Storage.open(tmp_path).get_folder("a..b").path("..c") == f"{tmp_path}/a..b/..c"
