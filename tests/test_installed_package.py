"""The wheels of dirtune and of the example plug-in in an empty virtual environment: `pytest -m soak tests/test_installed_package.py`.

The environment is filled from the package registries once, which takes minutes and gigabytes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.heads import end, find_free_ports, is_listening, wait_until
from tests.test_example_plugin import EXAMPLE
from tests.test_packaging import wheel
from tests.training.conftest import data_root, toy
from tests.tuning.sweeps import rows

__all__ = ["data_root", "toy", "wheel"]
ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.soak
ARMS = {"vanilla": {}, "spread": EXAMPLE["arms"]["spread"], "wide": EXAMPLE["arms"]["wide"]}


@dataclass(frozen=True)
class Environment:
    """A virtual environment in which dirtune and the example are installed."""

    folder: Path

    def run(self, *command: object, cwd: Path, timeout: float = 600, **variables: str) -> str:
        """Run a program of the environment and return its output; raise if it fails."""
        done = self.start(*command, cwd=cwd, **variables)
        output, _ = done.communicate(timeout=timeout)
        assert done.returncode == 0, output
        return output

    def start(self, *command: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        program, *arguments = map(str, command)
        plain = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "RAY_ADDRESS"}}
        return subprocess.Popen(
            [str(self.folder / "bin" / program), *arguments],
            cwd=cwd,
            env={**plain, "COLUMNS": "200", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def install(self, source: Path) -> None:
        """Build the wheel of a copy of the example and install it over an earlier one."""
        wheels = source.parent / "wheels"
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
        subprocess.run([*pip, "wheel", *options, str(source)], check=True)
        (built,) = wheels.glob("*.whl")
        self.run("pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", built, cwd=source)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Return an environment of its own, with the tested versions of what dirtune requires."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    made = Environment(folder)
    wanted = f"dirtune[cluster] @ {wheel.as_uri()}"
    made.run("pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wanted, cwd=folder, timeout=3000)
    made.install(copy_example(tmp_path_factory.mktemp("example")))
    yield made
    shutil.rmtree(folder)


def copy_example(folder: Path, change: tuple[str, str] = ("", "")) -> Path:
    """Return a copy of the example, in whose source a text is replaced by another."""
    source = folder / "source"
    shutil.copytree(ROOT / "examples/plugin", source)
    module = source / "src/dirtune_spread/__init__.py"
    text = module.read_text()
    assert change[0] in text
    module.write_text(text.replace(*change) if change[0] else text)
    return source


def write_study(folder: Path, **changes: Any) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**EXAMPLE, **changes}, sort_keys=False))


def list_roots(data_root: Path, folder: Path) -> list[object]:
    return ["--data", data_root, "--results", folder / "results"]


def assert_trained(results: Path, arms: set[str]) -> None:
    """Check that every arm was trained with the installed package, and the one with its term by its loss."""
    trials = rows("select arm, status, plugins from trials", results)
    assert dict(zip(trials["arm"], trials["status"], strict=True)) == dict.fromkeys(arms, "complete")
    assert all([*json.loads(text)] == ["dirtune-spread 0.1.0"] for text in trials["plugins"])
    term = rows(
        "select arm, min(value) low, max(value) high from curves where name = 'train/spread' group by arm", results
    )
    assert term["arm"].tolist() == ["spread"]
    assert term["low"][0] < term["high"][0] < 1.0
    measured = rows(
        "select distinct arm from metrics join trials using (trial_id) where metric = 'tail_error' and value > 0",
        results,
    )
    assert set(measured["arm"]) == arms


def test_one_package_is_installed_and_the_example_adds_its_parts(environment: Environment, tmp_path: Path) -> None:
    listed = environment.run("pip", "show", "--files", "dirtune", cwd=tmp_path)
    files = [line.strip() for line in listed.partition("Files:\n")[2].splitlines()]
    assert len(files) > 300
    tops = {name.split("/")[0] for name in files if not name.startswith("../../../bin/")}
    assert {name.partition("-")[0] for name in tops} == {"dirtune"}
    assert len(tops) == 2
    # Folders of one's own with the names of parts of the package
    for name in ("pipelines", "search_spaces"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not mine')\n")
    assert environment.run("dirtune", "--version", cwd=tmp_path).startswith("dirtune 0.")
    for kind, name in (("terms", "spread"), ("encoders", "wide_mlp"), ("metrics", "tail_error")):
        assert "Of the package dirtune-spread 0.1.0." in environment.run("dirtune", "list", kind, cwd=tmp_path)
        assert environment.run("dirtune", "list", kind, name, cwd=tmp_path).startswith(name)


def test_the_demo_runs(environment: Environment, tmp_path: Path) -> None:
    environment.run("dirtune", "ingest", "digits", cwd=tmp_path)
    short = ["--set", "seeds=[0]", "--set", "base.recipe.epochs=1"]
    assert "complete" in environment.run("dirtune", "sweep", "quickstart", *short, cwd=tmp_path)
    assert "vanilla" in environment.run("dirtune", "table", "quickstart", cwd=tmp_path)
    environment.run("dirtune", "plot", "quickstart", cwd=tmp_path)
    assert (tmp_path / "figures/quickstart-regions.png").stat().st_size > 10_000


def test_two_workers_sweep_it_and_a_changed_source_makes_new_trials(
    environment: Environment, data_root: Path, tmp_path: Path
) -> None:
    write_study(tmp_path, resources={"checkpoint_seconds": 0, "concurrent": 2})
    command, results = ["tiny.yaml", *list_roots(data_root, tmp_path)], tmp_path / "results"
    assert "4 complete; 0 reused" in environment.run("dirtune", "sweep", *command, cwd=tmp_path)
    assert_trained(results, set(EXAMPLE["arms"]))
    first = set(rows("select trial_id from trials", results)["trial_id"])
    assert "nothing to run; 4 reused" in environment.run("dirtune", "sweep", *command, cwd=tmp_path)

    changed = copy_example(tmp_path / "changed", ("cosines * differ", "cosines.square() * differ"))
    original = copy_example(tmp_path / "original")
    environment.install(changed)
    try:
        assert "0 recorded, 4 orphaned" in " ".join(environment.run("dirtune", "plan", *command, cwd=tmp_path).split())
        environment.run("dirtune", "sweep", *command, cwd=tmp_path)
    finally:
        environment.install(original)
    changed_trials = set(rows("select trial_id from trials", results)["trial_id"])
    assert len(changed_trials) == 4
    assert first.isdisjoint(changed_trials)
    # The records of the first source were put aside, and are those of the study again
    assert "nothing to run; 4 reused" in environment.run("dirtune", "sweep", *command, cwd=tmp_path)
    assert set(rows("select trial_id from trials", results)["trial_id"]) == first


def test_a_group_of_workers_sweeps_it(environment: Environment, data_root: Path, tmp_path: Path) -> None:
    write_study(tmp_path, arms=ARMS, resources={"workers": 2, "checkpoint_seconds": 0})
    environment.run("dirtune", "sweep", "tiny.yaml", *list_roots(data_root, tmp_path), cwd=tmp_path)
    assert_trained(tmp_path / "results", set(ARMS))
    assert set(rows("select workers from trials", tmp_path / "results")["workers"]) == {2}


def test_a_killed_sweep_is_resumed(environment: Environment, data_root: Path, tmp_path: Path) -> None:
    recipe = {**EXAMPLE["base"]["recipe"], "epochs": 40}
    write_study(
        tmp_path,
        arms=ARMS,
        base={**EXAMPLE["base"], "recipe": recipe},
        resources={"checkpoint_seconds": 0, "concurrent": 2},
    )
    roots = list_roots(data_root, tmp_path)
    killed = environment.start("dirtune", "sweep", "tiny.yaml", *roots, cwd=tmp_path)
    while killed.poll() is None and not list((tmp_path / "results/tiny/trials").glob("*/checkpoint/*")):
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert len(list((tmp_path / "results/tiny/results/trials").glob("*.parquet"))) < len(ARMS)
    environment.run("dirtune", "resume", "tiny", *roots, cwd=tmp_path)
    assert_trained(tmp_path / "results", set(ARMS))
    counts = rows("select count(*) n from curves where name = 'train/spread'", tmp_path / "results")
    assert counts["n"].tolist() == [40]


@pytest.fixture(scope="module")
def jobs(environment: Environment) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the address of a cluster's jobs, whose head is of the environment, and the variables with its token."""
    # A short path, because sockets are below it
    home, ports = Path(tempfile.mkdtemp(prefix="dirtune-", dir="/tmp")), find_free_ports()
    options = ["--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
    (home / "token").write_text(secrets.token_hex(32))
    (home / "token").chmod(0o600)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home / "token")}
    options += [f"--temp-dir={home}", "--disable-usage-stats", *(f"--{name}={port}" for name, port in ports.items())]
    with (home / "log").open("w") as log:
        head = subprocess.Popen(
            [str(environment.folder / "bin/ray"), "start", *options],
            stdout=log,
            stderr=log,
            cwd=home,
            env={**os.environ, **token},
            start_new_session=True,
        )
    try:
        wait_until(lambda: "Ray runtime started" in (home / "log").read_text(), head)
        wait_until(lambda: is_listening(ports["dashboard-port"]))
        yield f"http://127.0.0.1:{ports['dashboard-port']}", token
    finally:
        end(head)
        shutil.rmtree(home)


def test_it_is_submitted_to_a_cluster(
    environment: Environment, jobs: tuple[str, dict[str, str]], data_root: Path, tmp_path: Path
) -> None:
    write_study(tmp_path, arms=ARMS)
    address, token = jobs
    place = ["--address", address, "--python", environment.folder / "bin/python", *list_roots(data_root, tmp_path)]
    assert "3 complete; 0 reused" in environment.run("dirtune", "submit", "tiny.yaml", *place, cwd=tmp_path, **token)
    assert_trained(tmp_path / "results", set(ARMS))
    # Without the sources of dirtune, which are installed there
    again = environment.run("dirtune", "submit", "tiny.yaml", *place, "--installed", cwd=tmp_path, **token)
    assert "3 reused" in again


def test_a_registration_that_no_worker_would_see_raises(
    environment: Environment, data_root: Path, tmp_path: Path
) -> None:
    write_study(tmp_path, arms={"vanilla": {}, "own": {"terms": {"own": {}}}})
    (tmp_path / "written.py").write_text("from dirtune.losses import TERMS\n\nTERMS['own'] = TERMS['supcon']\n")
    (tmp_path / "script.py").write_text(
        "import dirtune, dirtune_spread\n\n\n"
        "@dirtune.register.term('own')\n"
        "class Own(dirtune_spread.Spread):\n    '''Its own term.'''\n\n\n"
        f"dirtune.sweep('tiny.yaml', data={str(data_root)!r})\n"
    )
    for script, message in (
        (
            "written.py",
            "TypeError: a part that is written into the term registry would not reach the workers of a sweep",
        ),
        ("script.py", "script.py: is the script of this process, which workers cannot run"),
    ):
        process = environment.start("python", script, cwd=tmp_path)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert message in output
    assert not (tmp_path / "results").exists()
