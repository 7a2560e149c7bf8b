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


def test_what_is_written_is_read_back_and_listed(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path / "new" / "root")
    storage.write("a/x.txt", b"1")
    storage.write("a/y.bin", b"2")
    assert storage.read("a/x.txt") == b"1"
    assert storage.names("a") == ["x.txt", "y.bin"]
    assert storage.names("a", suffix=".bin") == ["y.bin"]
    assert storage.folders() == ["a"]
    assert storage.below("a").exists("x.txt")


def test_a_folder_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert Storage.at(tmp_path / "none").names() == []
    assert Storage.at(tmp_path / "none").folders("deeper") == []


def test_removing_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    storage.write("a/x", b"1")
    storage.write("b", b"1")
    for name in ("a", "b", "never"):
        storage.remove(name)
    assert storage.names() == storage.folders() == []


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    storage.write("x", b"old")
    with pytest.raises(TypeError):
        storage.write("x", "text is no bytes")  # type: ignore[arg-type]
    assert storage.read("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_killed_writer_leaves_an_old_or_a_new_file_but_never_a_part(tmp_path: Path) -> None:
    script = """
        import sys
        from dirtune.io.storage import Storage
        storage = Storage.at(sys.argv[1])
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
        names = Storage.at(tmp_path).names()
        content = Storage.at(tmp_path).read("x") if names else b""
        assert names in ([], ["x"])
        assert content in (b"", b"a" * 3_000_000, b"b" * 3_000_000)


def test_a_write_without_room_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    script = """
        import errno, resource, sys
        from dirtune.io.storage import Storage
        storage = Storage.at(sys.argv[1])
        storage.write("x", b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            storage.write("x", b"new" * 1000)
        except OSError as error:
            print(errno.errorcode[error.errno])
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "EFBIG"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert Storage.at(tmp_path).read("x") == b"old"


def in_the_way(folder: Path, *, seconds: float) -> threading.Timer:
    """A file where `folder` should be, so that nothing can be done there, until it is taken away."""
    folder.write_bytes(b"no folder")
    timer = threading.Timer(seconds, folder.unlink)
    timer.start()
    return timer


def test_a_patient_storage_writes_and_reads_when_a_place_that_failed_is_there_again(tmp_path: Path) -> None:
    plain, patient = Storage.at(tmp_path), Storage.at(tmp_path).patient(60)
    healed = in_the_way(tmp_path / "a", seconds=0.6)
    with pytest.raises(FileExistsError):
        plain.write("a/x", b"1")
    patient.below("a").write("x", b"1")
    healed.join()
    assert plain.read("a/x") == b"1"
    (tmp_path / "a/x").unlink()
    (tmp_path / "a").rmdir()
    healed = in_the_way(tmp_path / "a", seconds=0.6)
    with pytest.raises(NotADirectoryError):
        plain.read("a/x")
    # Which is an answer, and no failure
    with pytest.raises(FileNotFoundError):
        patient.read("a/x")
    healed.join()


def test_patience_ends_with_what_failed_last_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        Storage.at(tmp_path).patient(0.6).write("a/x", b"1")
    assert Storage.at(tmp_path).read("a") == b"old"


def test_a_url_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no usable location"):
        Storage.at("gopher://somewhere/else")
