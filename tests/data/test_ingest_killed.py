"""An ingest that ends before its time: killed, interrupted, or without room. `pytest -m soak` runs the whole campaign.

Run with `pytest tests/data/test_ingest_killed.py`. Every child has a mark in its environment, which the processes of its
Ray inherit: by it they are found and stopped one by one.
"""

from __future__ import annotations

import contextlib
import os
import random
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

# Before a child that does nothing is given up
SECONDS = 300.0
ROWS = {"train": 4809, "val": 600, "test": 1200}
# Of the moments of the campaign
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

    def wait_for_version(self, *, beside: set[str]) -> None:
        """Until it has begun to write."""
        self._wait_for("", beside)

    def wait_for_shard(self, split: str, *, beside: set[str]) -> None:
        """Until the new version has a shard of a split."""
        self._wait_for(f"/{split}/*.parquet", beside)

    def _wait_for(self, pattern: str, beside: set[str]) -> None:
        deadline = time.monotonic() + SECONDS
        home = self.root / "digits"
        while not any(path.relative_to(home).parts[0] not in beside for path in home.glob(f"version-*{pattern}")):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, f"nothing like {pattern}"
            time.sleep(0.01)

    def processes(self) -> list[int]:
        """The child and everything that it has started, as far as it runs."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it has ended meanwhile, or is somebody else's
                continue
        return found

    def kill(self) -> None:
        """The driver dies at once; what its Ray leaves is stopped by its ids, for a worker that was just starting lingers."""
        self.process.kill()
        self.process.communicate()
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Child]]:
    """Starts a child by its seed; none is left after the test."""
    children: list[Child] = []

    def starter(seed: int) -> Child:
        children.append(Child(tmp_path, seed))
        return children[-1]

    yield starter
    for child in children:
        child.kill()


def _versions(root: Path) -> set[str]:
    return {path.name for path in root.glob("digits/version-*")}


def _content(root: Path, manifest: Manifest) -> dict[str, pa.Table]:
    return {split: read_split(Storage.open(root), manifest, split) for split in manifest.splits}


@pytest.mark.usefixtures("ray_session")
def test_a_killed_ingest_leaves_the_old_version_or_nothing_and_the_next_one_tidies_up(
    tmp_path: Path, start: Callable[[int], Child]
) -> None:
    storage, first = Storage.open(tmp_path), start(0)
    first.wait_for_shard("train", beside=set())
    first.kill()
    assert list_datasets(storage) == []
    # Half of one: the kill has hit
    assert len(_versions(tmp_path)) == 1

    old = ingest("digits", root=tmp_path)
    content = _content(tmp_path, old)
    (current,) = _versions(tmp_path)
    assert old.splits["train"].files[0].startswith(current)

    second = start(1)
    second.wait_for_shard("test", beside={current})
    second.kill()
    assert len(_versions(tmp_path)) == 2
    assert read_manifest(storage, "digits") == old
    assert _content(tmp_path, old) == content

    new = ingest("digits", root=tmp_path, options={"seed": 1})
    assert new.content_hash != old.content_hash
    assert len(_versions(tmp_path)) == 1
    assert {name: table.num_rows for name, table in _content(tmp_path, new).items()} == ROWS


@pytest.mark.usefixtures("ray_session")
def test_ctrl_c_says_that_nothing_was_changed_and_leaves_nothing_behind(
    tmp_path: Path, start: Callable[[int], Child]
) -> None:
    old = ingest("digits", root=tmp_path)
    content, versions = _content(tmp_path, old), _versions(tmp_path)
    child = start(1)
    child.wait_for_shard("train", beside=versions)
    # As a terminal does
    os.killpg(child.process.pid, signal.SIGINT)
    said, _ = child.process.communicate(timeout=SECONDS)
    assert child.process.returncode == 130
    assert said.splitlines() == ["digits: interrupted; nothing was changed"]
    assert _versions(tmp_path) == versions
    assert read_manifest(Storage.open(tmp_path), "digits") == old
    assert _content(tmp_path, old) == content


@pytest.mark.usefixtures("ray_session")
def test_a_full_disk_is_one_sentence_and_leaves_the_old_version(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = ingest("digits", root=small_disk)
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
def test_ten_kills_at_random_moments_never_cost_a_data_set(tmp_path: Path, start: Callable[[int], Child]) -> None:
    storage, moments = Storage.open(tmp_path), random.Random(SEED)
    began, whole = time.monotonic(), start(0)
    whole.wait_for_version(beside=set())
    until_writing = time.monotonic() - began
    assert whole.process.wait(SECONDS) == 0
    writing = time.monotonic() - began - until_writing
    old, hits = read_manifest(storage, "digits"), 0
    content = _content(tmp_path, old)
    for attempt in range(1, 11):
        child, beside = start(attempt), _versions(tmp_path)
        # Writing is a small part of an ingest, and every other kill must fall into it
        if attempt % 2:
            child.wait_for_version(beside=beside)
            time.sleep(moments.uniform(0.0, writing))
        else:
            time.sleep(moments.uniform(0.0, until_writing + writing))
        child.kill()
        hits += len(_versions(tmp_path)) > 1
        found = read_manifest(storage, "digits")
        # It was killed after it had finished
        if found != old:
            assert found.source["seed"] == str(attempt)
            old, content = found, _content(tmp_path, found)
            assert {name: table.num_rows for name, table in content.items()} == ROWS
        assert _content(tmp_path, old) == content
    assert hits > 0
    last = ingest("digits", root=tmp_path, options={"seed": 99})
    assert len(_versions(tmp_path)) == 1
    assert {name: table.num_rows for name, table in _content(tmp_path, last).items()} == ROWS
