"""A storage that fails while a shard is read: run with `pytest tests/data/test_open_shard.py`."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from dirtune.data.store import open_shard
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.tuning.execution.failures import get_error_class


class FailingFile:
    """File of which a number of reads succeed."""

    def __init__(self, file: pa.NativeFile, reads: int) -> None:
        self._file, self.left = file, reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_buffer(self, size: int | None) -> pa.Buffer:
        if not self.left:
            raise OSError(errno.EIO, "Input/output error")
        self.left -= 1
        return self._file.read_buffer(size)


class FailingFileSystem:
    def __init__(self, reads: int) -> None:
        self._reads = reads
        self.file: FailingFile | None = None

    def open_input_file(self, path: str) -> FailingFile:
        if self._reads < 0:
            raise OSError(errno.EIO, "Input/output error")
        self.file = FailingFile(pafs.LocalFileSystem().open_input_file(path), self._reads)
        return self.file


@pytest.fixture
def shard(tmp_path: Path) -> str:
    labels = np.random.default_rng(0).random(50_000)
    table = pa.table({"sample_id": [f"{row}" for row in range(len(labels))], "label": labels})
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=10_000, write_page_checksum=True)
    return str(tmp_path / "part.parquet")


def read(storage: Storage, file: str) -> pa.Table:
    with open_shard(storage, file) as parquet:
        return parquet.read(["sample_id", "label"])


def test_a_storage_error_at_any_read_is_an_outage_that_names_the_file(tmp_path: Path, shard: str) -> None:
    def fail_after(reads: int) -> None:
        with pytest.raises(OSError, match=r"Input/output error: '.*part\.parquet'") as caught:
            read(Storage(FailingFileSystem(reads), str(tmp_path)), shard)
        assert (caught.value.errno, get_error_class(caught.value)) == (errno.EIO, "infrastructure")

    whole = FailingFileSystem(100)
    assert read(Storage(whole, str(tmp_path)), shard).num_rows == 50_000
    assert whole.file is not None
    reads = 100 - whole.file.left
    # At least the footer and the columns
    assert reads > 1
    for number in range(-1, reads):
        fail_after(number)


def test_flipped_and_missing_bytes_are_damage(tmp_path: Path, shard: str) -> None:
    content, storage = Path(shard).read_bytes(), Storage.open(tmp_path)
    for damaged in (content[:1000], content[:200] + bytes([content[200] ^ 4]) + content[201:], content[:-20] + b"PAR1"):
        Path(shard).write_bytes(damaged)
        with pytest.raises(InputError, match=r"part\.parquet: shard cannot be read \(.*\); ingest the data set again"):
            read(storage, shard)
    Path(shard).unlink()
    with pytest.raises(InputError, match=r"shard cannot be read \(no such file\); ingest"):
        read(storage, shard)
