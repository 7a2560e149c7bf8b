"""Ingest of a data set by name, or of own data: its pipeline, and one line with the outcome.

`load_pipeline` is the only place where dirtune reaches a pipeline module: by name, through the list that the `pipelines`
package keeps, so that the library never depends on a data set.
"""

import errno
import importlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast, get_args, get_origin
from urllib.parse import urlsplit

from dirtune import part_errors, plugins
from dirtune.data.sources import LABEL, SPLIT, Source, open_source
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, find_annotations, read
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, Manifest
from dirtune.registry import Registry
from dirtune.signatures import describe_value

MOST_PIXELS = 224
"""Height and width of stored images of own data, unless the first one is smaller or `image_size` is given."""
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Pipeline(Protocol):
    """Interface of a module of the `pipelines` package."""

    Options: type[Frozen]

    def ingest(self, storage: Storage, raw: Any, options: Any) -> Manifest: ...


PLUGIN_PIPELINES: Registry["Pipeline"] = Registry("pipeline", {})
"""Pipelines of plug-ins."""


def load_pipeline(name: str) -> Pipeline:
    """Return the pipeline module of a data set.

    Raises:
        InputError: there is no such pipeline.
    """
    # Imported by name, so that the library has no import of a data set.
    known = importlib.import_module("dirtune.pipelines").PIPELINES
    plugins.load_entry_points("pipeline")
    if name in PLUGIN_PIPELINES:
        return PLUGIN_PIPELINES[name]
    if name not in known:
        known = (*known, *PLUGIN_PIPELINES)
        raise InputError(Fault(where="data set", rule="unknown name", got=name, known=known))
    return cast(Pipeline, importlib.import_module(f"dirtune.pipelines.{name}"))


def ingest(
    data: Any,
    *,
    name: str | None = None,
    label: str | None = None,
    unit: str | None = None,
    group: str | None = None,
    root: str | Path = "data",
    raw: Any = None,
    options: Mapping[str, object] | None = None,
    download: bool = False,
    report: Callable[[str], None] = print,
) -> Manifest:
    """Ingest a data set below a data root, unless it was ingested from the same raw files and options before.

    Images and texts are read with the Ray of this process; if there is none, one is started and shut down again. Tables and
    unchanged sets need none. An interrupted, failed or killed ingest leaves the previous version of the set as it was; the
    next ingest removes the files of a killed one.

    Args:
        data: the name of a pipeline, or own data: a path, a URL, a data frame, a `datasets.Dataset`, a pair of arrays
            `(X, y)`, and what else `dirtune.data.sources` reads.
        name: own data: the name of the data set; None for that of the file or folder.
        label: own data: column of the label.
        unit: own data: of the label, for display.
        group: own data: column of groups that must not cross splits, such as the person.
        root: the data root, a path or URL.
        raw: with the name of a pipeline: the raw file, or the folder of the raw files, for pipelines that need them.
        options: settings of the pipeline (its `Options`).
        download: download the raw files into the folder `raw` first, if their source permits it.
        report: receives one line with the outcome, also after Ctrl-C.

    Raises:
        InputError: unknown data set or option, raw files or data that cannot be used, or a full disk.
    """
    given = {"name": name, "label": label, "unit": unit, "group": group}
    chosen = {key: value for key, value in given.items() if value is not None} | dict(options or {})
    if is_pipeline(data):
        own_data = hasattr(load_pipeline(data).Options, "splitting")
        if download and raw is not None:
            importlib.import_module("dirtune.pipelines.downloads").download_raw(
                data, Path(os.path.expanduser(raw)), report=report
            )
        elif download:
            raise InputError(Fault(where=data, key="raw", rule="a download needs the folder to fill"))
        if raw is None or not own_data:
            folder = None if raw is None else _check_local(data, raw)
            return _ingest(data, folder, root, chosen, report)
        with open_source(raw, label=label) as source:
            return _ingest(data, source, root, chosen, report)
    if raw is not None or download:
        rule = "raw files and a download need the name of a pipeline before them"
        raise InputError(Fault(where="ingest", rule=rule, got=data if isinstance(data, str) else None))
    with open_source(data, label=label) as source:
        if isinstance(data, str | Path):
            chosen = {"name": make_name(data), **chosen}
        # Columns that the source made, and those of the splits of a data set
        made = {"label": LABEL, "split_column": SPLIT}
        chosen = {key: column for key, column in made.items() if column in source.columns} | chosen
        if "label" not in chosen:
            raise InputError(Fault(where="ingest", key="label", rule="names the column of the label, and is needed"))
        if source.first_image is None:
            return _ingest("table", source, root, chosen, report)
        # Tables need no Pillow.
        from PIL import Image

        with Image.open(source.first_image) as image:
            chosen = {"image_size": max(8, min(MOST_PIXELS, *image.size)), **chosen}
        return _ingest("images", source, root, chosen, report)


def is_pipeline(data: Any) -> bool:
    """Return True for the name of a pipeline, and for a text that is no path or URL but may be a misspelled name."""
    if not isinstance(data, str):
        return False
    added = {*PLUGIN_PIPELINES, *(entry.name for entry in plugins.list_entry_points("pipeline"))}
    if data in importlib.import_module("dirtune.pipelines").PIPELINES or data in added:
        return True
    return "/" not in data and not Path(data).suffix and not Path(os.path.expanduser(data)).exists()


def make_name(location: str | Path) -> str:
    """Return the name of a data set for a file, a folder or a URL."""
    path = urlsplit(str(location)).path if "://" in str(location) else str(location)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(path).stem).strip("_.-")


def wrap_single_values(model: type[Frozen], options: Mapping[str, object]) -> dict[str, object]:
    """Return options with a single value where the model has a list as a list of one."""
    wrapped = dict(options)
    for name, value in options.items():
        lists = [kind for annotation in find_annotations(model, name) for kind in _find_lists(annotation)]
        for element in (get_args(kind)[0] for kind in lists if value is not None):
            inner = list(value) if isinstance(value, list | tuple) else None
            # A single band is a list of two numbers, not of two lists.
            is_band = get_origin(element) is tuple and inner and not isinstance(inner[0], list | tuple)
            if inner is None or is_band:
                wrapped[name] = [value]
    return wrapped


def _find_lists(annotation: Any) -> list[Any]:
    """Return the annotations of lists of any length in a union."""
    if get_origin(annotation) is tuple:
        return [annotation] if get_args(annotation)[-1] is Ellipsis else []
    return [found for inner in get_args(annotation) for found in _find_lists(inner)]


def _check_local(name: str, raw: Any) -> Path:
    if not isinstance(raw, str | Path) or "://" in str(raw):
        rule = "its raw files must be in a folder of this machine"
        raise InputError(Fault(where=name, key="raw", rule=rule))
    return Path(os.path.expanduser(raw))


def _ingest(
    name: str, raw: Path | Source | None, root: str | Path, options: dict[str, object], report: Callable[[str], None]
) -> Manifest:
    module, storage = load_pipeline(name), Storage.open(root)
    chosen = read(module.Options, wrap_single_values(module.Options, options), where=f"options of {name}")
    # The set of a generic pipeline, for a user's own data, is named by an option.
    set_name = getattr(chosen, "name", name)
    before = _read_manifest_text(storage, set_name)
    try:
        with part_errors.name_part("pipeline", name, module):
            manifest = module.ingest(storage, raw, chosen)
    except KeyboardInterrupt:
        unchanged = before == _read_manifest_text(storage, set_name)
        report(f"{set_name}: interrupted; {'nothing was changed' if unchanged else 'it is complete'}")
        raise
    except OSError as error:
        # Ray wraps the errors of its tasks.
        number = getattr(error, "cause", error).errno
        if number not in _DISK_FULL:
            raise
        rule = f"no space left to write it ({os.strerror(number)}); nothing was changed"
        raise InputError(Fault(where=storage.path(set_name), rule=rule)) from None
    if not isinstance(manifest, Manifest):
        rule = "`ingest` must return the manifest of the data set, as dirtune.data.store.write_dataset does"
        raise part_errors.make_part_error("pipeline", name, module, rule, describe_value(manifest))
    unchanged = before is not None and before == _read_manifest_text(storage, manifest.name)
    rows = sum(info.rows for info in manifest.splits.values())
    outcome = "unchanged, already ingested from the same request" if unchanged else "ingested"
    report(f"{manifest.name}: {outcome}; {rows:,} samples, content {manifest.fingerprint}")
    return manifest


def _read_manifest_text(storage: Storage, name: str) -> bytes | None:
    path = f"{name}/{MANIFEST}"
    return storage.read(path) if storage.exists(path) else None
