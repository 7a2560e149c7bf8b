"""Keys and tokens are in no file and no output. Run with `pytest tests/test_credentials.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
import yaml

from dirtune.cli import main
from dirtune.data.blocks import read_without_ray
from dirtune.errors import InputError
from dirtune.io.credentials import remove_credentials
from dirtune.io.storage import Storage
from dirtune.training.trial import TrialJob, TrialRun
from dirtune.tuning.plan.checks import open_study_folder
from tests.data.s3server import s3_server
from tests.training.conftest import configuration, data_root, toy
from tests.training.runs import finish

__all__ = ["configuration", "data_root", "toy"]

BUCKET, KEY = "results", "AKIAPLANTEDKEY"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-secret-of-the-environment",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "RAY_AUTH_TOKEN": "planted-ray-token",
    "HF_TOKEN": "planted-hub-token",
}
IN_URL = "planted+secret+of+the+url"
STUDY = {
    "name": "tiny",
    "question": "?",
    "reference": "vanilla",
    "seeds": [0],
    "arms": {"vanilla": {}},
    "base": {
        "data": {"name": "toy"},
        "recipe": {"epochs": 1},
        "model": {"encoder": {"name": "mlp"}, "label_scale": 1, "label_offset": 0},
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as (_, address):
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Contents of the bucket after the test, by name; the environment has planted keys."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{server}",
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=IN_URL,
    )
    client.create_bucket(Bucket=BUCKET)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    content: dict[str, bytes] = {}
    yield content
    for found in client.list_objects_v2(Bucket=BUCKET)["Contents"]:
        content[found["Key"]] = client.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read()
    assert {Path(name).name for name in content} >= {"study.yaml", "provenance.json", "config.json"}
    assert any(name.startswith("tiny/results/trials/") for name in content)
    leaks = [name for name, each in content.items() if any(map(each.__contains__, list_planted_keys()))]
    assert not leaks


def list_planted_keys() -> list[bytes]:
    return [each.encode() for each in (KEY, IN_URL, *SECRETS.values())]


@pytest.mark.slow
def test_results_and_output_of_a_study_at_a_url_with_keys_have_no_keys(
    server: str,
    bucket: dict[str, bytes],
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = f"s3://{KEY}:{IN_URL}@{BUCKET}?region=us-east-1&scheme=http&endpoint_override={server}"
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    sweep_without_ray(study, data_root, results)
    monkeypatch.chdir(tmp_path)
    outputs = [
        run_command(capsys, monkeypatch, *words, "--results", results)
        for words in (
            ("status", "tiny"),
            ("status", "none"),
            ("table", "tiny"),
            ("table", "none"),
            ("report", "tiny"),
            ("plot", "tiny"),
            ("query", "from trials"),
            ("query", "from nothing"),
            ("stop", "tiny"),
            ("stop", "none"),
            ("resume", "none", "--data", str(data_root)),
            ("doctor",),
            ("plan", str(study), "--data", str(data_root)),
            ("submit", str(study), "--address", "http://127.0.0.1:9", "--data", str(data_root)),
        )
    ]
    codes = [code for code, _ in outputs]
    assert codes == [0, 2, 0, 2, 0, 0, 0, 2, 2, 2, 2, 0, 0, 2], outputs
    assert any("s3://results?region" in text for _, text in outputs)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".html", ".png"}
    written = [text.encode() for _, text in outputs] + [path.read_bytes() for path in files]
    assert not [each[:200] for each in written if any(map(each.__contains__, list_planted_keys()))]


def sweep_without_ray(study: Path, data: Path, results: str) -> None:
    """Write what a sweep of the study writes, without Ray."""
    folder = open_study_folder(study.read_text(), str(study), data=data, results=results)
    with folder.open_journal() as journal:
        folder.reconcile(journal)
    config = folder.study.arms[0].config
    resident = read_without_ray(Storage.open(data), folder.manifest, torch.device("cpu"))
    job = TrialJob(
        study="tiny", arm="vanilla", config=config, trial_id=config.compute_trial_id(folder.manifest.fingerprint)
    )
    assert finish(TrialRun(job, resident, folder.storage)).status == "complete"


def run_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[object, str]:
    """Run a command in this process; return its exit code and output."""
    monkeypatch.setattr(sys, "argv", ["dirtune", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out + printed.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:se/cr+et@bucket/path?region=x", "s3://bucket/path?region=x"),
        ("s3://key@bucket/path", "s3://bucket/path"),
        (
            "no usable location (Cannot parse URI: 's3://key:secret@b')",
            "no usable location (Cannot parse URI: 's3://b')",
        ),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("/local/a:b@c", "/local/a:b@c"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("http://127.0.0.1:8265 answers a@b", "http://127.0.0.1:8265 answers a@b"),
        ("abfs://:se+cr/et==@host/c", "abfs://host/c"),
        ("s3://key:se?c#r@et@bucket/path", "s3://bucket/path"),
        ("s3://key:se c r@bucket/path?region=x", "s3://bucket/path?region=x"),
        ("s3://k:12/34@bucket and s3://k2:s@b2", "s3://bucket and s3://b2"),
        (
            "abfs://c@host/p?tenant_id=7&client_secret=a/b+c&enable_tls=true",
            "abfs://host/p?tenant_id=7&client_secret=***&enable_tls=true",
        ),
        ("'https://host/p?sv=1&SIG=ab%2F' failed", "'https://host/p?sv=1&SIG=***' failed"),
        ("s3://b?blob_storage_authority=h", "s3://b?blob_storage_authority=h"),
    ],
)
def test_keys_are_removed_from_urls(text: str, expected: str) -> None:
    assert remove_credentials(text) == expected


def test_the_error_of_an_unusable_url_has_no_keys() -> None:
    with pytest.raises(InputError) as refused:
        Storage.open(f"gopher://{KEY}:{IN_URL}@host/path")
    assert "gopher://host/path" in str(refused.value)
    assert not [each for each in list_planted_keys() if each.decode() in str(refused.value)]


def test_provenance_has_no_value_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from dirtune.training.provenance import collect_provenance

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    text = json.dumps(collect_provenance())
    assert not [value for value in SECRETS.values() if value in text]
