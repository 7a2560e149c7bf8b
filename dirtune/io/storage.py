"""A folder that files appear in whole or not at all: on a local disk, on NFS, or behind a URL such as `s3://`.

Everything that dirtune must not lose goes through `Storage.write`. On a disk a file is written aside, flushed to the
device, and renamed into place; an object store shows an object only when its upload is complete: up to 10 MB, such as a
manifest, is one request, more is uploaded in parts that become visible together. The parts of an upload that was killed
stay, unseen, until a lifecycle rule of the bucket removes them.

A URL is one that `pyarrow.fs.FileSystem.from_uri` understands. For S3 and what speaks like it, the keys come from the
environment (`AWS_ACCESS_KEY_ID`, ...) or the machine, and the place from the URL or the environment:
`s3://bucket/path?region=eu-west-1`, `s3://bucket/path?scheme=http&endpoint_override=localhost:9000`, `AWS_ENDPOINT_URL`.
The bucket must exist. A URL may hold keys as well (`s3://key:secret@bucket/path`); whatever is printed or recorded of a location
goes through `without_keys` first.

A place may fail for a while: a share that hangs, a server that answers with an error, a disk that is full until somebody makes
room. Whoever has computed for hours and wants to write the outcome asks for a `patient` storage, which tries again. Others
are told at once.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from dirtune.errors import Fault, InputError

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two tries of a patient storage; each pause is twice the one before."""

_T = TypeVar("_T")
# A secret may hold a slash
_KEYS = re.compile(r"://[^/?#:@\s]+(:[^?#\s]*)?@")


def without_keys(text: str | Path) -> str:
    """A location, or a text that names some, as it may be shown to anybody: URLs without user and password."""
    return _KEYS.sub("://", str(text))


@dataclass(frozen=True)
class Storage:
    """A folder of a file system; names are relative to it and use `/`."""

    filesystem: pafs.FileSystem
    root: str
    patience: float = 0.0
    """Seconds for which what fails is tried again."""

    def patient(self, seconds: float) -> Storage:
        """The same folder, where what fails with `OSError` is tried again for so long; a file that is not there is no failure."""
        return replace(self, patience=seconds)

    @classmethod
    def at(cls, location: str | Path) -> Storage:
        """The folder at a path or URL; it need not exist yet.

        Raises:
            InputError: the URL's scheme is not supported.
        """
        if "://" not in str(location):
            return cls(pafs.LocalFileSystem(), str(Path(location).expanduser().resolve()))
        try:
            filesystem, root = pafs.FileSystem.from_uri(_with_single_puts(str(location)))
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                Fault(where=without_keys(location), rule=without_keys(f"no usable location ({error})"))
            ) from None
        return cls(filesystem, root.rstrip("/"))

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, name: str = "") -> str:
        """The full path of `name` inside the file system.

        Raises:
            InputError: the name leads out of the folder; names come from records and manifests of others, too.
        """
        if ".." in name and ".." in name.split("/"):
            rule = "a name must stay inside of its folder"
            raise InputError(Fault(where=self.root, rule=rule, got=name))
        return f"{self.root}/{name}" if name else self.root

    def below(self, name: str) -> Storage:
        """The sub-folder `name`."""
        return replace(self, root=self.path(name))

    def exists(self, name: str) -> bool:
        return bool(self._kind(name) != pafs.FileType.NotFound)

    def read(self, name: str) -> bytes:
        """The whole content of a file; `FileNotFoundError` if it is not there."""
        return self._patiently(lambda: self._read(self.path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Put a whole file in place of whatever was there; after a crash the old or the new one stands, never a part."""
        self._patiently(lambda: self._write(self.path(name), content))

    def names(self, folder: str = "", *, suffix: str = "") -> list[str]:
        """Names (without the folder) of the files directly inside `folder`, sorted; none if it does not exist."""
        return sorted(
            info.base_name
            for info in self._entries(folder)
            if info.type == pafs.FileType.File
            and info.base_name.endswith(suffix)
            and not info.base_name.startswith(".")
        )

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders directly inside `folder`, sorted; none if it does not exist."""
        return sorted(info.base_name for info in self._entries(folder) if info.type == pafs.FileType.Directory)

    def remove(self, name: str) -> None:
        """Remove a file or a whole folder; nothing happens if it is not there."""
        self._patiently(lambda: self._remove(name))

    def move(self, name: str, to: str) -> None:
        """Move a file; on an object store it is copied, then removed."""
        self._patiently(lambda: self._move(self.path(name), self.path(to)))

    def _entries(self, folder: str) -> Iterator[pafs.FileInfo]:
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        return iter(self._patiently(lambda: self.filesystem.get_file_info(selector)))

    def _kind(self, name: str) -> pafs.FileType:
        return self._patiently(lambda: self.filesystem.get_file_info(self.path(name)).type)

    def _read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())

    def _write(self, path: str, content: bytes) -> None:
        if self.is_local:
            _write_local(Path(path), content)
            return
        # What is no bytes fails here: a closed stream is an object
        buffer = pa.py_buffer(content)
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(buffer)

    def _remove(self, name: str) -> None:
        kind = self._kind(name)
        if kind == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path(name))
        elif kind != pafs.FileType.NotFound:
            self.filesystem.delete_file(self.path(name))

    def _move(self, path: str, to: str) -> None:
        if self.is_local:
            Path(to).parent.mkdir(parents=True, exist_ok=True)
        self.filesystem.move(path, to)

    def _patiently(self, act: Callable[[], _T]) -> _T:
        pause, deadline = FIRST_PAUSE, time.monotonic() + self.patience
        while True:
            try:
                return act()
            except FileNotFoundError:
                raise
            except OSError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _with_single_puts(url: str) -> str:
    """An S3 URL whose small files are uploaded in one request when they are closed, not in the three of an upload in parts."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or "allow_delayed_open" in parts.query:
        return url
    query = "&".join(filter(None, [parts.query, "allow_delayed_open=true"]))
    return urlunsplit(parts._replace(query=query))


def _write_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        with aside.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
