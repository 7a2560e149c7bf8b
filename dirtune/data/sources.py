"""Sources of own data: a file, a folder or a URL, or a table in memory, as one local table with its location.

    .csv .tsv .parquet .jsonl .npz     files, read by `dirtune.pipelines.sheets` and `read_json_lines`, `read_arrays`
    a folder                           with one such file, or of images in folders that are named by their label
    s3:// gs:// https:// hf:// ...     the same, copied to a temporary folder: pyarrow's file systems, else those of fsspec
    hf://datasets/OWNER/NAME           all splits of a data set of the Hugging Face hub (package `datasets`)
    DataFrame, Table, Dataset, (X, y)  everything that exports Arrow columns, mappings of arrays, pairs of numpy arrays

Every source becomes the same rows, so that a set has the same content by every way but a text file, whose rows are numbered
as in the file. Locations in records and messages are without credentials. Optional packages are imported here alone.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.json

from dirtune.errors import Fault, InputError
from dirtune.io.credentials import remove_credentials
from dirtune.io.storage import Storage

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".npz")
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
LABEL, SPLIT, PATH = "label", "split", "path"
"""Columns of tables that are made here."""
IN_MEMORY = "table in memory"

_REMEDIES = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "; unpack it"),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "; save its sheet as csv"),
    **dict.fromkeys(
        (".txt", ".dat", ".data", ".asc"), "; if it has a header and a delimiter, rename it to .csv or .tsv"
    ),
    ".json": "; write one object per line into a .jsonl file",
    ".npy": "; write its columns into a .npz file (`numpy.savez`)",
    **dict.fromkeys((".pkl", ".pickle", ".feather", ".h5", ".hdf5", ".mat"), "; write its table into a .parquet file"),
}
"""Ways from a file with another suffix to a table."""
_ARROW_SCHEMES = {"s3", "gs", "gcs", "file"}
_HUB = "hf://datasets/"
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test"}
_HASHED_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table that can be read on this machine."""

    where: str
    """Location for messages and records, without credentials."""
    path: Path
    """The file; for a table in memory, the folder of the files that it names."""
    table: pa.Table | None = None
    first_image: Path | None = None
    """An image, if the table is that of a folder or data set of images."""

    @property
    def folder(self) -> Path:
        """Folder of relative paths in the table."""
        return self.path.parent if self.table is None else self.path

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that was made here; empty for a file."""
        return () if self.table is None else tuple(self.table.column_names)

    def compute_hash(self) -> str:
        """Return the SHA-256 of the content."""
        if self.table is None:
            with self.path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        state = hashlib.sha256()
        for batch in self.table.to_batches(max_chunksize=_HASHED_ROWS):
            state.update(batch.serialize())
        return state.hexdigest()


@contextmanager
def open_source(data: Any, *, label: str | None = None) -> Iterator[Source]:
    """Yield the table of a source; what had to be copied is removed at the end.

    Args:
        data: a path, a URL, or a table in memory (see the module).
        label: column of the label; for a pair of arrays, the name of the second one.

    Raises:
        InputError: there is no such file, more than one, it cannot be copied, or the data are no table.
    """
    if isinstance(data, str | Path) and "://" not in str(data):
        yield find_source(Path(os.path.expanduser(data)))
        return
    with tempfile.TemporaryDirectory(prefix="dirtune-") as folder:
        if not isinstance(data, str):
            yield _store_images(_make_table(data, label), IN_MEMORY, Path(folder))
        elif data.startswith(_HUB) and not data.lower().endswith(SUFFIXES):
            yield _store_images(_load_from_hub(data), data, Path(folder))
        else:
            yield find_source(_copy_url(data, Path(folder)), where=remove_credentials(data))


def find_source(path: Path, *, where: str | None = None) -> Source:
    """Return the given file, the only data file of a folder, or the images of a folder by label.

    Args:
        path: a file or folder.
        where: the URL that it was copied from.

    Raises:
        InputError: there is no such file, or more than one.
    """
    url, where = where, where or str(path)
    # Unlike `Path.exists`, False for a text that is too long for a path
    if not os.path.exists(path):
        raise InputError(Fault(where=where, rule="no such file or folder"))
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    first_image = find_image(path)
    files = [file for file in found if file.suffix.lower() in SUFFIXES]
    if path.is_dir() and not files and (tree := _read_image_tree(path)) is not None:
        return Source(where=where, path=path.resolve(), table=tree, first_image=first_image)
    if len(files) != 1:
        rule = f"must be one file of {', '.join(SUFFIXES)}"
        if path.is_dir():
            rule += ", or have images in folders that are named by their label, a number"
        else:
            rule += _REMEDIES.get(path.suffix.lower(), "")
        names = [file.name for file in files] if path.is_dir() else path.name
        raise InputError(Fault(where=where, rule=rule, got=names))
    file = files[0].resolve()
    if url is None:
        return Source(where=str(file), path=file, first_image=first_image)
    where = f"{url.rstrip('/')}/{file.name}" if path.is_dir() else url
    return Source(where=where, path=file, first_image=first_image)


def find_image(path: Path) -> Path | None:
    """Return an image of a folder, or None for a file and for a folder without one."""
    return None if path.is_file() else next((path / each for each in iter_images(path)), None)


def iter_images(folder: Path) -> Iterator[Path]:
    """Yield the paths of the images below a folder, relative to it, without hidden files and folders."""
    paths = (each.relative_to(folder) for each in folder.rglob("*") if each.suffix.lower() in IMAGES)
    # macOS writes a file ._NAME beside each file of an archive, and notebooks have checkpoints of files.
    return (path for path in paths if not any(part.startswith(".") for part in path.parts))


def _read_image_tree(folder: Path) -> pa.Table | None:
    """Return path, label and split of the images in `LABEL/` or `SPLIT/LABEL/`; None if a label is no number."""
    images = sorted(iter_images(folder))
    splits = [path.parts[0] for path in images if path.parts[0].lower() in _SPLITS]
    at = 1 if images and len(splits) == len(images) else 0
    labels = [path.parts[at] if len(path.parts) > at + 1 else "" for path in images]
    if not images or not all(_is_number(label) for label in labels):
        return None
    columns: dict[str, Sequence[Any]] = {PATH: [str(path) for path in images], LABEL: [float(each) for each in labels]}
    return pa.table(columns | ({SPLIT: splits} if at else {}))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _copy_url(url: str, folder: Path) -> Path:
    """Copy the file or folder at a URL into a folder, and return its path there."""
    where, scheme = remove_credentials(url), url.partition("://")[0]
    target = folder / (Path(urlsplit(url).path).name or "data")
    try:
        if scheme in _ARROW_SCHEMES:
            # Besides credentials, it reads region and endpoint from the URL.
            storage = Storage.open(url)
            if storage.filesystem.get_file_info(storage.path()).type == pafs.FileType.NotFound:
                raise InputError(Fault(where=where, rule="no such file or folder"))
            local = pafs.LocalFileSystem()
            if storage.filesystem.get_file_info(storage.path()).is_file:
                pafs.copy_files(storage.path(), str(target), storage.filesystem, local)
            else:
                target.mkdir()
                pafs.copy_files(storage.path(), str(target), storage.filesystem, local)
            return target
        import fsspec

        filesystem, path = fsspec.url_to_fs(url)
        # A server of web pages has no folders.
        if scheme not in ("http", "https") and filesystem.isdir(path):
            filesystem.get(path, str(target), recursive=True)
        else:
            filesystem.get_file(path, str(target))
    except ImportError as error:
        # fsspec names the package.
        raise InputError(Fault(where=where, rule=f"needs another package ({error})")) from None
    except FileNotFoundError:
        raise InputError(Fault(where=where, rule="no such file or folder")) from None
    except InputError:
        raise
    # File systems have no common class of errors.
    except Exception as error:
        reason = remove_credentials(" ".join(f"{type(error).__name__}: {error}".split()))
        raise InputError(Fault(where=where, rule=f"cannot be copied ({reason})")) from None
    return target


def _load_from_hub(url: str) -> pa.Table:
    """Return all splits of a data set of the Hugging Face hub."""
    try:
        import datasets
    except ImportError:
        rule = "needs the package `datasets` (`pip install 'dirtune[hf]'`)"
        raise InputError(Fault(where=url, rule=rule)) from None
    name, _, revision = url.removeprefix(_HUB).strip("/").partition("@")
    try:
        return _make_table(datasets.load_dataset(name, revision=revision or None), None)
    # Those of its loaders, of the hub's client and of the network have no common class.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(Fault(where=url, rule=f"cannot be loaded ({reason})")) from None


def _make_table(data: Any, label: str | None) -> pa.Table:
    """Return data in memory as a table.

    Raises:
        InputError: they are no table.
    """
    try:
        if isinstance(data, tuple) and len(data) == 2:
            inputs, labels = data[0], data[1] if _is_masked(data[1]) else np.asarray(data[1])
            _check_same_rows(*data)
            table = pa.table({"x": _to_column(inputs)}) if _is_array(inputs) else _make_table(inputs, None)
            column = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
            return table.append_column(label or LABEL, _to_column(column))
        if isinstance(data, Mapping):
            tables = {name: _make_table(part, label) for name, part in data.items() if not _is_array(part)}
            if not tables:
                return pa.table({str(name): _to_column(part) for name, part in data.items()})
            # Splits of a data set
            split = [pa.array([name] * part.num_rows, pa.string()) for name, part in tables.items()]
            joined = pa.concat_tables(tables.values(), promote_options="default")
            return joined.append_column(SPLIT, pa.chunked_array(split))
        # A `datasets.Dataset`, with its selection of rows
        if hasattr(data, "with_format") and hasattr(data, "features"):
            return data.with_format("arrow")[:]
        # A pandas frame, of which pyarrow records the index
        if hasattr(data, "iloc") and hasattr(data, "columns"):
            return pa.Table.from_pandas(data.rename(columns=str))
        if hasattr(data, "__arrow_c_stream__"):
            return pa.table(data)
    # RuntimeError: tensors that cannot be converted
    except (pa.ArrowException, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        # Those of pandas frames have a second sentence, which names the column.
        reason = " ".join(": ".join(map(str, error.args)).split())
        raise InputError(Fault(where=IN_MEMORY, rule=f"cannot be read ({reason})")) from None
    rule = (
        "must be a path, a URL, a data frame, a table of Arrow, a `datasets.Dataset`, a mapping of columns, or (X, y)"
    )
    raise InputError(Fault(where="data", rule=rule, got=type(data).__name__))


def _check_same_rows(inputs: Any, labels: Any) -> None:
    """Raise if a frame and a series have different indexes: rows would be paired by position.

    Raises:
        InputError: with the first row that differs.
    """
    if not all(hasattr(each, "iloc") for each in (inputs, labels)) or inputs.index.equals(labels.index):
        return
    rule = "X and y have different indexes; sort them alike, or drop them with reset_index(drop=True)"
    raise InputError(Fault(where=IN_MEMORY, rule=rule))


def _is_masked(values: Any) -> bool:
    return isinstance(values, np.ma.MaskedArray)


def _is_array(value: Any) -> bool:
    # Frames and Arrow tables can be converted, too.
    return isinstance(value, list) or (hasattr(value, "__array__") and not hasattr(value, "columns"))


def _to_column(values: Any) -> pa.Array:
    """Return an array of one dimension as a column, and of two as a column of lists.

    Raises:
        ValueError: it has other dimensions.
    """
    array = np.asarray(values)
    if array.ndim not in (1, 2):
        raise ValueError(f"an array must have one or two dimensions, got the shape {array.shape}")
    if array.ndim == 2 and not array.shape[1]:
        raise ValueError("an array must have columns")
    if array.dtype.kind in "iuf":
        # Arrow takes neither the byte order of other machines nor long doubles.
        array = array.astype(np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("="))
    mask = np.ma.getmaskarray(values).reshape(-1) if _is_masked(values) else None
    flat = pa.array(np.ascontiguousarray(array).reshape(-1), mask=mask)
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _store_images(table: pa.Table, where: str, folder: Path) -> Source:
    """Write the images of a column of the Hugging Face type `Image` to files, and replace it by their paths."""
    for place, field in enumerate(table.schema):
        if not pa.types.is_struct(field.type) or {each.name for each in field.type} != {"bytes", "path"}:
            continue
        names = []
        for row, image in enumerate(table.column(place).to_pylist()):
            image = image or {"bytes": None, "path": None}
            name = f"{row:07d}{Path(image['path'] or '').suffix}"
            if image["bytes"] is None:
                name = image["path"] or ""
            else:
                (folder / name).write_bytes(image["bytes"])
            names.append(name)
        table = table.set_column(place, field.name, pa.array(names, pa.string()))
    return Source(where=where, path=folder, table=table, first_image=next(folder.iterdir(), None))


def read_json_lines(path: Path) -> pa.Table:
    """Read a file with one JSON object per line.

    Raises:
        ValueError: it is one array.
    """
    with path.open("rb") as stream:
        if stream.read(64).lstrip().startswith(b"["):
            raise ValueError("it is one array of JSON: write one object per line, without brackets and commas around")
    return pyarrow.json.read_json(path)


def read_arrays(path: Path) -> pa.Table:
    """Read the arrays of an npz file as columns; those of two dimensions become columns of lists.

    Raises:
        ValueError: an array has objects, more dimensions, or another number of rows.
    """
    # `np.load` keeps a damaged file open, and returns something else for a file of another format.
    with path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as arrays:
        return pa.table({name: _read_array(arrays, name) for name in arrays.files})


def _read_array(arrays: Any, name: str) -> pa.Array:
    """Return an array of an npz file as a column.

    Raises:
        ValueError: it cannot be one; the error names it.
    """
    try:
        array = arrays[name]
        if array.dtype.kind in "cV":
            raise ValueError(f"must have real numbers or texts, got {array.dtype}")
        return _to_column(array)
    except ValueError as error:
        hint = "; convert it to numbers or texts" if "allow_pickle" in str(error) else ""
        raise ValueError(f"array {name!r}: {error}{hint}") from None
