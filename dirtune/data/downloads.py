"""Raw files from the web: checked by SHA-256, resumed after an interruption, archives unpacked completely or not at all.

pooch decides which file to fetch, checks it and moves it into place; the transfer is the project's own, because pooch's
starts from the beginning each time and the archives of faces have gigabytes. A file without a published hash is recorded
in `SHA256SUMS` at its first download, in the format that `sha256sum -c` reads, and checked against it from then on.
"""

import gzip
import lzma
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

import pooch

from dirtune.errors import Fault, InputError
from dirtune.progress import show_progress

SUMS = "SHA256SUMS"
MAX_UNPACKED_RATIO = 100
"""Largest size of the members of an archive, as a multiple of the archive's, beyond `MAX_UNPACKED_BYTES`."""
MAX_UNPACKED_BYTES = 2**30
Report = Callable[[str], None]
"""Receives one line of progress."""

_CHUNK_BYTES = 2**20
# Seconds without a response.
_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """File to download."""

    name: str
    """Name in the raw folder."""
    url: str
    sha256: str | None = None
    """None if no hash is published."""
    unpacks_to: tuple[str, ...] = ()
    """Archives: files and folders of the raw folder after unpacking."""


def download(file: RawFile, folder: Path, *, report: Report = print) -> None:
    """Download a file into a folder, and unpack it if it is an archive; no effect if that has been done before.

    Raises:
        InputError: the transfer was interrupted (the next call resumes it), the content has another hash, another file of
            this name exists, or an archive is unsafe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    if file.unpacks_to and all((folder / name).exists() for name in file.unpacks_to):
        report(f"{file.name}: already unpacked")
        return
    recorded = {}
    if (folder / SUMS).exists():
        lines = (line.partition("  ") for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
        recorded = {name: sha256 for sha256, _, name in lines}
    expected = file.sha256 or recorded.get(file.name)
    if not path.exists():
        _retrieve(file, folder, expected)
    found = pooch.file_hash(str(path), alg="sha256")
    if expected is not None and found != expected:
        rule = f"another file of this name exists; move it away (its SHA-256 should be {expected})"
        raise InputError(Fault(where=str(path), rule=rule, got=found))
    if expected is None:
        # A file without a published hash is checked against its first download from now on.
        with (folder / SUMS).open("a", encoding="utf-8") as sums:
            sums.write(f"{found}  {file.name}\n")
    origin = "as published" if file.sha256 else f"recorded in {SUMS}, no hash is published"
    report(f"{file.name}: SHA-256 {found}, {origin}")
    if file.unpacks_to:
        unpack(path, folder)
        report(f"{file.name}: unpacked to {', '.join(file.unpacks_to)}")


def _retrieve(file: RawFile, folder: Path, expected: str | None) -> None:
    # pooch would log the same lines again.
    pooch.get_logger().setLevel("WARNING")
    part = folder / f".{file.name}.part"

    def resume_transfer(url: str, output: str | os.PathLike[str], *_: object) -> None:
        _transfer(url, part)
        part.replace(output)

    known = expected and f"sha256:{expected}"
    try:
        pooch.retrieve(file.url, known, fname=file.name, path=folder, downloader=resume_transfer)
    except (OSError, HTTPException) as error:
        have = part.stat().st_size if part.exists() else 0
        rule = f"the download was interrupted after {have:,} bytes ({error}); the next one resumes it"
        raise InputError(Fault(where=file.url, rule=rule)) from None
    # pooch raises it for another hash, after it has removed the file.
    except ValueError:
        rule = f"the content does not have the expected SHA-256 {expected}; nothing was kept"
        raise InputError(Fault(where=file.url, rule=rule)) from None


def _transfer(url: str, part: Path) -> None:
    """Append the missing bytes of the file at `url` to `part`; start from the beginning if it cannot be resumed.

    Raises:
        OSError: the transfer was interrupted.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)
    if have:
        # Bytes of another version of the file must not be appended.
        since = formatdate(part.stat().st_mtime, usegmt=True)
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-", "If-Unmodified-Since": since})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            _write_response(response, part, have if response.status == HTTPStatus.PARTIAL_CONTENT else 0)
    except urllib.error.HTTPError as error:
        error.close()
        complete = error.headers.get("Content-Range") == f"bytes */{have}"
        resumable = {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}
        if have == 0 or error.code not in resumable:
            raise
        if not complete:
            part.unlink()
            _transfer(url, part)


def _write_response(response: HTTPResponse, part: Path, have: int) -> None:
    length = response.headers.get("Content-Length")
    total = None if length is None else have + int(length)
    name = part.name.removeprefix(".").removesuffix(".part")
    with (
        show_progress(name, total, done=have, is_bytes=True) as advance,
        part.open("ab" if have else "wb") as output,
    ):
        while chunk := response.read(_CHUNK_BYTES):
            output.write(chunk)
            advance(len(chunk))
    size = part.stat().st_size
    # http.client reports the end of an interrupted transfer like that of a complete one.
    if total is not None and size < total:
        raise ConnectionError(f"{total - size:,} bytes are missing")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive; its files and folders appear in the folder after all of it is unpacked.

    Raises:
        InputError: it is not an archive, a member would be outside of the folder (by an absolute name, `..`, or a link),
            or a file or folder of the same name exists.
    """
    # Unpacked in a folder of the same file system, so that the final moves are atomic.
    temporary = folder / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, temporary)
        else:
            _unpack_tar(archive, temporary)
        entries = sorted(temporary.iterdir())
        present = [entry.name for entry in entries if (folder / entry.name).exists()]
        if present:
            rule = "not unpacked, because this exists already; move it away"
            raise InputError(Fault(where=str(archive), rule=rule, got=str(folder / name)) for name in present)
        for entry in entries:
            entry.replace(folder / entry.name)
    # Damaged compression, encrypted or unknown members (RuntimeError, NotImplementedError), links to nothing (KeyError)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        RuntimeError,
        KeyError,
        ValueError,
    ) as error:
        if isinstance(error, InputError):
            raise
        rule = f"the archive is damaged or unsafe and was not unpacked ({error})"
        raise InputError(Fault(where=str(archive), rule=rule)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_zip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        _check_size(archive, sum(member.file_size for member in content.infolist()))
        for name in content.namelist():
            # `extractall` would write it elsewhere without an error.
            if _is_outside(name):
                raise zipfile.BadZipFile(f"{name!r} is outside of the folder")
        content.extractall(target)


def _unpack_tar(archive: Path, target: Path) -> None:
    size = 0

    def check_member(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        nonlocal size
        size += member.size
        _check_size(archive, size)
        # The standard filter would make an absolute name relative.
        if _is_outside(member.name):
            raise tarfile.OutsideDestinationError(member, path)
        # The filter follows links to check their target, which Pythons before 3.11.13 could be deceived about.
        if (member.issym() or member.islnk()) and _is_outside(member.linkname):
            raise tarfile.LinkOutsideDestinationError(member, path)
        # The filter refuses devices, and drops owners and set-id bits.
        return tarfile.data_filter(member, path)

    with tarfile.open(archive) as content:
        # One by one: a bomb must end before its last member was found
        for member in content:
            content.extract(member, target, filter=check_member)
        # A damaged header ends an archive like its end, which is followed by zeros alone
        assert content.fileobj is not None
        content.fileobj.seek(content.offset)
        while rest := content.fileobj.read(_CHUNK_BYTES):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("it does not end where its last member ends")


def _check_size(archive: Path, size: int) -> None:
    """Raise if what an archive unpacks to is out of all proportion, as of a bomb."""
    most = MAX_UNPACKED_RATIO * archive.stat().st_size + MAX_UNPACKED_BYTES
    if size > most:
        rule = f"the archive unpacks to more than {most:,} bytes, {MAX_UNPACKED_RATIO} times its size; not unpacked"
        raise InputError(Fault(where=str(archive), rule=rule))


def _is_outside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts
