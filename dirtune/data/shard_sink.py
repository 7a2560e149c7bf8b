"""Shards that tasks of Ray Data write and read from disk, one each."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from ray.data import Dataset, Datasink
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import WriteResult

from dirtune.data.columns import select_stored
from dirtune.data.shards import ShardWriter
from dirtune.data.verify import SplitRows, join_rows
from dirtune.errors import Fault, InputError


def write_dataset_shards(writer: ShardWriter, dataset: Dataset) -> SplitRows:
    """Write a split's shards by tasks, and return their content as read from disk.

    Raises:
        InputError: a task has written a shard that this process does not find.
    """
    sink = ShardSink(writer)
    dataset.write_datasink(sink)
    found = join_rows(sorted(sink.shards, key=lambda shard: shard.files))
    known = writer.home.list_files(writer.folder)
    if any(file.rpartition("/")[2] not in known for file in found.files):
        rule = "a worker has written a file that is not found here; all nodes must reach the same data root"
        raise InputError(Fault(where=writer.home.path(writer.folder), rule=rule))
    return found


class ShardSink(Datasink[SplitRows | None]):
    """Writes the rows of a task as one shard."""

    def __init__(self, writer: ShardWriter) -> None:
        self.writer = writer
        self.shards: list[SplitRows] = []
        """Content of the shards after all have been written."""

    # Unlike a number of bytes, it lets Ray Data select the rows of the split in the same task.
    @property
    def min_rows_per_write(self) -> int:
        return self.writer.rows_per_shard

    def write(self, blocks: Iterable[Block], ctx: Any) -> SplitRows | None:
        tables = [table for block in blocks if (table := self._convert(block)).num_rows]
        return self.writer.write(ctx.task_idx, pa.concat_tables(tables)) if tables else None

    def _convert(self, block: Block) -> pa.Table:
        if isinstance(block, pa.Table):
            stored = select_stored(block, self.writer.inputs, has_groups=self.writer.has_groups)
            if stored is not None:
                return stored
        accessor = BlockAccessor.for_block(block)
        return self.writer.convert(accessor.to_batch_format("numpy")) if accessor.num_rows() else pa.table({})

    def on_write_complete(self, write_result: WriteResult[SplitRows | None]) -> None:
        self.shards = [shard for shard in write_result.write_returns if shard is not None]
