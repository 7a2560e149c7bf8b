"""Run with `pytest tests/io/test_storage.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.io.storage import Storage


def test_written_files_are_read_and_listed(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "new" / "root")
    storage.write("a/x.txt", b"1")
    storage.write("a/y.bin", b"2")
    assert storage.read("a/x.txt") == b"1"
    assert storage.list_files("a") == ["x.txt", "y.bin"]
    assert storage.list_files("a", suffix=".bin") == ["y.bin"]
    assert storage.list_folders() == ["a"]
    assert storage.get_folder("a").exists("x.txt")


def test_a_folder_that_cannot_be_created_is_refused_and_none_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"must be a folder, but \S+file is a file$"):
        Storage.open(tmp_path / "file" / "a" / "b")
    with pytest.raises(InputError, match=r"the folder cannot be created \(File name too long\)$"):
        Storage.open(tmp_path / "a" / ("b" * 300)).check_creatable()
    Storage.open(tmp_path / "a" / "b").check_creatable()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert Storage.open(tmp_path / "none").list_files() == []
    assert Storage.open(tmp_path / "none").list_folders("deeper") == []


def test_remove_handles_files_folders_and_missing_names(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    storage.write("a/x", b"1")
    storage.write("b", b"1")
    for name in ("a", "b", "never"):
        storage.remove(name)
    assert storage.list_files() == storage.list_folders() == []


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    storage.write("x", b"old")
    with pytest.raises(TypeError):
        storage.write("x", "text is no bytes")  # type: ignore[arg-type]
    assert storage.read("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_killed_writer_never_leaves_a_partial_file(tmp_path: Path) -> None:
    script = """
        import sys
        from dirtune.io.storage import Storage
        storage = Storage.open(sys.argv[1])
        print("ready", flush=True)
        while True:
            for byte in (b"a", b"b"):
                storage.write("x", byte * 3_000_000)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    for delay in (0.01, 0.03, 0.05):
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        names = Storage.open(tmp_path).list_files()
        content = Storage.open(tmp_path).read("x") if names else b""
        assert names in ([], ["x"])
        assert content in (b"", b"a" * 3_000_000, b"b" * 3_000_000)


@pytest.mark.parametrize("method", ["write", "append"])
def test_a_write_to_a_full_disk_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path, method: str) -> None:
    script = """
        import errno, resource, sys
        from dirtune.io.storage import Storage
        storage = Storage.open(sys.argv[1])
        storage.write("x", b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            getattr(storage, sys.argv[2])("x", b"new" * 1000)
        except OSError as error:
            print(errno.errorcode[error.errno], error.filename)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"EFBIG {tmp_path / 'x'}"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert Storage.open(tmp_path).read("x") == b"old"


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    name = "\u57fa" * 85
    storage.write(name, b"content")
    assert storage.read(name) == b"content"
    with pytest.raises(OSError, match=f"File name too long: '{tmp_path / name}x'$"):
        storage.write(f"{name}x", b"content")


def test_a_location_that_leads_nowhere_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"loop: no usable location \(Symlink loop from "):
        Storage.open(tmp_path / "loop")


def block(folder: Path, *, seconds: float) -> threading.Timer:
    """Create a file in place of `folder`, so that every operation in it fails, and remove it after `seconds`."""
    folder.write_bytes(b"no folder")
    timer = threading.Timer(seconds, folder.unlink)
    timer.start()
    return timer


@pytest.mark.slow
def test_a_storage_with_retries_reads_and_writes_after_a_failure_ends(tmp_path: Path) -> None:
    plain, retrying = Storage.open(tmp_path), Storage.open(tmp_path).with_retry(60)
    unblocked = block(tmp_path / "a", seconds=0.6)
    with pytest.raises(FileExistsError):
        plain.write("a/x", b"1")
    retrying.get_folder("a").write("x", b"1")
    unblocked.join()
    retrying.append("a/x", b"2")
    assert plain.read("a/x") == b"12"
    (tmp_path / "a/x").unlink()
    (tmp_path / "a").rmdir()
    unblocked = block(tmp_path / "a", seconds=0.6)
    with pytest.raises(NotADirectoryError):
        plain.read("a/x")
    # A missing file is an answer and is not retried
    with pytest.raises(FileNotFoundError):
        retrying.read("a/x")
    unblocked.join()


def test_retries_end_with_the_last_error_and_keep_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        Storage.open(tmp_path).with_retry(0.6).write("a/x", b"1")
    assert Storage.open(tmp_path).read("a") == b"old"


def test_an_unknown_url_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="no usable location"):
        Storage.open("gopher://somewhere/else")


def test_a_named_pipe_is_refused_and_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "study.json")
    with pytest.raises(OSError, match=r"Not a regular file: '.*study.json'"):
        Storage.open(tmp_path).read("study.json")


def test_files_that_a_killed_write_has_left_are_removed_once_they_are_old(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    storage.write("results/trials/a.parquet", b"record")
    token = "0" * 32
    old, new = (tmp_path / "results/trials" / f".{name}.parquet.{token}" for name in ("old", "new"))
    kept = tmp_path / "results" / ".hidden"
    for path in (old, new, kept):
        path.write_bytes(b"half")
    for path in (old, kept, tmp_path / "results/trials/a.parquet"):
        os.utime(path, (1.0, 1.0))
    assert storage.list_files("results/trials") == ["a.parquet"]
    storage.remove_abandoned_files()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [new.name, ".hidden", "a.parquet"]
    )
    Storage.open(tmp_path / "nothing").remove_abandoned_files()
