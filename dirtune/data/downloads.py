"""Raw files from the web: checked by SHA-256, continued where they broke off, archives unpacked whole or not at all.

pooch decides what to fetch, checks it and puts it in place; the transfer is our own, because pooch's starts anew each time and
the archives of faces are of gigabytes. A file whose hash nobody has published is recorded in `SHA256SUMS` at its first
download, in the form that `sha256sum -c` reads, and checked against it from then on.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from dirtune.errors import Fault, InputError

SUMS = "SHA256SUMS"
_CHUNK = 2**20
# Without an answer
_SECONDS = 60.0
_CHANGED, _NOTHING_LEFT = (412, 416)  # HTTP: the file is another one by now; the range asked for is empty
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One file to download."""

    name: str
    """In the raw folder."""
    url: str
    sha256: str | None = None
    """None: not known beforehand."""
    unpacks_to: tuple[str, ...] = ()
    """Archives: what stands in the raw folder afterwards."""


def download(file: RawFile, folder: Path, *, say: Say = print) -> None:
    """Bring a file into a folder, and unpack it if it is an archive; nothing happens if that has been done.

    Raises:
        InputError: the transfer broke off (the next call continues it), the content is not the expected one, another file
            of this name is there, or an archive is unsafe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    if file.unpacks_to and all((folder / name).exists() for name in file.unpacks_to):
        say(f"{file.name}: unpacked already")
        return
    expected = file.sha256 or _recorded(folder).get(file.name)
    if not path.exists():
        _retrieve(file, folder, expected)
    found = pooch.file_hash(str(path), alg="sha256")
    if expected is not None and found != expected:
        rule = f"another file of this name is here; move it away (its SHA-256 should be {expected})"
        raise InputError(Fault(where=str(path), rule=rule, got=found))
    if expected is None:
        _record(folder, file.name, found)
    origin = "as published" if file.sha256 else f"recorded in {SUMS}, no hash is published"
    say(f"{file.name}: SHA-256 {found}, {origin}")
    if file.unpacks_to:
        unpack(path, folder)
        say(f"{file.name}: unpacked to {', '.join(file.unpacks_to)}")


def _recorded(folder: Path) -> dict[str, str]:
    if not (folder / SUMS).exists():
        return {}
    lines = (folder / SUMS).read_text().splitlines()
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def _record(folder: Path, name: str, sha256: str) -> None:
    with (folder / SUMS).open("a") as sums:
        sums.write(f"{sha256}  {name}\n")


def _retrieve(file: RawFile, folder: Path, expected: str | None) -> None:
    # It would repeat what we say
    pooch.get_logger().setLevel("WARNING")
    part = folder / f".{file.name}.part"

    def continued(url: str, output: str | os.PathLike[str], *_: object) -> None:
        _transfer(url, part)
        part.replace(output)

    known = expected and f"sha256:{expected}"
    try:
        pooch.retrieve(file.url, known, fname=file.name, path=folder, downloader=continued)
    except (OSError, HTTPException) as error:
        have = part.stat().st_size if part.exists() else 0
        rule = f"the download broke off after {have:,} bytes ({error}); the next one continues it"
        raise InputError(Fault(where=file.url, rule=rule)) from None
    except ValueError:  # pooch's word for another hash; it has removed the file
        rule = f"the content is not the expected one, SHA-256 {expected}; nothing was kept"
        raise InputError(Fault(where=file.url, rule=rule)) from None


def _transfer(url: str, part: Path) -> None:
    """Add to `part` what is missing of the file at `url`; start anew if it cannot be continued.

    Raises:
        OSError: the transfer broke off.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        with urllib.request.urlopen(_request(url, part, have), timeout=_SECONDS) as answer:
            _write(answer, part, have if answer.status == 206 else 0)
    except urllib.error.HTTPError as error:
        error.close()
        complete = error.headers.get("Content-Range") == f"bytes */{have}"
        if have == 0 or error.code not in {_CHANGED, _NOTHING_LEFT}:
            raise
        if not complete:
            part.unlink()
            _transfer(url, part)


def _request(url: str, part: Path, have: int) -> urllib.request.Request:
    if have == 0:
        return urllib.request.Request(url)
    since = formatdate(part.stat().st_mtime, usegmt=True)
    headers = {"Range": f"bytes={have}-", "If-Unmodified-Since": since}
    return urllib.request.Request(url, headers=headers)


def _write(answer: HTTPResponse, part: Path, have: int) -> None:
    length = answer.headers.get("Content-Length")
    total = None if length is None else have + int(length)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        part.open("ab" if have else "wb") as output,
    ):
        task = progress.add_task(part.name.removeprefix(".").removesuffix(".part"), total=total)
        progress.update(task, completed=have)
        while chunk := answer.read(_CHUNK):
            output.write(chunk)
            progress.advance(task, len(chunk))
    size = part.stat().st_size
    # Http.client ends a broken transfer like a whole one
    if total is not None and size < total:
        raise ConnectionError(f"{total - size:,} bytes are missing")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive; what stands in it appears in the folder when all of it is unpacked.

    Raises:
        InputError: it is no such archive, a member would land outside of the folder (by an absolute name, `..`, or a
            link), or something of the same name is there already.
    """
    aside = folder / f".{archive.name}.unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, aside)
        else:
            _untar(archive, aside)
        _move_into(folder, aside, archive)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        rule = f"the archive is damaged or unsafe and was not unpacked ({error})"
        raise InputError(Fault(where=str(archive), rule=rule)) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unzip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            # `extractall` would put it elsewhere without a word
            if _escapes(name):
                raise zipfile.BadZipFile(f"{name!r} lies outside")
        content.extractall(target)


def _untar(archive: Path, target: Path) -> None:
    def inside(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        # The standard filter would make an absolute name relative
        if _escapes(member.name):
            raise tarfile.OutsideDestinationError(member, path)
        # The filter follows links to see where they end, which Pythons before 3.11.13 could be deceived about.
        if (member.issym() or member.islnk()) and _escapes(member.linkname):
            raise tarfile.LinkOutsideDestinationError(member, path)
        # Refuses devices, and drops owners and set-id bits
        return tarfile.data_filter(member, path)

    with tarfile.open(archive) as content:
        content.extractall(target, filter=inside)


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def _move_into(folder: Path, aside: Path, archive: Path) -> None:
    entries = sorted(aside.iterdir())
    present = [entry.name for entry in entries if (folder / entry.name).exists()]
    if present:
        rule = "not unpacked, because this is here already; move it away"
        raise InputError(Fault(where=str(archive), rule=rule, got=str(folder / name)) for name in present)
    for entry in entries:
        entry.replace(folder / entry.name)
