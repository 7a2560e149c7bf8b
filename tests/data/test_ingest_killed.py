"""Ingests that are killed, interrupted, or out of disk space; `pytest -m soak` runs ten kills at random times.

Run with `pytest tests/data/test_ingest_killed.py`. Every child has a mark in its environment, which the processes of its
Ray inherit and by which they are found and stopped one by one.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from dirtune.cli import main
from dirtune.data.ingest import ingest
from dirtune.data.store import list_datasets, read_manifest, read_split
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest

pytestmark = pytest.mark.ray

TIMEOUT = 300.0
ROWS = {"train": 4809, "val": 600, "test": 1200}
# Of the times of the kills.
SEED = 20261122


class Child:
    """`dirtune ingest digits` in a process group of its own."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.mark = root, f"DIRTUNE_TEST_CHILD={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        environment = {key: text for key, text in os.environ.items() if key != "RAY_ADDRESS"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dirtune.cli", "ingest", "digits", "--data", str(root), "--option", f"seed={seed}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**environment, name: value},
        )

    def wait_for_version(self, *, known: set[str]) -> None:
        """Wait until it has started to write."""
        self._wait_for("", known)

    def wait_for_shard(self, split: str, *, known: set[str]) -> None:
        """Wait until the new version has a shard of a split."""
        self._wait_for(f"/{split}/*.parquet", known)

    def _wait_for(self, pattern: str, known: set[str]) -> None:
        deadline = time.monotonic() + TIMEOUT
        home = self.root / "digits"
        while not any(path.relative_to(home).parts[0] not in known for path in home.glob(f"version-*{pattern}")):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, f"nothing like {pattern}"
            time.sleep(0.01)

    def find_processes(self) -> list[int]:
        """Return the ids of the child and of all running processes that it started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it has ended meanwhile, or belongs to another user
                continue
        return found

    def kill(self) -> None:
        """Kill the driver, then the remaining processes of its Ray by their ids; a worker that was just starting lingers."""
        self.process.kill()
        self.process.communicate()
        while left := self.find_processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Child]]:
    """Return a function that starts a child by its seed; all are killed after the test."""
    children: list[Child] = []

    def starter(seed: int) -> Child:
        children.append(Child(tmp_path, seed))
        return children[-1]

    yield starter
    for child in children:
        child.kill()


def _copy_digits(digits: Path, root: Path) -> Manifest:
    """Copy the ingested set to another root, which is faster than another ingest."""
    shutil.copytree(digits / "digits", root / "digits")
    return read_manifest(Storage.open(root), "digits")


def _versions(root: Path) -> set[str]:
    return {path.name for path in root.glob("digits/version-*")}


def _content(root: Path, manifest: Manifest) -> dict[str, pa.Table]:
    return {split: read_split(Storage.open(root), manifest, split) for split in manifest.splits}


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_a_killed_ingest_leaves_the_previous_version_and_the_next_one_removes_its_files(
    tmp_path: Path, start: Callable[[int], Child]
) -> None:
    storage, first = Storage.open(tmp_path), start(0)
    first.wait_for_shard("train", known=set())
    first.kill()
    assert list_datasets(storage) == []
    # The kill came while the version was written.
    assert len(_versions(tmp_path)) == 1

    old = ingest("digits", root=tmp_path)
    content = _content(tmp_path, old)
    (current,) = _versions(tmp_path)
    assert old.splits["train"].files[0].startswith(current)

    second = start(1)
    second.wait_for_shard("test", known={current})
    second.kill()
    assert len(_versions(tmp_path)) == 2
    assert read_manifest(storage, "digits") == old
    assert _content(tmp_path, old) == content

    new = ingest("digits", root=tmp_path, options={"seed": 1})
    assert new.content_hash != old.content_hash
    assert len(_versions(tmp_path)) == 1
    assert {name: table.num_rows for name, table in _content(tmp_path, new).items()} == ROWS


@pytest.mark.usefixtures("ray_session")
def test_ctrl_c_reports_that_nothing_was_changed_and_leaves_no_files(
    digits: Path, tmp_path: Path, start: Callable[[int], Child]
) -> None:
    old = _copy_digits(digits, tmp_path)
    content, versions = _content(tmp_path, old), _versions(tmp_path)
    child = start(1)
    child.wait_for_shard("train", known=versions)
    # A terminal signals the whole process group.
    os.killpg(child.process.pid, signal.SIGINT)
    said, _ = child.process.communicate(timeout=TIMEOUT)
    assert child.process.returncode == 130
    assert said.splitlines() == ["digits: interrupted; nothing was changed"]
    assert _versions(tmp_path) == versions
    assert read_manifest(Storage.open(tmp_path), "digits") == old
    assert _content(tmp_path, old) == content


@pytest.mark.usefixtures("ray_session")
def test_a_full_disk_is_a_one_line_error_and_leaves_the_previous_version(
    digits: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = _copy_digits(digits, small_disk)
    content, versions = _content(small_disk, old), _versions(small_disk)
    command = ["dirtune", "ingest", "digits", "--data", str(small_disk), "--option", "seed=1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"dirtune: {small_disk}/digits: no space left to write it (No space left on device); nothing was changed"
    )
    assert _versions(small_disk) == versions
    assert read_manifest(Storage.open(small_disk), "digits") == old
    assert _content(small_disk, old) == content


@pytest.mark.soak
@pytest.mark.usefixtures("ray_session")
def test_ten_kills_at_random_times_never_lose_a_data_set(tmp_path: Path, start: Callable[[int], Child]) -> None:
    storage, moments = Storage.open(tmp_path), random.Random(SEED)
    began, whole = time.monotonic(), start(0)
    whole.wait_for_version(known=set())
    until_writing = time.monotonic() - began
    assert whole.process.wait(TIMEOUT) == 0
    writing = time.monotonic() - began - until_writing
    old, hits = read_manifest(storage, "digits"), 0
    content = _content(tmp_path, old)
    for attempt in range(1, 11):
        child, known = start(attempt), _versions(tmp_path)
        # Writing is a small part of an ingest, and every other kill must occur in it.
        if attempt % 2:
            child.wait_for_version(known=known)
            time.sleep(moments.uniform(0.0, writing))
        else:
            time.sleep(moments.uniform(0.0, until_writing + writing))
        child.kill()
        hits += len(_versions(tmp_path)) > 1
        found = read_manifest(storage, "digits")
        # It was killed after it had finished.
        if found != old:
            assert found.source["seed"] == str(attempt)
            old, content = found, _content(tmp_path, found)
            assert {name: table.num_rows for name, table in content.items()} == ROWS
        assert _content(tmp_path, old) == content
    assert hits > 0
    last = ingest("digits", root=tmp_path, options={"seed": 99})
    assert len(_versions(tmp_path)) == 1
    assert {name: table.num_rows for name, table in _content(tmp_path, last).items()} == ROWS
