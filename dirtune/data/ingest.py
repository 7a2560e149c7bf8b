"""Ingest of a data set by name: its pipeline, and one line with the outcome.

`load_pipeline` is the only place where dirtune reaches a pipeline module: by name, through the list that the `pipelines`
package keeps, so that the library never depends on a data set.
"""

import errno
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, Manifest

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Pipeline(Protocol):
    """Interface of a module of the `pipelines` package."""

    Options: type[Frozen]

    def ingest(self, storage: Storage, raw: Path | None, options: Any) -> Manifest: ...


def load_pipeline(name: str) -> Pipeline:
    """Return the pipeline module of a data set.

    Raises:
        InputError: there is no such pipeline.
    """
    # Imported by name, so that the library has no import of a data set.
    known = importlib.import_module("pipelines").PIPELINES
    if name not in known:
        raise InputError(Fault(where="data set", rule="unknown name", got=name, known=tuple(known)))
    return cast(Pipeline, importlib.import_module(f"pipelines.{name}"))


def ingest(
    name: str,
    *,
    root: str | Path,
    raw: str | Path | None = None,
    options: Mapping[str, object] | None = None,
    download: bool = False,
    report: Callable[[str], None] = print,
) -> Manifest:
    """Ingest a data set below a data root, unless it was ingested from the same raw files and options before.

    Images and texts are read with the Ray of this process; if there is none, one is started and shut down again. Tables and
    unchanged sets need none. An interrupted, failed or killed ingest leaves the previous version of the set as it was; the next ingest
    removes the files of a killed one.

    Args:
        name: the data set.
        root: the data root, a path or URL.
        raw: the raw file, or the folder of the raw files, for pipelines that need them.
        options: settings of the pipeline (its `Options`).
        download: download the raw files into the folder `raw` first, if their source permits it.
        report: receives one line with the outcome, also after Ctrl-C.

    Raises:
        InputError: unknown data set or option, raw files that cannot be used, or a full disk.
    """
    module, storage = load_pipeline(name), Storage.open(root)
    chosen = read(module.Options, dict(options or {}), where=f"options of {name}")
    # The set of a generic pipeline, for a user's own data, is named by an option.
    set_name = getattr(chosen, "name", name)
    before = _read_manifest_text(storage, set_name)
    folder = None if raw is None else Path(raw).expanduser()
    if download:
        if folder is None:
            raise InputError(Fault(where=name, key="raw", rule="a download needs the folder to fill"))
        importlib.import_module("pipelines.downloads").download_raw(name, folder, report=report)
    try:
        manifest = module.ingest(storage, folder, chosen)
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
    unchanged = before is not None and before == _read_manifest_text(storage, manifest.name)
    rows = sum(info.rows for info in manifest.splits.values())
    outcome = "unchanged, already ingested from the same request" if unchanged else "ingested"
    report(f"{manifest.name}: {outcome}; {rows:,} samples, content {manifest.fingerprint}")
    return manifest


def _read_manifest_text(storage: Storage, name: str) -> bytes | None:
    path = f"{name}/{MANIFEST}"
    return storage.read(path) if storage.exists(path) else None
