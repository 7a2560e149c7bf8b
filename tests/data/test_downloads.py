"""Run with `pytest tests/data/test_downloads.py`. Everything is served on the loopback interface of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dirtune.data import downloads
from dirtune.data.downloads import SUMS, RawFile, download, unpack
from dirtune.errors import InputError

# 5 MB
CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """Server of one file, and its behavior."""

    url: str = ""
    content: bytes = CONTENT
    breaks_off_after: int | None = None
    """Bytes after which a response is interrupted."""
    knows_ranges: bool = True
    modified: float | None = None
    """Time of the last change; None if the server ignores conditions."""
    asked: list[str | None] = field(default_factory=list)
    """The ranges of all requests."""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, range_ = self.site, self.headers.get("Range")
        site.asked.append(range_)
        if self.path != "/file":
            self.send_error(404)
            return
        if self._is_outdated():
            self.send_error(412)
            return
        start = int(range_.removeprefix("bytes=").removesuffix("-")) if range_ else 0
        if not site.knows_ranges:
            start = 0
        if start and start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.end_headers()
            return
        self._answer(site.content[start:], status=206 if start else 200)

    def _is_outdated(self) -> bool:
        since = self.headers.get("If-Unmodified-Since")
        if since is None or self.site.modified is None:
            return False
        return parsedate_to_datetime(since).timestamp() < self.site.modified

    def _answer(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.site.breaks_off_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    handler = type("Handler", (_Handler,), {"site": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # The default interval is half a second at the end of every test.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/file"
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def _file(site: Site, sha256: str | None = SHA256) -> RawFile:
    return RawFile(name="faces.bin", url=site.url, sha256=sha256)


def _fault(file: RawFile, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        download(file, folder, report=str)
    return str(caught.value)


def test_a_file_is_downloaded_once_and_checked(site: Site, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        download(_file(site), tmp_path / "raw", report=said.append)
    assert (tmp_path / "raw" / "faces.bin").read_bytes() == CONTENT
    assert os.listdir(tmp_path / "raw") == ["faces.bin"]
    assert said == [f"faces.bin: SHA-256 {SHA256}, as published"] * 2
    assert site.asked == [None]


def test_a_wrong_hash_is_an_error_and_nothing_is_kept(site: Site, tmp_path: Path) -> None:
    wrong = "0" * 64
    said = _fault(_file(site, wrong), tmp_path)
    assert said == (f"{site.url}: the content does not have the expected SHA-256 {wrong}; nothing was kept")
    assert os.listdir(tmp_path) == []


def test_an_interrupted_download_is_resumed(site: Site, tmp_path: Path) -> None:
    site.breaks_off_after = 2_000_000
    said = _fault(_file(site), tmp_path)
    assert said == (
        f"{site.url}: the download was interrupted after 2,000,000 bytes (3,120,000 bytes are missing); "
        "the next one resumes it"
    )
    assert not (tmp_path / "faces.bin").exists()
    assert "after 4,000,000 bytes" in _fault(_file(site), tmp_path)
    download(_file(site), tmp_path, report=str)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT
    assert site.asked == [None, "bytes=2000000-", "bytes=4000000-"]
    assert os.listdir(tmp_path) == ["faces.bin"]


def test_a_server_without_ranges_sends_the_whole_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".faces.bin.part").write_bytes(CONTENT[:1000])
    site.knows_ranges = False
    download(_file(site), tmp_path, report=str)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT


def test_a_complete_partial_file_is_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".faces.bin.part").write_bytes(CONTENT)
    download(_file(site), tmp_path, report=str)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("size", [1000, len(CONTENT) + 1])
def test_a_file_that_changed_meanwhile_is_downloaded_from_the_start(site: Site, tmp_path: Path, size: int) -> None:
    """Recognized by the time of the last change, or by a part that is longer than the file."""
    part = tmp_path / ".faces.bin.part"
    part.write_bytes(b"x" * size)
    os.utime(part, (1_000_000, 1_000_000))
    site.modified = 2_000_000.0 if size < len(CONTENT) else None
    download(_file(site, None), tmp_path, report=str)
    assert (tmp_path / "faces.bin").read_bytes() == CONTENT


def test_an_unpublished_hash_is_recorded_and_checked_afterwards(site: Site, tmp_path: Path) -> None:
    said: list[str] = []
    download(_file(site, None), tmp_path, report=said.append)
    assert said == [f"faces.bin: SHA-256 {SHA256}, recorded in {SUMS}, no hash is published"]
    assert (tmp_path / SUMS).read_text() == f"{SHA256}  faces.bin\n"
    download(_file(site, None), tmp_path, report=said.append)
    assert (tmp_path / SUMS).read_text().count("\n") == 1
    (tmp_path / "faces.bin").unlink()
    site.content = CONTENT[:-1]
    assert "the content does not have the expected" in _fault(_file(site, None), tmp_path)


def test_another_file_of_the_same_name_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    (tmp_path / "faces.bin").write_text("mine")
    assert "another file of this name exists; move it away" in _fault(_file(site), tmp_path)
    assert (tmp_path / "faces.bin").read_text() == "mine"
    assert site.asked == []


def test_errors_of_a_missing_page_and_an_unreachable_server_name_the_url(site: Site, tmp_path: Path) -> None:
    gone = RawFile(name="a", url=site.url.replace("/file", "/gone"))
    assert "HTTP Error 404" in _fault(gone, tmp_path)
    dead = RawFile(name="a", url="http://127.0.0.1:9/a")
    assert _fault(dead, tmp_path).startswith("http://127.0.0.1:9/a: the download was interrupted after 0")


def _tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _link(target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("faces/link")
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def _special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("faces/special")
    info.type, info.linkname = kind, target
    return info


def test_an_archive_is_downloaded_and_unpacked_once(site: Site, tmp_path: Path) -> None:
    site.content = _tar(tmp_path / "a.tar.gz", {"faces/01/a.jpg": b"a"}).read_bytes()
    file = RawFile(name="faces.tar.gz", url=site.url, unpacks_to=("faces",))
    said: list[str] = []
    download(file, tmp_path / "raw", report=said.append)
    assert (tmp_path / "raw" / "faces" / "01" / "a.jpg").read_bytes() == b"a"
    (tmp_path / "raw" / "faces.tar.gz").unlink()
    download(file, tmp_path / "raw", report=said.append)
    assert said[1:] == ["faces.tar.gz: unpacked to faces", "faces.tar.gz: already unpacked"]
    assert site.asked == [None]


@pytest.mark.parametrize("make", [_tar, _zip])
@pytest.mark.parametrize("name", ["../evil", "faces/../../evil", "/evil", "..\\evil"])
def test_members_outside_the_folder_are_an_error_and_nothing_is_unpacked(make, name, tmp_path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    archive = make(folder / "faces", {"good": b"", name: b"evil"})
    with pytest.raises(InputError, match="damaged or unsafe and was not unpacked"):
        unpack(archive, folder)
    assert os.listdir(folder) == ["faces"]
    assert not list(tmp_path.glob("**/*evil"))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside"])
def test_links_to_the_outside_are_an_error(tmp_path: Path, target: str) -> None:
    archive = _tar(tmp_path / "a.tar.gz", {"faces/a": b"a", "link": _link(target)})
    with pytest.raises(InputError, match="damaged or unsafe"):
        unpack(archive, tmp_path)
    assert os.listdir(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "faces/../../outside"])
def test_hard_links_to_the_outside_are_an_error(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_text("mine")
    archive = _tar(tmp_path / "a.tar.gz", {"faces/a": b"a", "l": _special(tarfile.LNKTYPE, target)})
    with pytest.raises(InputError, match="damaged or unsafe"):
        unpack(archive, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "outside"]


def test_nothing_is_written_through_a_link_that_leads_up_inside_the_archive(tmp_path: Path) -> None:
    """`faces/link` is `..`: still inside when it is made, and outside for what is then written through it twice."""
    up = {"faces/a": b"a", "link": _link(".."), "faces/link/../../evil": b"evil"}
    with pytest.raises(InputError, match="damaged or unsafe"):
        unpack(_tar(tmp_path / "a.tar.gz", up), tmp_path)
    assert not list(tmp_path.glob("**/*evil"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_an_error(tmp_path: Path, kind: bytes) -> None:
    archive = _tar(tmp_path / "a.tar.gz", {"faces/a": b"a", "d": _special(kind)})
    with pytest.raises(InputError, match="damaged or unsafe"):
        unpack(archive, tmp_path)
    assert os.listdir(tmp_path) == ["a.tar.gz"]


def test_set_id_bits_are_not_unpacked(tmp_path: Path) -> None:
    program = tarfile.TarInfo("faces/program")
    program.mode = 0o6777
    unpack(_tar(tmp_path / "a.tar.gz", {"program": program}), tmp_path)
    assert (tmp_path / "faces" / "program").stat().st_mode & 0o7022 == 0


def test_a_link_of_a_zip_archive_is_a_file_with_its_target(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    unpack(tmp_path / "a.zip", tmp_path)
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "/etc/passwd"


def test_links_inside_an_archive_are_unpacked(tmp_path: Path) -> None:
    unpack(_tar(tmp_path / "a.tar.gz", {"faces/a": b"a", "link": _link("a")}), tmp_path)
    assert (tmp_path / "faces" / "link").read_bytes() == b"a"


def test_zip_archives_are_unpacked_too(tmp_path: Path) -> None:
    unpack(_zip(tmp_path / "a.zip", {"AgeDB/1_A_2_m.jpg": b"a", "read.me": b"b"}), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["AgeDB", "a.zip", "read.me"]
    assert (tmp_path / "AgeDB" / "1_A_2_m.jpg").read_bytes() == b"a"


def test_existing_files_are_not_overwritten_by_an_archive(tmp_path: Path) -> None:
    (tmp_path / "AgeDB").mkdir()
    with pytest.raises(InputError, match=r"exists already; move it away, got '.*AgeDB'"):
        unpack(_zip(tmp_path / "a.zip", {"AgeDB/a.jpg": b"a", "b": b""}), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["AgeDB", "a.zip"]


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    whole = _tar(tmp_path / "a.tar.gz", {"faces/a": os.urandom(10_000)}).read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive"):
        (tmp_path / "b.tar.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.tar\.gz: the archive is damaged or unsafe"):
            unpack(tmp_path / "b.tar.gz", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "b.tar.gz"]


def test_an_encrypted_zip_a_corrupt_xz_and_a_link_to_nothing_are_named(tmp_path: Path) -> None:
    encrypted = bytearray(_zip(tmp_path / "e.zip", {"faces/a": b"a"}).read_bytes())
    # The flag of encryption, of the member and in the directory
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(signature) + at] |= 1
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        archive.addfile(tarfile.TarInfo("faces/a"))
    xz = bytearray(content.getvalue())
    xz[len(xz) // 2] ^= 8
    dangling = _tar(tmp_path / "d.tar", {"faces/l": _special(tarfile.LNKTYPE, "faces/nothing")}).read_bytes()
    for name, damaged in {"e.zip": encrypted, "x.tar.xz": xz, "d.tar": dangling}.items():
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name}: the archive is damaged or unsafe and was not unpacked"):
            unpack(folder / name, folder)
        assert os.listdir(folder) == [name]


@pytest.mark.parametrize("position", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_with_a_changed_byte_unpacks_to_its_files_or_not_at_all(
    tmp_path: Path, mode: str, position: float
) -> None:
    members, content = {f"faces/{number}": bytes([number]) * 600 for number in range(20)}, io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    # In a header of the plain archive: its checksum is wrong then
    at = int(len(content.getvalue()) * position)
    at = at // 1536 * 1536 + 100 if mode == "w" else at
    damaged = bytearray(content.getvalue())
    damaged[at] ^= 64
    (tmp_path / "a.tar").write_bytes(damaged)
    with contextlib.suppress(InputError):
        unpack(tmp_path / "a.tar", tmp_path)
    unpacked = {name: (tmp_path / name).read_bytes() for name in members if (tmp_path / name).exists()}
    # Some bits of a compressed file say nothing
    assert unpacked == {} or (mode == "w:gz" and unpacked == members)
    assert unpacked or os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("make", [_tar, _zip])
def test_an_archive_that_unpacks_to_a_multiple_of_its_size_is_refused(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MAX_UNPACKED_BYTES", 1000)
    archive = make(tmp_path / "a", {f"faces/{number}": bytes(2**18) for number in range(8)})
    if make is _zip:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
            content.writestr("faces/a", bytes(2**21))
    with pytest.raises(InputError, match=r"a: the archive unpacks to more than [\d,]+ bytes, 100 times its size"):
        unpack(archive, tmp_path)
    assert os.listdir(tmp_path) == ["a"]
