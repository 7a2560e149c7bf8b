"""Ingesting a data set by name: the pipeline that knows it, and one sentence on how it went.

`pipeline` is the only place where dirtune reaches a pipeline module: by name, through the list that the `pipelines`
package keeps, so that the library never depends on a data set.
"""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, Manifest

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Pipeline(Protocol):
    """What a module of the `pipelines` package offers."""

    Options: type[Frozen]

    def ingest(self, storage: Storage, raw: Path | None, options: Any) -> Manifest: ...


def pipeline(name: str) -> Pipeline:
    """The pipeline module of a data set.

    Raises:
        InputError: there is no such pipeline.
    """
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
    say: Callable[[str], None] = print,
) -> Manifest:
    """Ingest a data set below a data root, unless the same raw files and options have made it already.

    The pipeline joins the Ray of this process; if there is none, it starts one and shuts it down again. An unchanged set
    needs none. Whatever ends an ingest before its time, the set stays as it was; what a killed one has left on the disk, the
    next one removes.

    Args:
        root: the data root, a path or URL.
        raw: the raw file, or the folder of the raw files, for pipelines that need them.
        options: settings of the pipeline (its `Options`).
        download: bring the raw files into the folder `raw` first, as far as their source allows it.
        say: receives one line on what was done, or, after Ctrl-C, on what is left.

    Raises:
        InputError: unknown data set or option, raw files that cannot be used, or no room for the set.
    """
    module, storage = pipeline(name), Storage.open(root)
    chosen = read(module.Options, dict(options or {}), where=f"options of {name}")
    # One's own data have a name
    own_name = getattr(chosen, "name", name)
    before = _manifest_text(storage, own_name)
    folder = None if raw is None else Path(raw).expanduser()
    if download:
        _download(name, folder, say)
    with _explained(storage, own_name, say):
        manifest = module.ingest(storage, folder, chosen)
    unchanged = before is not None and before == _manifest_text(storage, manifest.name)
    rows = sum(info.rows for info in manifest.splits.values())
    outcome = "unchanged, already ingested from the same request" if unchanged else "ingested"
    say(f"{manifest.name}: {outcome}; {rows:,} samples, content {manifest.fingerprint}")
    return manifest


def _download(name: str, folder: Path | None, say: Callable[[str], None]) -> None:
    if folder is None:
        raise InputError(Fault(where=name, key="raw", rule="a download needs the folder to fill"))
    importlib.import_module("pipelines.downloads").download_raw(name, folder, say=say)


@contextmanager
def _explained(storage: Storage, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say what an interrupted ingest has left, and make a full disk the user's fault to mend."""
    before = _manifest_text(storage, name)
    try:
        yield
    except KeyboardInterrupt:
        unchanged = before == _manifest_text(storage, name)
        say(f"{name}: interrupted; {'nothing was changed' if unchanged else 'it is complete'}")
        raise
    except OSError as error:
        # Ray wraps what its tasks have raised
        number = getattr(error, "cause", error).errno
        if number not in _NO_ROOM:
            raise
        rule = f"no room to write it ({os.strerror(number)}); nothing was changed"
        raise InputError(Fault(where=storage.path(name), rule=rule)) from None


def _manifest_text(storage: Storage, name: str) -> bytes | None:
    path = f"{name}/{MANIFEST}"
    return storage.read(path) if storage.exists(path) else None
