"""A Ray cluster of several nodes on one machine, whose nodes can be killed: one `ray start` per node, as on separate machines.

Each node has its own temporary folder, and all require a token that is generated for this cluster. `ray.cluster_utils.Cluster`
would need fewer lines, but it writes its address where every other Ray process of this machine reads one to join.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from kills import WORKER_TITLES, list_children, read_command

OBJECT_STORE_BYTES = 150_000_000
START_TIMEOUT = 600.0
"""Seconds; a node starts slowly on a busy machine."""
POLL_SECONDS = 0.1


@dataclass
class Cluster:
    """A head without CPUs and the nodes that have joined it, all on this machine's loopback.

    Args:
        scratch: an empty folder with a short path, because the path of a socket is limited to 107 characters.
        object_store_bytes: of each node; Ray Data runs fewer tasks than there are CPUs if it is small.
    """

    scratch: Path
    object_store_bytes: int = OBJECT_STORE_BYTES
    nodes: dict[str, Node] = field(default_factory=dict)
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Environment of every process of this cluster, with its own token: the head would otherwise require that of the user."""
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.scratch / "token")}
        return {**os.environ, **token, "RAY_ADDRESS": self.address}

    def start(self) -> None:
        (self.scratch / "token").write_text(secrets.token_hex(32))
        port = find_free_port()
        self.address = f"127.0.0.1:{port}"
        self._add("head", "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")

    def add(self, name: str, *, cpus: int) -> None:
        self._add(name, f"--address={self.address}", f"--num-cpus={cpus}")

    def _add(self, name: str, *options: str) -> None:
        command = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--block",
            *options,
            "--node-ip-address=127.0.0.1",
            f"--temp-dir={self.scratch / name}",
            f"--object-store-memory={self.object_store_bytes}",
            "--disable-usage-stats",
            f"--dashboard-agent-listen-port={find_free_port()}",
        ]
        log = self.scratch / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, env=self.environment, stdout=stream, stderr=stream, cwd=self.scratch, start_new_session=True
            )
        # Registered before its raylet is known, so that `close` ends it even if it does not start.
        self.nodes[name] = Node(name, process)
        self.nodes[name] = Node(name, process, wait_for_raylet(process, log))

    def kill(self, name: str) -> None:
        """Kill all processes of a node."""
        node = self.nodes[name]
        kill_all(node.list_processes())
        node.process.wait(START_TIMEOUT)

    def close(self) -> None:
        for node in reversed(self.nodes.values()):
            left = [node.process.pid, *list_descendants(node.process.pid)]
            node.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(20)
            kill_all(left)
            node.process.wait()


@dataclass(frozen=True)
class Node:
    """One `ray start`, and its raylet once it is known."""

    name: str
    process: subprocess.Popen[bytes]
    raylet: int | None = None

    def list_processes(self) -> list[int]:
        """The raylet and its descendants."""
        return [] if self.raylet is None else [self.raylet, *list_descendants(self.raylet)]

    def list_trial_workers(self) -> list[int]:
        return [pid for pid in self.list_processes() if read_command(pid).startswith(WORKER_TITLES)]


def wait_for_raylet(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until a `ray start` is complete, and return the process id of its raylet."""
    deadline = time.monotonic() + START_TIMEOUT
    while "Ray runtime started" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a node does not start: {log.read_text()}")
        time.sleep(POLL_SECONDS)
    pids = list_descendants(process.pid)
    return next(pid for pid in pids if read_command(pid).split(" ")[0].endswith("/raylet"))


def list_descendants(pid: int) -> list[int]:
    """Return the descendants of a process."""
    by_parent, found = list_children(), [pid]
    for each in found:
        found += by_parent.get(each, [])
    return found[1:]


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def find_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
