"""Storage: a folder with atomic writes, on a local disk, on NFS, or behind a URL such as `s3://`.

Everything that dirtune must not lose is written by `Storage.write`. On a disk, a file is written under a temporary name,
flushed to the device, and renamed; an object store shows an object only when its upload is complete: up to 10 MB, such as a
manifest, is one request, and more is uploaded in parts that become visible together. The parts of an upload that was killed
remain, invisible, until a lifecycle rule of the bucket removes them.

A URL is one that `pyarrow.fs.FileSystem.from_uri` understands. For S3 and compatible servers, credentials come from the
environment (`AWS_ACCESS_KEY_ID`, ...) or the machine, and the endpoint from the URL or the environment:
`s3://bucket/path?region=eu-west-1`, `s3://bucket/path?scheme=http&endpoint_override=localhost:9000`, `AWS_ENDPOINT_URL`.
The bucket must exist. A URL may contain credentials as well (`s3://key:secret@bucket/path`); every location that is printed
or recorded goes through `remove_credentials` first.

Storage can fail for a while: a share that hangs, a server that answers with an error, a full disk. After hours of
computing, a result is written with retries (`Storage.with_retry`); everything else raises at once.
"""

import contextlib
import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from dirtune.errors import Fault, InputError
from dirtune.io.credentials import remove_credentials

FIRST_BACKOFF, LONGEST_BACKOFF = 0.25, 5.0
"""Seconds between two attempts of a storage with retries; each pause is twice the one before."""
RETRY_SECONDS = 60.0
"""Time limit for retries of the operations of a running sweep."""

ABANDONED_SECONDS = 60.0
"""Time since the last write to a temporary file after which its process counts as dead."""

_T = TypeVar("_T")
# As `_write_local` names them
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")


@dataclass(frozen=True)
class Storage:
    """A folder of a file system; names are relative to it and use `/`."""

    filesystem: pafs.FileSystem
    root: str
    retry_seconds: float = 0.0
    """Time limit for retries of an operation that fails; 0: no retry."""

    @classmethod
    def open(cls, location: str | Path) -> "Storage":
        """Return the folder at a path or URL; it need not exist yet.

        Raises:
            InputError: the URL's scheme is not supported, it names no bucket, or the path is a file.
        """
        # `from_uri` refuses relative paths
        if "://" not in str(location):
            try:
                folder = Path(os.path.expanduser(location)).resolve()
            # A loop of symbolic links
            except RuntimeError as error:
                raise InputError(Fault(where=str(location), rule=f"no usable location ({error})")) from None
            if os.path.isfile(folder):
                raise InputError(Fault(where=str(location), rule="must be a folder, but is a file"))
            if (file := next(filter(os.path.isfile, folder.parents), None)) is not None:
                raise InputError(Fault(where=str(location), rule=f"must be a folder, but {file} is a file"))
            return cls(pafs.LocalFileSystem(), str(folder))
        try:
            filesystem, root = pafs.FileSystem.from_uri(_request_single_puts(str(location)))
        except (pa.ArrowInvalid, OSError) as error:
            rule = remove_credentials(f"no usable location ({error})")
            raise InputError(Fault(where=remove_credentials(location), rule=rule)) from None
        if not root and not isinstance(filesystem, pafs.LocalFileSystem):
            raise InputError(Fault(where=remove_credentials(location), rule="must name a bucket"))
        return cls(filesystem, root.rstrip("/"))

    def with_retry(self, seconds: float) -> "Storage":
        """Return the same folder, with operations that raise `OSError` retried for `seconds`.

        A file that does not exist is an answer, not a failure: `FileNotFoundError` is raised at once.
        """
        return replace(self, retry_seconds=seconds)

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, name: str = "") -> str:
        """Return the full path of `name` inside the file system.

        Raises:
            InputError: the name leads out of the folder; names can come from untrusted records and manifests.
        """
        if ".." in name and ".." in name.split("/"):
            rule = "a name must stay inside of its folder"
            raise InputError(Fault(where=self.root, rule=rule, got=name))
        return f"{self.root}/{name}" if name else self.root

    def get_folder(self, name: str) -> "Storage":
        """Return the sub-folder `name`; it need not exist yet."""
        return replace(self, root=self.path(name))

    def check_creatable(self) -> None:
        """Raise if the folder does not exist and cannot be created; an object store is not asked.

        Raises:
            InputError: with the reason.
        """
        folder, made = Path(self.root), list[Path]()
        missing = [each for each in (folder, *folder.parents) if not os.path.exists(each)] if self.is_local else []
        try:
            for each in reversed(missing):
                # Another process may create it, too.
                with contextlib.suppress(FileExistsError):
                    each.mkdir()
                    made.append(each)
        except OSError as error:
            rule = f"the folder cannot be created ({error.strerror})"
            raise InputError(Fault(where=self.root, rule=rule)) from None
        finally:
            for each in reversed(made):
                with contextlib.suppress(OSError):
                    each.rmdir()

    def exists(self, name: str) -> bool:
        return bool(self._get_type(name) != pafs.FileType.NotFound)

    def read(self, name: str) -> bytes:
        """Return the content of a file; raise `FileNotFoundError` if it does not exist."""
        path = self.path(name)

        def read() -> bytes:
            if self.is_local:
                return _read_local(path)
            try:
                with self.filesystem.open_input_stream(path) as stream:
                    return bytes(stream.read())
            except OSError as error:
                if isinstance(error, FileNotFoundError) or path in str(error):
                    raise
                raise OSError(error.errno or errno.EIO, error.strerror or str(error), path) from error

        return self.retry(read)

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically: after a crash, it has the old content or the new one, never a part."""
        path = self.path(name)

        def write() -> None:
            if self.is_local:
                try:
                    _write_local(Path(path), content)
                except OSError as error:
                    # Not that of the temporary file; a full disk names none
                    raise OSError(error.errno, error.strerror, path) from error
                return
            # Content of a wrong type must fail before the stream is open: closing the stream would create an object
            buffer = pa.py_buffer(content)
            with self.filesystem.open_output_stream(path) as stream:
                stream.write(buffer)

        self.retry(write)

    def append(self, name: str, content: bytes) -> None:
        """Append to a file on a local disk, which it creates; a process that is killed may leave a part of the content."""
        path = self.path(name)

        def append() -> None:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                with Path(path).open("ab", buffering=0) as stream:
                    size, left = stream.tell(), memoryview(content)
                    try:
                        while left:
                            left = left[stream.write(left) :]
                        os.fsync(stream.fileno())
                    except OSError:
                        stream.truncate(size)
                        raise
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error

        self.retry(append)

    def list_files(self, folder: str = "", *, suffix: str = "") -> list[str]:
        """Return the sorted names (without the folder) of the files directly in `folder`; empty if it does not exist."""
        # A leading dot marks a file that is still being written
        return sorted(
            info.base_name
            for info in self.list_entries(folder)
            if info.type == pafs.FileType.File
            and info.base_name.endswith(suffix)
            and not info.base_name.startswith(".")
        )

    def list_folders(self, folder: str = "") -> list[str]:
        """Return the sorted names of the folders directly in `folder`; empty if it does not exist."""
        return sorted(info.base_name for info in self.list_entries(folder) if info.type == pafs.FileType.Directory)

    def remove(self, name: str) -> None:
        """Remove a file or a whole folder; do nothing if it does not exist."""

        def remove() -> None:
            kind = self._get_type(name)
            if kind == pafs.FileType.Directory:
                self.filesystem.delete_dir(self.path(name))
            elif kind != pafs.FileType.NotFound:
                self.filesystem.delete_file(self.path(name))

        self.retry(remove)

    def move(self, name: str, to: str) -> None:
        """Move a file; in an object store, it is copied, then removed."""
        path, new_path = self.path(name), self.path(to)

        def move() -> None:
            if self.is_local:
                Path(new_path).parent.mkdir(parents=True, exist_ok=True)
            self.filesystem.move(path, new_path)

        self.retry(move)

    def remove_abandoned_files(self) -> None:
        """Remove the temporary files that killed processes have left below this folder.

        One that was changed within the last minute may still be written. An object store has none.
        """
        for place, _, names in os.walk(self.root) if self.is_local else ():
            for path in (Path(place, name) for name in names if _TEMPORARY.fullmatch(name)):
                # Another process may remove it as well, and a file that cannot be removed does no harm
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                        path.unlink()

    def list_entries(self, folder: str = "", *, recursive: bool = False) -> list[pafs.FileInfo]:
        """Return files and folders in a folder, those that are still being written included; empty if it does not exist."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)

        def list_entries() -> list[pafs.FileInfo]:
            # pyarrow looks twice at a folder that does not exist, and raises if another process creates it in between
            with contextlib.suppress(FileNotFoundError):
                return self.filesystem.get_file_info(selector)  # type: ignore[no-any-return]
            return self.filesystem.get_file_info(selector)  # type: ignore[no-any-return]

        return self.retry(list_entries)

    def _get_type(self, name: str) -> pafs.FileType:
        return self.retry(lambda: self.filesystem.get_file_info(self.path(name)).type)

    def retry(self, operation: Callable[[], _T]) -> _T:
        """Run an operation, with exponential backoff, until it succeeds or `retry_seconds` are over."""
        backoff, deadline = FIRST_BACKOFF, time.monotonic() + self.retry_seconds
        while True:
            try:
                return operation()
            # A missing file is an answer, not a failure that time may cure
            except FileNotFoundError:
                raise
            except OSError:
                if time.monotonic() + backoff > deadline:
                    raise
            time.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF)


def _request_single_puts(url: str) -> str:
    """Return an S3 URL with which a small file is uploaded in one request, not in the three of a multipart upload."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or "allow_delayed_open" in parts.query:
        return url
    query = "&".join(filter(None, [parts.query, "allow_delayed_open=true"]))
    return urlunsplit(parts._replace(query=query))


def _read_local(path: str) -> bytes:
    """Return the content of a file; an order of magnitude faster for a small one than a stream of pyarrow."""
    # Without waiting: a named pipe has no end before it has a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        content = os.read(descriptor, about.st_size + 1)
        # One call returns at most 2 GiB
        if len(content) != about.st_size:
            with open(descriptor, "rb", closefd=False) as stream:
                content += stream.read()
        return content
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), path) from error
    finally:
        os.close(descriptor)


def _write_local(path: Path, content: bytes) -> None:
    """Write to a temporary file, flush it to the device, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cut, because the name of a file may be as long as the file system allows
    temporary = path.parent / f".{path.name[:40]}.{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # Without syncing the folder, a power cut may undo the rename
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
