"""A Ray cluster of several nodes on one machine, whose nodes can be killed: one `ray start` for each, as on machines of their own.

Each node has a temporary folder of its own, and all ask for a token that is made for this cluster. `ray.cluster_utils.Cluster`
would do in fewer lines, but it writes its address where every other Ray of this machine looks for one to join.
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

from kills import WORKER_TITLE, children_by_parent, command_of

OBJECT_STORE_BYTES = 150_000_000
# On a machine that is busy a node takes its time
START_SECONDS = 600.0
LOOK_SECONDS = 0.1


@dataclass
class Cluster:
    """A head without CPUs and the nodes that have joined it, all on this machine's loopback.

    Args:
        scratch: an empty folder with a short name, for the name of a socket is limited to 107 characters.
    """

    scratch: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Of everyone on this cluster. With a token of its own, for the head would ask for that of the user if there is one."""
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.scratch / "token")}
        return {**os.environ, **token, "RAY_ADDRESS": self.address}

    def start(self) -> None:
        (self.scratch / "token").write_text(secrets.token_hex(32))
        port = free_port()
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
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--disable-usage-stats",
            f"--dashboard-agent-listen-port={free_port()}",
        ]
        log = self.scratch / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, env=self.environment, stdout=stream, stderr=stream, cwd=self.scratch, start_new_session=True
            )
        # To be ended, whatever comes
        self.nodes[name] = Node(name, process)
        self.nodes[name] = Node(name, process, raylet_of(process, log))

    def kill(self, name: str) -> None:
        """End a node at once, and all that belongs to it."""
        node = self.nodes[name]
        kill_all(node.family)
        node.process.wait(START_SECONDS)

    def close(self) -> None:
        for node in reversed(self.nodes.values()):
            left = [node.process.pid, *descendants(node.process.pid)]
            node.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(20)
            kill_all(left)
            node.process.wait()


@dataclass(frozen=True)
class Node:
    """One `ray start`, and the raylet that it has started, if it has."""

    name: str
    process: subprocess.Popen[bytes]
    raylet: int | None = None

    @property
    def family(self) -> list[int]:
        """The raylet and all that it has started."""
        return [] if self.raylet is None else [self.raylet, *descendants(self.raylet)]

    @property
    def trial_workers(self) -> list[int]:
        return [pid for pid in self.family if command_of(pid).startswith(WORKER_TITLE)]


def raylet_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """The raylet of a `ray start`, once it says that it is up."""
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a node does not start: {log.read_text()}")
        time.sleep(LOOK_SECONDS)
    pids = descendants(process.pid)
    return next(pid for pid in pids if command_of(pid).split(" ")[0].endswith("/raylet"))


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on."""
    by_parent, found = children_by_parent(), [pid]
    for each in found:
        found += by_parent.get(each, [])
    return found[1:]


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
