"""Data and results behind a URL, on an S3 server on this machine: run with `pytest tests/data/test_remote.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from werkzeug.serving import BaseWSGIServer

import dirtune
from dirtune.config import TrialConfig
from dirtune.data.store import decode, find_ingested, list_datasets, read_manifest, read_split
from dirtune.io.storage import Storage
from tests.data.s3server import s3_server

BUCKET = "bucket"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
CONFIG: dict[str, Any] = {
    "data": {"name": "digits"},
    "model": {"encoder": {"name": "cnn", "channels": 4}, "label_scale": 60},
    "recipe": {"epochs": 2, "batch_size": 512},
}


class Bucket:
    """An empty bucket, its URLs, and its server, which can be made to fail."""

    def __init__(self, endpoint: str, server: BaseWSGIServer) -> None:
        self.endpoint, self._server = endpoint, server
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://{endpoint}",
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def url(self, path: str) -> str:
        """With its keys: the workers of a Ray that runs already do not have this process's environment."""
        where = f"region=us-east-1&scheme=http&endpoint_override={self.endpoint}"
        return f"s3://key:secret@{BUCKET}/{path}?{where}"

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        """Every request is answered with an error of the server."""
        app, self._server.app = self._server.app, _unavailable
        try:
            yield
        finally:
            self._server.app = app

    def parts(self, key: str) -> int:
        """In how many parts a file was uploaded; 0: in one request. S3 says so in the ETag."""
        tag = self.client.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"')
        return int(tag.partition("-")[2] or 0)


def _unavailable(_: object, start: Callable[..., object]) -> Iterable[bytes]:
    start("503 Slow Down", [("Content-Length", "0")])
    return []


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server() as (server, address):
        assert server._server is not None
        yield Bucket(address, server._server)


@pytest.fixture
def storage(bucket: Bucket, request: pytest.FixtureRequest) -> Storage:
    return Storage.open(bucket.url(request.node.name))


def test_what_is_written_is_read_back_listed_and_removed(storage: Storage) -> None:
    storage.write("a/x.txt", b"1")
    storage.write("a/y.bin", b"2")
    storage.write("a/x.txt", b"3")
    assert not storage.is_local
    assert storage.read("a/x.txt") == b"3"
    assert storage.list_files("a") == ["x.txt", "y.bin"]
    assert storage.list_folders() == ["a"]
    assert storage.get_folder("a").exists("x.txt")
    with pytest.raises(FileNotFoundError):
        storage.read("a/z")
    for name in ("a/y.bin", "a", "never"):
        storage.remove(name)
    assert storage.list_files() == storage.list_folders() == storage.list_files("a") == []


def test_a_small_file_is_one_upload_whole(storage: Storage, bucket: Bucket) -> None:
    storage.write("small", b"x" * 5_000_000)
    storage.write("large", b"x" * 12_000_000)
    folder = storage.root.partition("/")[2]
    assert [bucket.parts(f"{folder}/{name}") for name in ("small", "large")] == [0, 2]
    assert storage.read("large") == b"x" * 12_000_000


def test_a_failed_write_leaves_the_old_file(storage: Storage) -> None:
    storage.write("x", b"old")
    with pytest.raises(TypeError):
        storage.write("x", "text is no bytes")  # type: ignore[arg-type]
    assert storage.read("x") == b"old"


def test_a_killed_writer_leaves_an_old_or_a_new_file_but_never_a_part(storage: Storage, bucket: Bucket) -> None:
    script = """
        import sys
        from dirtune.io.storage import Storage
        storage = Storage.open(sys.argv[1])
        print("ready", flush=True)
        while True:
            for byte in (b"a", b"b"):
                storage.write("x", byte * 12_000_000)
    """
    url = bucket.url(storage.root.partition("/")[2])
    command = [sys.executable, "-c", textwrap.dedent(script), url]
    for delay in (0.1, 0.4):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        names = storage.list_files()
        content = storage.read("x") if names else b""
        assert names in ([], ["x"])
        assert content in (b"", b"a" * 12_000_000, b"b" * 12_000_000)


def test_a_server_that_answers_with_errors_for_a_while_costs_a_patient_storage_nothing(
    storage: Storage, bucket: Bucket
) -> None:
    storage.write("x", b"old")
    with bucket.unavailable():
        with pytest.raises(OSError, match="x"):
            storage.write("x", b"new")
        written = threading.Thread(target=storage.with_retry(60).write, args=("x", b"new"))
        written.start()
        written.join(timeout=1.0)
        assert written.is_alive()
    written.join()
    assert storage.read("x") == b"new"


@pytest.fixture(scope="module")
def remote_digits(digits: Path, bucket: Bucket) -> str:
    """The URL of a data root in which `digits` is ingested."""
    dirtune.ingest("digits", root=bucket.url("data"))
    return bucket.url("data")


@pytest.mark.ray
def test_a_set_that_is_ingested_to_s3_is_the_one_on_disk(digits: Path, remote_digits: str, bucket: Bucket) -> None:
    here, there = Storage.open(digits), Storage.open(remote_digits)
    local, remote = read_manifest(here, "digits"), read_manifest(there, "digits")
    assert list_datasets(there) == ["digits"]
    assert remote.content_hash == local.content_hash
    for split in local.splits:
        expected = decode(read_split(here, local, split), local)
        found = decode(read_split(there, remote, split), remote)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    assert bucket.parts("data/digits/manifest.json") == 0
    assert str(dirtune.inspect("digits", root=remote_digits)) == str(dirtune.inspect("digits", root=digits))


@pytest.mark.ray
def test_another_ingest_replaces_the_version_and_an_equal_one_does_nothing(remote_digits: str, bucket: Bucket) -> None:
    url = bucket.url("other")
    storage = Storage.open(url)
    storage.write("digits/version-dead/train/part.parquet", b"what a kill has left")
    first = dirtune.ingest("digits", root=url)
    versions = storage.list_folders("digits")
    assert len(versions) == 1
    assert dirtune.ingest("digits", root=url) == first
    assert storage.list_folders("digits") == versions
    second = dirtune.ingest("digits", root=url, options={"seed": 1})
    assert second.content_hash != first.content_hash
    assert len(storage.list_folders("digits")) == 1
    assert storage.list_folders("digits") != versions
    assert find_ingested(storage, "digits", second.source["request"]) == second


@pytest.fixture(scope="module")
def results(remote_digits: str, bucket: Bucket) -> str:
    """The URL of a results root with one run."""
    dirtune.train(CONFIG, data=remote_digits, results=bucket.url("results"))
    return bucket.url("results")


def _metrics(results: str | Path) -> list[dict[str, Any]]:
    sql = "select split, selection, region, metric, value from metrics order by all"
    return dirtune.query(sql, results).to_pylist()


@pytest.mark.ray
def test_a_run_on_s3_is_the_run_on_disk(digits: Path, results: str, remote_digits: str, tmp_path: Path) -> None:
    dirtune.train(CONFIG, data=digits, results=tmp_path)
    assert _metrics(results) == _metrics(tmp_path)
    assert dirtune.train(CONFIG, data=remote_digits, results=results).reused
    trials = Storage.open(results).below("train/trials")
    (trial_id,) = trials.list_folders()
    # The rest is tidied away
    assert trials.list_files(trial_id) == ["config.json"]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("verb", "shown"), [(["query", "select arm, status from trials"], "complete"), (["table", "train"], "MAE")]
)
def test_the_command_line_finds_the_place_in_the_environment(
    results: str, bucket: Bucket, verb: list[str], shown: str
) -> None:
    place = {"AWS_ENDPOINT_URL": f"http://{bucket.endpoint}", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-m", "dirtune.cli", *verb, "--results", f"s3://{BUCKET}/results"],
        env={**os.environ, **KEYS, **place},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


@pytest.mark.ray
def test_a_run_that_was_killed_continues_from_its_checkpoint_on_s3(
    results: str, remote_digits: str, bucket: Bucket
) -> None:
    root = bucket.url("resumed")

    class Killed(BaseException):
        pass

    def kill(epoch: int, planned: int, values: dict[str, float]) -> None:
        raise Killed

    with pytest.raises(Killed):
        dirtune.train(CONFIG, data=remote_digits, results=root, on_epoch=kill)
    fingerprint = read_manifest(Storage.open(remote_digits), "digits").fingerprint
    trial = TrialConfig.model_validate_json(
        Storage.open(root).read(f"train/trials/{_only_trial(root)}/config.json")
    ).compute_trial_id(fingerprint)
    assert Storage.open(root).exists(f"train/trials/{trial}/checkpoint/state.pt")
    run: list[int] = []
    dirtune.train(CONFIG, data=remote_digits, results=root, on_epoch=lambda epoch, *_: run.append(epoch))
    assert run == [2]
    assert _metrics(root) == _metrics(results)
    assert not Storage.open(root).exists(f"train/trials/{trial}/checkpoint")


def _only_trial(root: str) -> str:
    (trial_id,) = Storage.open(root).list_folders("train/trials")
    return trial_id
