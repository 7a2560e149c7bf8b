"""Data store: layout of an ingested data set on disk, writing it, and reading it.

```
<root>/<name>/manifest.json                          names the current version; written last
<root>/<name>/version-<hex>/<split>/part_*.parquet   shards (`dirtune.data.shards`)
<root>/<name>/version-<hex>/<side file>              e.g. vocabulary.json
```
A set is the version that its manifest names. A new version is written next to the previous one, read once from disk
(rows, label histogram, hashes, faults), and becomes current by one atomic write of the manifest; versions that the manifest
does not name are then removed. So a killed ingest costs disk space until the next one, never data. Reading needs pyarrow
only. All nodes of a cluster must reach the root: a shared disk or a URL.

Trade-off: one extra read of the whole set at ingest buys a manifest that describes the files on disk.
"""

import errno
import importlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dirtune.data.columns import Columns, to_numpy
from dirtune.data.shards import ShardWriter, write_batches
from dirtune.data.verify import SplitRows, check_rows, hash_digests
from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.io.jsonfile import encode_json_object, parse_json_object
from dirtune.io.parquet_safety import check_columns
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.metrics import EXTRA_METRICS
from dirtune.process import remember_interrupt

if TYPE_CHECKING:
    from ray.data import Dataset

_VERSION = "version-"
# File in an uncommitted version. Another ingest that finishes first removes it with the folder, even if shards follow.
_OPEN = "open"


def write_dataset(
    storage: Storage,
    name: str,
    splits: "Mapping[str, Dataset | Iterator[Columns]]",
    *,
    inputs: Mapping[str, InputSpec],
    label: LabelSpec,
    shot_rules: Mapping[str, ShotRule],
    default_shot_rule: str,
    source: Mapping[str, str],
    metrics: Sequence[str] = (),
    group: str | None = None,
    notes: Sequence[str] = (),
    side_files: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write a data set as a new version, make it the current one, and remove the previous one.

    After any error the previous version is complete and the new one is removed.

    Args:
        storage: the data root.
        name: of the data set.
        splits: a Ray data set or an iterator over batches per split; batches in numpy format hold `sample_id`, `label` (in
            the label's unit) and one column per input, of the shape in `inputs`; an encoded image as bytes; a label of several dimensions as a
            vector.
        inputs: specification of each input.
        label: specification of the label.
        shot_rules: by name; must contain `default_shot_rule`.
        default_shot_rule: name of the rule of all results.
        source: origin of the data; `find_ingested` compares `source["request"]`.
        metrics: names of `dirtune.metrics.EXTRA_METRICS` that are computed for this set in addition to the general ones.
        group: meaning of the text column `group` of the batches; None if there is no such column.
        notes: sentences for users.
        side_files: further files of the set by name, for `read_side_file`.

    Raises:
        InputError: a sample id occurs twice, a label is not finite or out of range, a split is empty, or another
            ingest of the same set finished meanwhile; up to 20 rows are listed.
    """
    if "train" not in splits or default_shot_rule not in shot_rules:
        raise ValueError(f"a train split and the shot rule {default_shot_rule!r} must be given")
    if unknown := set(metrics) - EXTRA_METRICS.keys():
        raise ValueError(f"unknown metrics {sorted(unknown)}; known: {sorted(EXTRA_METRICS)}")
    if label.dense is not None and (missing := set(label.dense.columns) - inputs.keys()):
        raise ValueError(f"the columns of the per-pixel labels {sorted(missing)} must be among the inputs")
    home, version = storage.get_folder(name), f"{_VERSION}{uuid.uuid4().hex}"
    with remember_interrupt() as raise_if_interrupted, ExitStack() as at_the_end:
        # Runs after errors, too: the new version is then the one that no manifest names.
        at_the_end.callback(_remove_old_versions, home)
        for side_name, content in {**(side_files or {}), _OPEN: b""}.items():
            home.write(f"{version}/{side_name}", content)
        rows = {}
        for split, dataset in splits.items():
            writer = ShardWriter(
                home=home,
                folder=f"{version}/{split}",
                split=split,
                # A plain dictionary is pickled to the tasks.
                inputs=dict(inputs),
                label=label,
                has_groups=group is not None,
            )
            # As read from disk, so that the manifest describes the files and not the intention.
            rows[split] = _write_split(writer, dataset)
        check_rows(rows, label, where=name)
        manifest = Manifest(
            name=name,
            inputs=dict(inputs),
            label=label,
            shot_rules=dict(shot_rules),
            default_shot_rule=default_shot_rule,
            splits={split: found.make_split_info(label) for split, found in rows.items()},
            content_hash=hash_digests(found.content_digests for found in rows.values()),
            split_fingerprint=hash_digests(found.split_digests for found in rows.values()),
            metrics=tuple(metrics),
            group=group,
            source=dict(source),
            notes=tuple(notes),
        )
        # Ray catches Ctrl-C in its own calls; an interrupted ingest must not be committed.
        raise_if_interrupted()
        if not home.exists(f"{version}/{_OPEN}"):
            rule = "another ingest of this data set finished meanwhile; nothing was changed"
            raise InputError(Fault(where=name, rule=rule))
        home.remove(f"{version}/{_OPEN}")
        # The last write commits: readers see the previous version or this one, never a mixture.
        home.write(MANIFEST, encode_json_object(manifest.model_dump(mode="json")))
    return manifest


def _write_split(writer: ShardWriter, rows: "Dataset | Iterator[Columns]") -> SplitRows:
    if isinstance(rows, Iterator):
        return write_batches(writer, rows)
    # A table needs no Ray.
    from dirtune.data.shard_sink import write_dataset_shards

    return write_dataset_shards(writer, rows)


def _remove_old_versions(home: Storage) -> None:
    home.remove_abandoned_files()
    # A search in the text, not in the parsed manifest, also keeps a version that a manifest of another release names.
    text = home.read(MANIFEST).decode(errors="replace") if home.exists(MANIFEST) else ""
    for folder in home.list_folders():
        if folder.startswith(_VERSION) and folder not in text:
            home.remove(folder)


def list_datasets(storage: Storage) -> list[str]:
    """Return the names of the data sets that are ingested below a data root."""
    return [name for name in storage.list_folders() if storage.exists(f"{name}/{MANIFEST}")]


def read_manifest(storage: Storage, name: str) -> Manifest:
    """Return the manifest of a data set.

    Raises:
        InputError: the set is not ingested, or its manifest cannot be read.
    """
    where = storage.path(f"{name}/{MANIFEST}")
    if not storage.exists(f"{name}/{MANIFEST}"):
        rule = f"data set is not ingested ({_suggest_ingest(name)})"
        raise InputError(Fault(where=storage.path(), rule=rule, got=name, known=list_datasets(storage)))
    try:
        raw = parse_json_object(storage.read(f"{name}/{MANIFEST}"))
    except ValueError as error:
        rule = f"damaged manifest ({error}); ingest the data set again"
        raise InputError(Fault(where=where, rule=rule)) from None
    return read(Manifest, raw, where=where)


def _suggest_ingest(name: str) -> str:
    # By name, so that the library has no import of a data set
    if name in importlib.import_module("dirtune.pipelines").PIPELINES:
        return f"`dirtune ingest {name}` does it"
    if name.startswith("uci_"):
        return f"`dirtune ingest uci --raw DIR --option table={name.removeprefix('uci_')}` does it"
    return f"own data: `dirtune ingest table --raw FILE --option name={name} --option label=COLUMN`; others: `dirtune list data`"


def find_ingested(storage: Storage, name: str, request: str) -> Manifest | None:
    """Return the manifest of a data set if it was ingested by the same request and no shard is missing, else None."""
    try:
        manifest = read_manifest(storage, name)
    except InputError:
        return None
    files = [file for info in manifest.splits.values() for file in info.files]
    complete = all(storage.exists(f"{name}/{file}") for file in files)
    return manifest if complete and manifest.source.get("request") == request else None


def list_shards(storage: Storage, manifest: Manifest, split: str) -> list[str]:
    """Return the full paths of a split's shards inside `storage.filesystem`, for readers such as Ray Data.

    Raises:
        InputError: the data set has no such split.
    """
    if split not in manifest.splits:
        known = tuple(manifest.splits)
        raise InputError(Fault(where=manifest.name, rule="unknown split", got=split, known=known))
    return [storage.path(f"{manifest.name}/{file}") for file in manifest.splits[split].files]


def read_split(storage: Storage, manifest: Manifest, split: str) -> pa.Table:
    """Return all samples of a split, sorted by sample id.

    Raises:
        InputError: no such split, or a shard is missing, damaged or incomplete.
    """
    files = list_shards(storage, manifest, split)
    groups = [] if manifest.group is None else ["group"]
    columns = ["sample_id", "label", *groups, *manifest.inputs]
    shards = []
    for file in files:
        with open_shard(storage, file) as parquet:
            shards.append(select_columns(parquet.read(columns), columns, where=file))
    table = pa.concat_tables(shards)
    if table.num_rows != manifest.splits[split].rows:
        rule = f"{manifest.splits[split].rows} samples expected; ingest the data set again"
        raise InputError(Fault(where=manifest.name, key=split, rule=rule, got=table.num_rows))
    return table.sort_by("sample_id")


def read_groups(storage: Storage, manifest: Manifest, splits: Sequence[str]) -> pa.Table:
    """Return the group of every sample of some splits: columns `split`, `sample_id` and `group`.

    Raises:
        InputError: no such split, or a shard is missing or damaged.
    """
    parts = []
    for split in splits:
        for file in list_shards(storage, manifest, split):
            with open_shard(storage, file) as parquet:
                rows = select_columns(parquet.read(["sample_id", "group"]), ["sample_id", "group"], where=file)
            names = pa.array([split] * rows.num_rows, pa.string())
            parts.append(pa.table({"split": names, "sample_id": rows["sample_id"], "group": rows["group"]}))
    return pa.concat_tables(parts)


@contextmanager
def open_shard(storage: Storage, file: str, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Open a shard for reading.

    Args:
        storage: the data root.
        file: full path inside `storage.filesystem`, of `list_shards`.
        metadata: of the file, if it is known; otherwise it is read.

    Raises:
        InputError: it is missing or damaged, at the start or while it is read, or it has columns of unsafe types.
        OSError: the storage fails, which says nothing about the file.
    """
    try:
        stream = storage.filesystem.open_input_file(file)
    except FileNotFoundError:
        raise InputError(
            Fault(where=file, rule="shard cannot be read (no such file); ingest the data set again")
        ) from None
    except OSError as error:
        raise _name_file(error, file) from error
    with stream:
        watched = _WatchedFile(stream)
        try:
            parquet = pq.ParquetFile(pa.PythonFile(watched), metadata=metadata, page_checksum_verification=True)
            check_columns(parquet.schema_arrow, where=file)
            yield parquet
        # UnicodeDecodeError: of the name of a column
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            if watched.failure is not None:
                raise _name_file(watched.failure, file) from error
            rule = f"shard cannot be read ({error}); ingest the data set again"
            raise InputError(Fault(where=file, rule=rule)) from None


def select_columns(rows: pa.Table, columns: Sequence[str], *, where: str) -> pa.Table:
    """Return these columns of a shard, which Arrow leaves out without a word if they are missing.

    Raises:
        InputError: a column is missing.
    """
    if missing := [name for name in columns if name not in rows.column_names]:
        rule = "shard cannot be read (it lacks a column); ingest the data set again"
        raise InputError(Fault(where=where, rule=rule, got=missing[0]))
    return rows.select(columns)


@dataclass
class _WatchedFile:
    """File that keeps the error of its storage; Arrow raises `OSError` for that and for damaged content alike."""

    stream: pa.NativeFile
    failure: OSError | None = None
    mode: str = "rb"

    @property
    def closed(self) -> bool:
        return bool(self.stream.closed)

    def size(self) -> int:
        return int(self.stream.size())

    def tell(self) -> int:
        return int(self.stream.tell())

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self.stream.seek(position, whence))

    def read(self, size: int = -1) -> bytes:
        return bytes(self.read_buffer(size))

    # Arrow calls this, if there is one, instead of `read`, and copies nothing
    def read_buffer(self, size: int = -1) -> pa.Buffer:
        try:
            return self.stream.read_buffer(None if size < 0 else size)
        except OSError as error:
            self.failure = error
            raise

    def close(self) -> None:
        self.stream.close()


def _name_file(error: OSError, file: str) -> OSError:
    return OSError(error.errno or errno.EIO, error.strerror or str(error), file)


def read_side_file(storage: Storage, manifest: Manifest, name: str) -> bytes:
    """Return the content of a further file of the data set, such as `vocabulary.json`.

    Raises:
        InputError: the data set has no such file.
    """
    version = manifest.splits["train"].files[0].partition("/")[0]
    try:
        return storage.read(f"{manifest.name}/{version}/{name}")
    except FileNotFoundError:
        known = storage.list_files(f"{manifest.name}/{version}")
        fault = Fault(where=manifest.name, rule="no such side file", got=name, known=known)
        raise InputError(fault) from None


def decode(data: pa.Table | pa.RecordBatch, manifest: Manifest) -> Columns:
    """Return stored columns as arrays: ids as objects, labels float64, inputs `(samples, *shape)`, images decoded.

    Raw inputs of one chunk are read-only views of the Arrow memory; several chunks are copied into one first.

    Raises:
        InputError: a stored image cannot be decoded.
    """
    return to_numpy(data, manifest.inputs)
