"""Shards of a split: Parquet files, written by tasks of Ray Data, or by this process for rows that are in its memory.

A table of numbers is read, split and standardized by one process, to which Ray would add its start, 10 s, and copies of all
rows. Both ways write the same bytes for the same rows. A shard has the rows of the split among 32 MB of samples, so that
several tasks write a set, in row groups small enough to stream. Each is read from disk by the process that has written it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from dirtune.data.columns import Columns, get_stored_size, to_arrow
from dirtune.data.verify import SplitRows, join_rows, read_shards
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec

SHARD_BYTES = 32 * 2**20
ROW_GROUP_BYTES = 16 * 2**20
# A server may refuse a request of many writers for a while.
_REMOTE_RETRY_SECONDS = 20.0


@dataclass(kw_only=True)
class ShardWriter:
    """Writes and reads the shards of a split; picklable."""

    home: Storage
    """Folder of the data set."""
    folder: str
    """Folder of the split, relative to `home`."""
    split: str
    inputs: Mapping[str, InputSpec]
    label: LabelSpec
    has_groups: bool

    def __post_init__(self) -> None:
        sample_bytes = max(1, sum(get_stored_size(spec) for spec in self.inputs.values()))
        self.rows_per_shard = max(1, SHARD_BYTES // sample_bytes)
        # A row group is the least that a reader holds in memory.
        self.rows_per_group = max(1, ROW_GROUP_BYTES // sample_bytes)

    def convert(self, batch: Columns) -> pa.Table:
        """Return a batch in its stored form."""
        return to_arrow(batch, self.inputs, has_groups=self.has_groups)

    def write(self, number: int, table: pa.Table) -> SplitRows:
        """Write a shard, and return its content as read from disk."""
        file = f"{self.folder}/part_{number:06}.parquet"
        # Pixels and files of images take longer to compress than to write, for a tenth less of disk; none is like another.
        has_images = any(spec.kind in ("image", "dense_label") for spec in self.inputs.values())
        compared = [name for name in table.column_names if name not in self.inputs]
        home = self.home.with_retry(0.0 if self.home.is_local else _REMOTE_RETRY_SECONDS)

        def write_file() -> None:
            home.filesystem.create_dir(home.path(self.folder), recursive=True)
            with pq.ParquetWriter(
                home.path(file),
                table.schema,
                filesystem=home.filesystem,
                compression="none" if has_images else "zstd",
                use_dictionary=compared if has_images else True,
                write_statistics=compared if has_images else True,
                write_page_checksum=True,
            ) as writer:
                writer.write_table(table, row_group_size=self.rows_per_group)

        home.retry(write_file)
        return read_shards(home, self.split, [file], self.inputs, self.label)


def write_batches(writer: ShardWriter, batches: Iterator[Columns]) -> SplitRows:
    """Write a split's shards, one after the other, and return their content as read from disk."""
    tables = _join_tables(map(writer.convert, batches))
    return join_rows([writer.write(number, table) for number, table in enumerate(tables)])


def _join_tables(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join tables until they have the size of a shard."""
    joined, size = list[pa.Table](), 0
    for table in tables:
        joined.append(table)
        size += table.nbytes
        if size >= SHARD_BYTES:
            yield pa.concat_tables(joined)
            joined, size = [], 0
    if joined:
        yield pa.concat_tables(joined)
