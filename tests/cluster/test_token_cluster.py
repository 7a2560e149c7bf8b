"""A cluster that asks for a token, and jobs on it. Run with `pytest tests/cluster/test_token_cluster.py`; a minute or more."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dirtune.training.provenance import code_version
from tests.cluster.heads import answers, end, free_ports, wait_until
from tests.tuning.sweeps import STUDY, rows

pytestmark = pytest.mark.ray

TOKEN = secrets.token_hex(24)
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
SMALL = {
    **STUDY,
    "seeds": [0],
    "arms": {"vanilla": {}},
    "base": {**STUDY["base"], "recipe": {"epochs": 1, "batch_size": 512}},
}


@dataclass(frozen=True)
class Cluster:
    """One head with two CPUs, in a session folder and a home of its own."""

    home: Path
    ports: dict[str, int]

    @property
    def jobs(self) -> str:
        return f"http://127.0.0.1:{self.ports['dashboard-port']}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['port']}"

    def environment(self, **authentication: str) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if name not in AUTHENTICATION}
        return {**plain, "HOME": str(self.home), "COLUMNS": "200", **authentication}

    def with_token(self) -> dict[str, str]:
        return self.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(self.home / "token"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not the folder of pytest, whose long path leaves no room for the name of a socket.
    home = Path(tempfile.mkdtemp(prefix="dirtune-", dir="/tmp"))
    (home / "token").write_text(TOKEN)
    started = Cluster(home, free_ports())
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        "--num-cpus=2",
        "--dashboard-host=127.0.0.1",
        "--node-ip-address=127.0.0.1",
        f"--temp-dir={home / 'ray'}",
        "--disable-usage-stats",
        *(f"--{name}={port}" for name, port in started.ports.items()),
    ]
    with (home / "log").open("wb") as log:
        head = subprocess.Popen(
            command, env=started.with_token(), stdout=log, stderr=log, cwd=home, start_new_session=True
        )
    try:
        wait_until(lambda: b"Ray runtime started" in (home / "log").read_bytes(), head)
        yield started
    finally:
        end(head)
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def jobs(cluster: Cluster) -> Cluster:
    """The cluster when its head takes jobs."""
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("a head takes jobs only with ray[default], which this environment lacks")
    wait_until(lambda: answers(cluster.ports["dashboard-port"]))
    return cluster


def call(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dirtune.cli", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def submission(cluster: Cluster, folder: Path, digits: Path, *further: object) -> list[object]:
    study = folder / "tiny.yaml"
    study.write_text(yaml.safe_dump(SMALL))
    roots = ["--data", digits, "--results", folder / "results"]
    return ["submit", study, "--address", cluster.jobs, "--python", sys.executable, *roots, *further]


@pytest.mark.parametrize(
    ("authentication", "said"),
    [
        ({}, "the cluster asks for a token and got none: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}, "the cluster refuses this token"),
    ],
    ids=["none", "wrong"],
)
def test_a_submission_without_the_token_is_refused_in_one_sentence(
    jobs: Cluster, digits: Path, tmp_path: Path, authentication: dict[str, str], said: str
) -> None:
    done = call(jobs.environment(**authentication), *submission(jobs, tmp_path, digits))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dirtune: {jobs.jobs}: {said}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_with_the_token_a_study_is_swept_and_its_results_are_there_afterwards(
    jobs: Cluster, digits: Path, tmp_path: Path
) -> None:
    expected = ("--expect", Path(__file__).resolve().parents[2] / "cluster.yaml")
    done = call(jobs.with_token(), *submission(jobs, tmp_path, digits, *expected))
    assert done.returncode == 0, done.stdout + done.stderr
    # 2 CPUs here, 4 nodes of 8 to come
    assert "1 trials, 0 recorded, 34 at once" in done.stdout
    assert re.search(r"^sent as job raysubmit_\w+; follow it again by `ray job logs", done.stdout)
    assert f"{tmp_path}/results: written and read by every node" in done.stdout
    assert re.search(r"^1 complete; 0 reused\. Parquet: ", done.stdout, re.MULTILINE)
    (trial,) = rows("select arm, status, code_version from trials", tmp_path / "results").to_dict("records")
    assert trial == {"arm": "vanilla", "status": "complete", "code_version": code_version()}
    assert sorted(each.name for each in (tmp_path / "results").iterdir()) == ["tiny"]
    written = [each for each in (tmp_path / "results").rglob("*") if each.is_file()]
    assert written
    assert not [each for each in written if TOKEN.encode() in each.read_bytes()]


def test_a_root_that_the_nodes_cannot_use_ends_the_job_before_the_sweep(
    jobs: Cluster, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "results").write_text("no folder")
    done = call(jobs.with_token(), *submission(jobs, tmp_path, digits))
    assert done.returncode == 1
    assert re.search(r"problem +results root +\S+: Not a directory", done.stdout)
    assert "0 reused" not in done.stdout


def test_a_doctor_is_let_in_with_the_token_alone(cluster: Cluster, digits: Path) -> None:
    fit = call(cluster.with_token(), "doctor", "--address", cluster.address, "--data", digits)
    assert fit.returncode == 0, fit.stdout + fit.stderr
    assert f":{cluster.ports['port']}, authentication token" in fit.stdout
    assert re.search(r"ok +CPUs +2 on 1 node", fit.stdout)
    wrong = cluster.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="wrong")
    for environment in (cluster.environment(), wrong):
        refused = call(environment, "doctor", "--address", cluster.address)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "token" in refused.stderr
        assert refused.stderr.startswith(f"dirtune: {cluster.address}: ")
        assert refused.stderr.count("\n") == 1


def test_a_sweep_is_let_in_with_the_token_alone(cluster: Cluster, digits: Path, tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump(SMALL))
    refusals = {
        "the cluster asks for a token and got none": cluster.environment(),
        "the cluster refuses this token": cluster.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="wrong"),
    }
    for said, environment in refusals.items():
        environment["RAY_ADDRESS"] = cluster.address
        done = call(environment, "sweep", study, "--data", digits, "--results", tmp_path / "results")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"dirtune: {cluster.address}: {said}: set RAY_AUTH_MODE")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()
