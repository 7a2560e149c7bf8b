"""Run with `pytest tests/cluster/test_jobs.py`. Jobs on a real cluster are in `test_token_cluster.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from ray.job_submission import JobDetails, JobStatus, JobType

from dirtune.cluster.jobs import STOPPED, Job, connect, exit_code, pack
from dirtune.errors import InputError
from dirtune.training.provenance import code_version


@contextmanager
def server(status: int, body: str) -> Iterator[str]:
    """Somebody who answers every request in the same way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def version_of(ray_version: str) -> str:
    return json.dumps({"version": "4", "ray_version": ray_version})


def test_a_cluster_with_another_ray_is_refused_by_both_versions() -> None:
    with server(200, version_of("2.59.1")) as address, pytest.raises(InputError) as caught:
        connect(address)
    expected = f"{address}: the cluster runs Ray 2.59.1, this client {ray.__version__}: "
    assert str(caught.value).startswith(expected)


def test_the_given_address_wins_over_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with server(200, version_of(ray.__version__)) as address:
        assert connect(address).get_address() == address
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


@pytest.mark.parametrize(("status", "body"), [(404, "nothing"), (200, "<html>"), (200, "{}"), (500, "")])
def test_whoever_is_no_ray_is_said_so_in_one_line(status: int, body: str) -> None:
    expected = "does not answer as the jobs of a Ray cluster do"
    with server(status, body) as address, pytest.raises(InputError, match=expected) as caught:
        connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said"), [(401, "asks for a token and got none"), (403, "the cluster refuses this token")]
)
def test_a_refused_token_is_one_sentence(monkeypatch: pytest.MonkeyPatch, status: int, said: str) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "some token")
    with server(status, "Unauthorized") as address, pytest.raises(InputError, match=said) as caught:
        connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 3, 3),
        # The job's own machinery failed
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, -15, STOPPED),
    ],
)
def test_a_job_ends_with_the_exit_code_of_its_command(status: JobStatus, driver: int | None, code: int) -> None:
    details = JobDetails(type=JobType.SUBMISSION, entrypoint="", status=status, driver_exit_code=driver)
    assert exit_code(details) == code


def test_what_is_sent_is_a_dirtune_that_runs_by_itself_and_knows_its_version(tmp_path: Path) -> None:
    pack(tmp_path, {"study.yaml": "name: x\n"}, with_sources=True)
    assert (tmp_path / "study.yaml").read_text() == "name: x\n"
    assert not list(tmp_path.rglob("__pycache__"))
    script = (
        "import dirtune, search_spaces, pipelines; from importlib.metadata import version;"
        "from dirtune.study.files import shipped_studies;"
        "print(dirtune.__file__, version('dirtune'), 'quickstart' in shipped_studies())"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "dirtune/__init__.py"), code_version(), "True"]


def test_without_sources_only_the_files_are_sent(tmp_path: Path) -> None:
    pack(tmp_path, {"study.yaml": "name: x\n"}, with_sources=False)
    assert [each.name for each in tmp_path.iterdir()] == ["study.yaml"]


def test_how_to_follow_a_job_names_its_address_and_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200, version_of(ray.__version__)) as address:
        job = Job(connect(address), address, "raysubmit_1")
    assert job.follow_command == f"ray job logs --follow --address {address} raysubmit_1"
