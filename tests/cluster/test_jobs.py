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

from dirtune.cluster.jobs import STOPPED, Job, connect, get_exit_code, write_working_directory
from dirtune.errors import InputError
from dirtune.training.provenance import get_code_version


@contextmanager
def serve(status: int, body: str) -> Iterator[str]:
    """Serve the same response to every request."""

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


def format_version(ray_version: str) -> str:
    return json.dumps({"version": "4", "ray_version": ray_version})


def test_another_version_of_ray_is_an_error_with_both_versions() -> None:
    with serve(200, format_version("2.59.1")) as address, pytest.raises(InputError) as caught:
        connect(address)
    expected = f"{address}: the cluster runs Ray 2.59.1, this client {ray.__version__}: "
    assert str(caught.value).startswith(expected)


def test_the_given_address_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with serve(200, format_version(ray.__version__)) as address:
        assert connect(address).get_address() == address
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


@pytest.mark.parametrize(("status", "body"), [(404, "nothing"), (200, "<html>"), (200, "{}"), (500, "")])
def test_a_server_that_is_not_ray_is_an_error_of_one_line(status: int, body: str) -> None:
    expected = "does not answer as the jobs of a Ray cluster do"
    with serve(status, body) as address, pytest.raises(InputError, match=expected) as caught:
        connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"), [(401, "requires a token and received none"), (403, "the cluster refuses this token")]
)
def test_a_refused_token_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch, status: int, message: str) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "some token")
    with serve(status, "Unauthorized") as address, pytest.raises(InputError, match=message) as caught:
        connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 3, 3),
        # The job's supervisor failed
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, -15, STOPPED),
    ],
)
def test_a_job_has_the_exit_code_of_its_command(status: JobStatus, driver: int | None, code: int) -> None:
    details = JobDetails(type=JobType.SUBMISSION, entrypoint="", status=status, driver_exit_code=driver)
    assert get_exit_code(details) == code


def test_the_sent_sources_run_without_an_installation_and_have_the_version(tmp_path: Path) -> None:
    write_working_directory(tmp_path, {"study.yaml": "name: x\n"}, with_sources=True)
    assert (tmp_path / "study.yaml").read_text() == "name: x\n"
    assert not list(tmp_path.rglob("__pycache__"))
    script = (
        "import dirtune, dirtune.pipelines; from importlib.metadata import version;"
        "from dirtune.study.files import list_shipped_studies;"
        "print(dirtune.__file__, version('dirtune'), 'quickstart' in list_shipped_studies())"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "dirtune/__init__.py"), get_code_version(), "True"]


def test_without_sources_only_the_files_are_sent(tmp_path: Path) -> None:
    write_working_directory(tmp_path, {"study.yaml": "name: x\n"}, with_sources=False)
    assert [each.name for each in tmp_path.iterdir()] == ["study.yaml"]


def test_the_follow_command_has_the_address_and_the_id_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(200, format_version(ray.__version__)) as address:
        job = Job(connect(address), address, "raysubmit_1")
    assert job.follow_command == f"ray job logs --follow --address {address} raysubmit_1"
