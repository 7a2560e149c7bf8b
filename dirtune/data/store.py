"""The data store: how an ingested data set lies on disk, how it is written, and how it is read back.

```
<root>/<name>/manifest.json                          names the current version; written last
<root>/<name>/version-<hex>/<split>/part_*.parquet   shards, written by Ray Data
<root>/<name>/version-<hex>/<side file>              e.g. vocabulary.json
```
A set is what its manifest names. A new version is written beside the old one, read back once from disk (rows, label
histogram, hashes, faults), and comes to life with one atomic write of the manifest; whatever the manifest does not name
is then removed. So a killed ingest costs disk space until the next one, never data. Reading needs pyarrow only; Ray is
imported by the write alone. The nodes of a cluster must all reach the root: a shared disk or a URL.

Small blocks are joined to shards of at least 128 MB, so that a large set is a few files, in row groups small enough to
stream. Trade-off: one extra read of the whole set at ingest buys a manifest that describes what is on disk, not what was meant.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dirtune.data.columns import Columns, stored_size, to_arrow, to_numpy
from dirtune.data.verify import check_rows, hash_digests, read_back
from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.metrics import OWN_METRICS
from dirtune.process import remember_interrupt

if TYPE_CHECKING:
    from ray.data import Dataset

_VERSION = "version-"
SHARD_BYTES = 128 * 2**20
ROW_GROUP_BYTES = 16 * 2**20
# A file that stands in a version folder as long as its writer may use the folder
_OPEN = "open"


def write_dataset(
    storage: Storage,
    name: str,
    splits: Mapping[str, Dataset],
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
    """Write a data set as a new version, make it the current one, and remove the one before.

    Whatever is raised on the way, the version before stays complete and the new one is removed.

    Args:
        storage: the data root.
        splits: a Ray data set per split; batches in numpy format hold `sample_id`, `label` (in the label's unit) and
            one column per input, of the shape that `inputs` says; an encoded image as bytes; a label of several
            dimensions as a vector.
        metrics: of `dirtune.metrics.OWN_METRICS`, those that are computed for this set beside the general ones.
        group: what the text column `group` of the batches tells apart; none: there is no such column.
        source: where the data came from; `source["request"]` is what `find_ingested` compares.
        side_files: further files of the set by name, for `read_side_file`.

    Raises:
        InputError: a sample id stands twice, a label is not finite or out of range, a split is empty, or another
            ingest of the same set finished meanwhile; rows are listed up to 20.
    """
    if "train" not in splits or default_shot_rule not in shot_rules:
        raise ValueError(f"a train split and the shot rule {default_shot_rule!r} must be given")
    if unknown := set(metrics) - OWN_METRICS.keys():
        raise ValueError(f"unknown metrics {sorted(unknown)}; known: {sorted(OWN_METRICS)}")
    if label.dense is not None and (missing := set(label.dense.columns) - inputs.keys()):
        raise ValueError(f"the label's maps {sorted(missing)} must be among the inputs")
    home, version = storage.get_folder(name), f"{_VERSION}{uuid.uuid4().hex}"
    with remember_interrupt() as raise_if_interrupted, ExitStack() as at_the_end:
        at_the_end.callback(_remove_unnamed_versions, home)
        for side_name, content in {**(side_files or {}), _OPEN: b""}.items():
            home.write(f"{version}/{side_name}", content)
        rows = {}
        for split, dataset in splits.items():
            files = _write_shards(home, f"{version}/{split}", dataset, inputs, has_groups=group is not None)
            rows[split] = read_back(home, split, files, inputs, label)
        check_rows(rows, label, where=name)
        manifest = Manifest(
            name=name,
            inputs=dict(inputs),
            label=label,
            shot_rules=dict(shot_rules),
            default_shot_rule=default_shot_rule,
            splits={split: found.info(label) for split, found in rows.items()},
            content_hash=hash_digests(each for found in rows.values() for each in found.contents),
            split_fingerprint=hash_digests(each for found in rows.values() for each in found.places),
            metrics=tuple(metrics),
            group=group,
            source=dict(source),
            notes=tuple(notes),
        )
        raise_if_interrupted()
        _commit(home, version, manifest)
    return manifest


def _write_shards(
    home: Storage, folder: str, dataset: Dataset, inputs: Mapping[str, InputSpec], *, has_groups: bool
) -> list[str]:
    """Write a split's shards and return their names relative to the manifest."""
    from ray.data.datasource import FilenameProvider

    specs = dict(inputs)

    def stored(batch: Columns) -> pa.Table:
        return to_arrow(batch, specs, has_groups=has_groups)

    dataset.map_batches(stored, batch_format="numpy").write_parquet(
        home.path(folder),
        filesystem=home.filesystem,
        filename_provider=FilenameProvider(dataset_uuid="part", file_format="parquet"),
        min_bytes_per_file=SHARD_BYTES,
        row_group_size=_rows_per_group(inputs),
        compression="zstd",
    )
    return [f"{folder}/{name}" for name in home.list_files(folder, suffix=".parquet")]


def _rows_per_group(inputs: Mapping[str, InputSpec]) -> int:
    """Rows of a Parquet row group, the least that a reader holds in memory."""
    return max(1, ROW_GROUP_BYTES // max(1, sum(stored_size(spec) for spec in inputs.values())))


def _commit(home: Storage, version: str, manifest: Manifest) -> None:
    if not home.exists(f"{version}/{_OPEN}"):
        rule = "another ingest of this data set finished meanwhile; nothing was changed"
        raise InputError(Fault(where=manifest.name, rule=rule))
    home.remove(f"{version}/{_OPEN}")
    home.write(MANIFEST, manifest.model_dump_json(indent=1).encode())


def _remove_unnamed_versions(home: Storage) -> None:
    # Searching the text, not the parsed manifest, spares also what a manifest of another release names.
    text = home.read(MANIFEST).decode(errors="replace") if home.exists(MANIFEST) else ""
    for folder in home.list_folders():
        if folder.startswith(_VERSION) and folder not in text:
            home.remove(folder)


def list_datasets(storage: Storage) -> list[str]:
    """Names of the data sets ingested below a data root."""
    return [name for name in storage.list_folders() if storage.exists(f"{name}/{MANIFEST}")]


def read_manifest(storage: Storage, name: str) -> Manifest:
    """The manifest of a data set.

    Raises:
        InputError: the set is not ingested, or its manifest cannot be read.
    """
    where = storage.path(f"{name}/{MANIFEST}")
    if not storage.exists(f"{name}/{MANIFEST}"):
        rule = f"data set is not ingested (`dirtune ingest {name}` does it)"
        raise InputError(Fault(where=storage.path(), rule=rule, got=name, known=list_datasets(storage)))
    try:
        raw = json.loads(storage.read(f"{name}/{MANIFEST}"))
    except ValueError as error:
        rule = f"damaged manifest ({error}); ingest the data set again"
        raise InputError(Fault(where=where, rule=rule)) from None
    return read(Manifest, raw, where=where)


def find_ingested(storage: Storage, name: str, request: str) -> Manifest | None:
    """The data set, if an equal request has made it and none of its files is missing."""
    try:
        manifest = read_manifest(storage, name)
    except InputError:
        return None
    files = [file for info in manifest.splits.values() for file in info.files]
    whole = all(storage.exists(f"{name}/{file}") for file in files)
    return manifest if whole and manifest.source.get("request") == request else None


def split_files(storage: Storage, manifest: Manifest, split: str) -> list[str]:
    """Full paths of a split's shards inside `storage.filesystem`, for readers such as Ray Data.

    Raises:
        InputError: the data set has no such split.
    """
    if split not in manifest.splits:
        known = tuple(manifest.splits)
        raise InputError(Fault(where=manifest.name, rule="unknown split", got=split, known=known))
    return [storage.path(f"{manifest.name}/{file}") for file in manifest.splits[split].files]


def read_split(storage: Storage, manifest: Manifest, split: str) -> pa.Table:
    """All samples of a split, sorted by sample id.

    Raises:
        InputError: no such split, or a shard is missing, damaged or incomplete.
    """
    files = split_files(storage, manifest, split)
    table = pa.concat_tables([_read_shard(storage, manifest, file) for file in files])
    if table.num_rows != manifest.splits[split].rows:
        rule = f"{manifest.splits[split].rows} samples expected; ingest the data set again"
        raise InputError(Fault(where=manifest.name, key=split, rule=rule, got=table.num_rows))
    return table.sort_by("sample_id")


def _read_shard(storage: Storage, manifest: Manifest, file: str) -> pa.Table:
    groups = [] if manifest.group is None else ["group"]
    columns = ["sample_id", "label", *groups, *manifest.inputs]
    try:
        with storage.filesystem.open_input_file(file) as stream:
            return pq.ParquetFile(stream).read(columns)
    except (OSError, pa.ArrowException) as error:
        rule = f"shard cannot be read ({error}); ingest the data set again"
        raise InputError(Fault(where=file, rule=rule)) from None


def read_side_file(storage: Storage, manifest: Manifest, name: str) -> bytes:
    """A further file of the data set, such as `vocabulary.json`.

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
    """Stored columns as arrays: ids as objects, labels float64, inputs of shape `(samples, *shape)`, images decoded.

    Inputs of one chunk that are not encoded are views of the Arrow memory and read-only; several chunks are joined first.

    Raises:
        InputError: a stored image cannot be decoded.
    """
    return to_numpy(data, manifest.inputs)
