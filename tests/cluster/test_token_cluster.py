"""A cluster that requires a token, and jobs on it. Run with `pytest tests/cluster/test_token_cluster.py`; a minute or more."""

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

from dirtune.training.provenance import get_code_version
from tests.cluster.heads import end, find_free_ports, is_listening, wait_until
from tests.plugin_sources import SPREAD, write
from tests.tuning.sweeps import DIGITS, rows

# A head and a node of their own take minutes to start; what a missing token means is also tested in tests/data/test_connect.py.
pytestmark = [pytest.mark.ray, pytest.mark.soak]

TOKEN = secrets.token_hex(24)
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
SMALL = {
    **DIGITS,
    "seeds": [0],
    "arms": {"vanilla": {}},
    "base": {**DIGITS["base"], "recipe": {"epochs": 1, "batch_size": 512}},
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

    def make_environment(self, **authentication: str) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if name not in AUTHENTICATION}
        return {**plain, "HOME": str(self.home), "COLUMNS": "200", **authentication}

    def get_token_environment(self) -> dict[str, str]:
        return self.make_environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(self.home / "token"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not the folder of pytest, whose long path leaves no room for the name of a socket.
    home = Path(tempfile.mkdtemp(prefix="dirtune-", dir="/tmp"))
    (home / "token").write_text(TOKEN)
    started = Cluster(home, find_free_ports())
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
            command, env=started.get_token_environment(), stdout=log, stderr=log, cwd=home, start_new_session=True
        )
    try:
        wait_until(lambda: b"Ray runtime started" in (home / "log").read_bytes(), head)
        yield started
    finally:
        end(head)
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def jobs(cluster: Cluster) -> Cluster:
    """The cluster once its head accepts jobs."""
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("a head accepts jobs only with ray[default], which this environment lacks")
    wait_until(lambda: is_listening(cluster.ports["dashboard-port"]))
    return cluster


def run_dirtune(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dirtune.cli", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def build_submission(cluster: Cluster, folder: Path, digits: Path, *options: object) -> list[object]:
    study = folder / "tiny.yaml"
    study.write_text(yaml.safe_dump(SMALL))
    roots = ["--data", digits, "--results", folder / "results"]
    return ["submit", study, "--address", cluster.jobs, "--python", sys.executable, *roots, *options]


@pytest.mark.parametrize(
    ("authentication", "message"),
    [
        ({}, "the cluster requires a token and received none: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}, "the cluster refuses this token"),
    ],
    ids=["none", "wrong"],
)
def test_a_submission_without_the_token_is_an_error_of_one_line(
    jobs: Cluster, digits: Path, tmp_path: Path, authentication: dict[str, str], message: str
) -> None:
    done = run_dirtune(jobs.make_environment(**authentication), *build_submission(jobs, tmp_path, digits))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dirtune: {jobs.jobs}: {message}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_with_the_token_a_study_is_swept_and_its_results_are_stored(
    jobs: Cluster, digits: Path, tmp_path: Path
) -> None:
    expected = ("--expect", Path(__file__).resolve().parents[2] / "cluster.yaml")
    done = run_dirtune(jobs.get_token_environment(), *build_submission(jobs, tmp_path, digits, *expected))
    assert done.returncode == 0, done.stdout + done.stderr
    # 2 CPUs here, 4 nodes of 8 to come
    assert "1 trials, 0 recorded, 34 at once" in done.stdout
    assert re.search(r"^submitted as job raysubmit_\w+; follow it again by `ray job logs", done.stdout)
    assert f"{tmp_path}/results: written and read by every node" in done.stdout
    assert re.search(r"^1 complete; 0 reused\. Parquet: ", done.stdout, re.MULTILINE)
    (trial,) = rows("select arm, status, code_version from trials", tmp_path / "results").to_dict("records")
    assert trial == {"arm": "vanilla", "status": "complete", "code_version": get_code_version()}
    assert sorted(each.name for each in (tmp_path / "results").iterdir()) == ["tiny"]
    written = [each for each in (tmp_path / "results").rglob("*") if each.is_file()]
    assert written
    assert not [each for each in written if TOKEN.encode() in each.read_bytes()]


def test_the_plugins_of_a_study_are_sent_with_it(jobs: Cluster, digits: Path, tmp_path: Path) -> None:
    write(tmp_path, SPREAD)
    arms = {"vanilla": {}, "spread": {"terms": {"spread": {"weight": 0.1}}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**SMALL, "plugins": ["my_terms.py"], "arms": arms}))
    roots = ["--data", digits, "--results", tmp_path / "results"]
    command = ["submit", tmp_path / "tiny.yaml", "--address", jobs.jobs, "--python", sys.executable, *roots]
    refused = run_dirtune(jobs.get_token_environment(), *command)
    assert refused.returncode == 2
    assert "--allow-plugins" in refused.stderr
    done = run_dirtune(jobs.get_token_environment(), *command, "--allow-plugins")
    assert done.returncode == 0, done.stdout + done.stderr
    trained = rows("select distinct arm from curves where name = 'train/spread'", tmp_path / "results")
    assert trained["arm"].tolist() == ["spread"]


def test_a_root_that_the_nodes_cannot_use_ends_the_job_before_the_sweep(
    jobs: Cluster, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "results").write_text("no folder")
    done = run_dirtune(jobs.get_token_environment(), *build_submission(jobs, tmp_path, digits))
    assert done.returncode == 1
    assert re.search(r"problem +results root +\S+: Not a directory", done.stdout)
    assert "0 reused" not in done.stdout


def test_doctor_connects_only_with_the_token(cluster: Cluster, digits: Path) -> None:
    fit = run_dirtune(cluster.get_token_environment(), "doctor", "--address", cluster.address, "--data", digits)
    assert fit.returncode == 0, fit.stdout + fit.stderr
    assert f":{cluster.ports['port']}, authentication token" in fit.stdout
    assert re.search(r"ok +CPUs +2 on 1 node", fit.stdout)
    wrong = cluster.make_environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="wrong")
    for environment in (cluster.make_environment(), wrong):
        refused = run_dirtune(environment, "doctor", "--address", cluster.address)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "token" in refused.stderr
        assert refused.stderr.startswith(f"dirtune: {cluster.address}: ")
        assert refused.stderr.count("\n") == 1


def test_a_sweep_connects_only_with_the_token(cluster: Cluster, digits: Path, tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump(SMALL))
    refusals = {
        "the cluster requires a token and received none": cluster.make_environment(),
        "the cluster refuses this token": cluster.make_environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="wrong"),
    }
    for message, environment in refusals.items():
        environment["RAY_ADDRESS"] = cluster.address
        done = run_dirtune(environment, "sweep", study, "--data", digits, "--results", tmp_path / "results")
        assert done.returncode == 2
        assert done.stdout.endswith("tiny: starting Ray\n")
        assert done.stderr.startswith(f"dirtune: {cluster.address}: {message}: set RAY_AUTH_MODE")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("authentication", "message"),
    [
        ({}, "the cluster requires a token and received none"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}, "the cluster refuses this token"),
    ],
    ids=["none", "wrong"],
)
def test_auto_without_the_token_is_an_error_of_one_line(
    cluster: Cluster, tmp_path: Path, authentication: dict[str, str], message: str
) -> None:
    """Ray itself repeats the refusal for 20 seconds, and then says that it could not connect."""
    # Where Ray looks for the cluster of this machine
    special = {"RAY_TMPDIR": str(cluster.home), "RAY_ADDRESS": "auto"}
    done = run_dirtune(cluster.make_environment(**special, **authentication), "ingest", "digits", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(rf"dirtune: auto, [\d.]+:\d+: {message}: set RAY_AUTH_MODE", done.stderr)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
