"""Shards of a split: Parquet files, written by Ray Data, or by this process for rows that are in its memory.

A table of numbers is read, split and standardized by one process, to which Ray would add its start, 10 s, and copies of all
rows. Both ways write the same bytes for the rows of one block. Shards have at least 128 MB, so that a large set is a few
files, in row groups small enough to stream.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dirtune.data.columns import Columns, get_stored_size, to_arrow
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec

if TYPE_CHECKING:
    from ray.data import Dataset

SHARD_BYTES = 128 * 2**20
ROW_GROUP_BYTES = 16 * 2**20


def write_shards(
    home: Storage,
    folder: str,
    rows: "Dataset | Iterator[Columns]",
    inputs: Mapping[str, InputSpec],
    *,
    has_groups: bool = False,
) -> list[str]:
    """Write a split's shards and return their names relative to the folder of the data set.

    Args:
        home: folder of the data set.
        folder: of the split, relative to it.
        rows: a Ray data set, or batches, which are written one after the other.
        inputs: specification of each input.
        has_groups: True if the batches have a column `group`.
    """
    # A plain dictionary is pickled to the tasks.
    specs = dict(inputs)
    # A row group is the least that a reader holds in memory.
    rows_per_group = max(1, ROW_GROUP_BYTES // max(1, sum(get_stored_size(spec) for spec in inputs.values())))

    def convert_batch(batch: Columns) -> pa.Table:
        return to_arrow(batch, specs, has_groups=has_groups)

    if isinstance(rows, Iterator):
        _write_batches(home, folder, map(convert_batch, rows), rows_per_group)
    else:
        from ray.data.datasource import FilenameProvider

        rows.map_batches(convert_batch, batch_format="numpy").write_parquet(
            home.path(folder),
            filesystem=home.filesystem,
            filename_provider=FilenameProvider(dataset_uuid="part", file_format="parquet"),
            min_bytes_per_file=SHARD_BYTES,
            row_group_size=rows_per_group,
            compression="zstd",
            write_page_checksum=True,
        )
    return [f"{folder}/{name}" for name in home.list_files(folder, suffix=".parquet")]


def _write_batches(home: Storage, folder: str, tables: Iterable[pa.Table], rows_per_group: int) -> None:
    home.filesystem.create_dir(home.path(folder), recursive=True)
    for number, group in enumerate(_join_tables(tables)):
        with pq.ParquetWriter(
            home.path(f"{folder}/part_{number:06}.parquet"),
            group.schema,
            filesystem=home.filesystem,
            compression="zstd",
            write_page_checksum=True,
        ) as writer:
            writer.write_table(group, row_group_size=rows_per_group)


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
