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
from dirtune.data.inspection_text import format_inspection
from dirtune.data.store import decode, find_ingested, list_datasets, read_manifest, read_split
from dirtune.frozen import read
from dirtune.io.jsonfile import read_json_object
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
    """Empty bucket, its URLs, and its server, which can be made to fail."""

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

    def get_url(self, path: str) -> str:
        """Return a URL with keys: the workers of a running Ray do not have the environment of this process."""
        where = f"region=us-east-1&scheme=http&endpoint_override={self.endpoint}"
        return f"s3://key:secret@{BUCKET}/{path}?{where}"

    @contextmanager
    def fail(self) -> Iterator[None]:
        """Respond to every request with an error of the server."""
        app, self._server.app = self._server.app, _unavailable
        try:
            yield
        finally:
            self._server.app = app

    def count_parts(self, key: str) -> int:
        """Return the number of parts of an upload, 0 for one request, from its ETag."""
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
    return Storage.open(bucket.get_url(request.node.name))


def test_files_are_written_read_listed_and_removed(storage: Storage) -> None:
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


def test_a_small_file_is_uploaded_in_one_request(storage: Storage, bucket: Bucket) -> None:
    storage.write("small", b"x" * 5_000_000)
    storage.write("large", b"x" * 12_000_000)
    folder = storage.root.partition("/")[2]
    assert [bucket.count_parts(f"{folder}/{name}") for name in ("small", "large")] == [0, 2]
    assert storage.read("large") == b"x" * 12_000_000


def test_a_failed_write_keeps_the_previous_file(storage: Storage) -> None:
    storage.write("x", b"old")
    with pytest.raises(TypeError):
        storage.write("x", "text is no bytes")  # type: ignore[arg-type]
    assert storage.read("x") == b"old"


@pytest.mark.slow
def test_a_killed_writer_leaves_a_complete_file_or_none(storage: Storage, bucket: Bucket) -> None:
    script = """
        import sys
        from dirtune.io.storage import Storage
        storage = Storage.open(sys.argv[1])
        print("ready", flush=True)
        while True:
            for byte in (b"a", b"b"):
                storage.write("x", byte * 12_000_000)
    """
    url = bucket.get_url(storage.root.partition("/")[2])
    command = [sys.executable, "-c", textwrap.dedent(script), url]
    for delay in (0.1, 0.4):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        # The server may still work on the last request, and replace the file between two parts of a read; a torn file stays.
        for _ in range(20):
            names = storage.list_files()
            content = storage.read("x") if names else b""
            is_complete = content in (b"", b"a" * 12_000_000, b"b" * 12_000_000)
            if is_complete:
                break
            time.sleep(0.5)
        assert names in ([], ["x"])
        assert is_complete


@pytest.mark.slow
def test_a_write_with_retry_survives_temporary_errors_of_the_server(storage: Storage, bucket: Bucket) -> None:
    storage.write("x", b"old")
    with bucket.fail():
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
    dirtune.ingest("digits", root=bucket.get_url("data"))
    return bucket.get_url("data")


@pytest.mark.ray
def test_a_set_ingested_to_s3_equals_the_one_on_disk(digits: Path, remote_digits: str, bucket: Bucket) -> None:
    here, there = Storage.open(digits), Storage.open(remote_digits)
    local, remote = read_manifest(here, "digits"), read_manifest(there, "digits")
    assert list_datasets(there) == ["digits"]
    assert remote.content_hash == local.content_hash
    for split in local.splits:
        expected = decode(read_split(here, local, split), local)
        found = decode(read_split(there, remote, split), remote)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    assert bucket.count_parts("data/digits/manifest.json") == 0
    there_text, here_text = (
        format_inspection(dirtune.inspect("digits", root=each)) for each in (remote_digits, digits)
    )
    assert there_text == here_text


@pytest.mark.ray
def test_another_ingest_replaces_the_version_and_an_equal_one_changes_nothing(
    remote_digits: str, bucket: Bucket
) -> None:
    url = bucket.get_url("other")
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
    dirtune.train(CONFIG, data=remote_digits, results=bucket.get_url("results"))
    return bucket.get_url("results")


def _metrics(results: str | Path) -> list[dict[str, Any]]:
    sql = "select split, selection, region, metric, value from metrics order by all"
    return dirtune.query(sql, results=results).to_dict("records")


@pytest.mark.ray
def test_a_run_on_s3_equals_the_run_on_disk(digits: Path, results: str, remote_digits: str, tmp_path: Path) -> None:
    dirtune.train(CONFIG, data=digits, results=tmp_path)
    assert _metrics(results) == _metrics(tmp_path)
    assert dirtune.train(CONFIG, data=remote_digits, results=results).reused
    trials = Storage.open(results).get_folder("train/trials")
    (trial_id,) = trials.list_folders()
    # All other files are removed.
    assert trials.list_files(trial_id) == ["config.json"]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("verb", "shown"), [(["query", "select arm, status from trials"], "complete"), (["table", "train"], "MAE")]
)
def test_the_command_line_reads_endpoint_and_keys_from_the_environment(
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
def test_a_killed_run_resumes_from_its_checkpoint_on_s3(results: str, remote_digits: str, bucket: Bucket) -> None:
    root = bucket.get_url("resumed")

    class Killed(BaseException):
        pass

    def kill(epoch: int, planned: int, values: dict[str, float]) -> None:
        raise Killed

    with pytest.raises(Killed):
        dirtune.train(CONFIG, data=remote_digits, results=root, on_epoch=kill)
    fingerprint = read_manifest(Storage.open(remote_digits), "digits").fingerprint
    stored = read_json_object(Storage.open(root), f"train/trials/{_get_trial_id(root)}/config.json")
    trial = read(TrialConfig, stored, where="config.json").compute_trial_id(fingerprint)
    assert Storage.open(root).exists(f"train/trials/{trial}/checkpoint/state.pt")
    run: list[int] = []
    dirtune.train(CONFIG, data=remote_digits, results=root, on_epoch=lambda epoch, *_: run.append(epoch))
    assert run == [2]
    assert _metrics(root) == _metrics(results)
    assert not Storage.open(root).exists(f"train/trials/{trial}/checkpoint")


def _get_trial_id(root: str) -> str:
    (trial_id,) = Storage.open(root).list_folders("train/trials")
    return trial_id
