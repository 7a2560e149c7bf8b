"""Run with `pytest tests/data/test_fork_server.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dirtune.data import fork_server, forked_worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")

WORKER = """
import atexit, json, os, sys, time
import marked

atexit.register(lambda: print("exit function", flush=True))
print(json.dumps({
    "arguments": sys.argv[1:], "path": sys.path[0], "folder": os.getcwd(), "own": os.environ.get("OWN"),
    "parent": os.getppid(), "process": os.getpid(), "group": os.getpgid(0), "imported": marked.PROCESS, "main": __name__,
    "local": "STATE" in globals(),
}), flush=True)
if "--wait" in sys.argv:
    time.sleep(100)
sys.exit(int(os.environ.get("CODE", "0")))
"""
SETUP = "import sys; print('as Ray starts it', *sys.argv[1:])"
PLAIN = ["--language=PYTHON", "--serialized-runtime-env-context={}"]
# What starts the server, and then runs `BODY` with the path of Ray's script
PROGRAM = """
import atexit, os, subprocess, sys, time
from dirtune.data.fork_server import SCRIPT, serve_forks

STATE = "of the process that was forked"
atexit.register(lambda: print("exit function of the starter", flush=True))

def run(*arguments, **environment):
    return subprocess.run([sys.executable, SCRIPT, worker, *arguments], env={**os.environ, **environment}, cwd=folder)

worker, folder = sys.argv[1], os.path.dirname(sys.argv[1])
with serve_forks(["marked"]):
    print(os.getpid(), flush=True)
BODY
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Start a program with a server and this body; its scripts are in `tmp_path`."""
    (tmp_path / "default_worker.py").write_text(WORKER)
    (tmp_path / "setup_worker.py").write_text(SETUP)
    (tmp_path / "marked.py").write_text("import os\nPROCESS = os.getpid()")

    def begin(body: str) -> subprocess.Popen[str]:
        program = PROGRAM.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
        path = os.pathsep.join([str(tmp_path), str(Path(fork_server.__file__).parents[2])])
        return subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "default_worker.py")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"},
            start_new_session=True,
        )

    return begin


def test_a_worker_is_a_fork_with_its_own_arguments_environment_and_exit_code(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    body = f"""
    codes = [run(*{PLAIN!r}, "--node-id=7", OWN="a", CODE="3"), run(*{PLAIN!r}, OWN="b")]
    print(*[each.returncode for each in codes], flush=True)
    """
    out, _ = start(body).communicate(timeout=60)
    starter, first, end, second, _, codes, last = out.splitlines()
    workers = [json.loads(each) for each in (first, second)]
    assert codes == "3 0"
    assert workers[0]["arguments"] == ["--node-id=7"]
    assert [each["own"] for each in workers] == ["a", "b"]
    assert {each["folder"] for each in workers} == {each["path"] for each in workers} == {str(tmp_path)}
    assert {(each["main"], each["local"]) for each in workers} == {("__main__", False)}
    # One server, which has imported the module, and no group but each worker's own
    (server,) = {each["parent"] for each in workers}
    assert {each["imported"] for each in workers} == {server} != {int(starter)}
    assert all(each["group"] == each["process"] for each in workers)
    # Those of the process that was forked are its own.
    assert (end, last) == ("exit function", "exit function of the starter")


def test_workers_that_need_more_than_a_fork_start_as_ray_starts_them(
    start: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    contexts = [{"env_vars": {"A": "1"}}, {"py_executable": "other"}, {"command_prefix": ["nice"]}]
    calls = [["--language=PYTHON", f"--serialized-runtime-env-context={json.dumps(each)}"] for each in contexts]
    calls.append(["--language=JAVA"])
    body = f"""
    for arguments in {calls!r}:
        run(*arguments)
    run(*{PLAIN!r}, {forked_worker.SOCKET}="")
    """
    out, _ = start(body).communicate(timeout=60)
    assert out.splitlines()[1:-1] == [
        f"as Ray starts it {tmp_path / 'default_worker.py'} {' '.join(each)}" for each in [*calls, PLAIN]
    ]


def test_workers_start_without_a_server_that_was_killed(start: Callable[[str], subprocess.Popen[str]]) -> None:
    body = f"""
    import json, signal
    arguments = [sys.executable, SCRIPT, worker, *{PLAIN!r}]
    found = json.loads(subprocess.run(arguments, cwd=folder, stdout=subprocess.PIPE).stdout.splitlines()[0])
    os.kill(found["parent"], signal.SIGKILL)
    time.sleep(0.2)
    run(*{PLAIN!r})
    """
    out, _ = start(body).communicate(timeout=60)
    assert out.splitlines()[1].startswith("as Ray starts it")


@pytest.mark.parametrize("victim", ["script", "worker"])
def test_a_worker_ends_with_the_process_that_ray_knows(
    start: Callable[[str], subprocess.Popen[str]], victim: str
) -> None:
    body = f"""
    import json, signal
    arguments = [sys.executable, SCRIPT, worker, *{PLAIN!r}, "--wait"]
    script = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE)
    found = json.loads(script.stdout.readline())["process"]
    os.kill(script.pid if {victim!r} == "script" else found, signal.SIGKILL)
    print(found, script.wait(), flush=True)
    while os.path.exists(f"/proc/{{found}}"):
        time.sleep(0.01)
    """
    out, _ = start(body).communicate(timeout=60)
    assert int(out.splitlines()[1].split()[1]) == (-signal.SIGKILL if victim == "script" else 128 + signal.SIGKILL)


def test_the_server_ends_with_the_process_that_started_it(start: Callable[[str], subprocess.Popen[str]]) -> None:
    body = f"run(*{PLAIN!r}); time.sleep(100)"
    starter = start(body)
    assert starter.stdout is not None
    starter.stdout.readline()
    server = json.loads(starter.stdout.readline())["parent"]
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and Path(f"/proc/{server}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{server}").exists()
    starter.stdout.close()


@pytest.mark.parametrize(
    ("before", "is_safe"),
    [
        ("import numpy, torch, pyarrow.dataset", True),
        ("import ray", False),
        ("import threading; threading.Thread(target=__import__('time').sleep, args=(3,), daemon=True).start()", False),
        ("import torch; torch.set_num_threads(4); torch.ones(2**20).exp()", False),
        ("import mmap; f = open('libcuda.so', 'w+b'); f.truncate(9); m = mmap.mmap(f.fileno(), 9)", False),
    ],
    ids=["imports", "ray", "thread", "openmp", "cuda"],
)
def test_a_process_is_forked_only_where_a_fork_can_do_as_much(before: str, is_safe: bool, tmp_path: Path) -> None:
    program = f"{before}\nfrom dirtune.data.fork_server import is_safe\nprint(is_safe())"
    path = str(Path(fork_server.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert done.stdout == f"{is_safe}\n"


def test_nothing_is_forked_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    monkeypatch.setattr(fork_server, "is_safe", lambda: True)
    with fork_server.serve_forks([]):
        assert forked_worker.SOCKET not in os.environ
