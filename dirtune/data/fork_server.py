"""Workers of a local Ray as forks of one process, so that torch and other large packages are imported once.

Importing takes most of the time in which a worker starts, and most of its memory, which forks share. The server is itself a
fork of the process that starts the sweep, with what that has imported for reading the study. It never imports Ray, whose
library reads a worker's identity from the environment when it is loaded: each fork imports that by itself.

Ray starts every worker by a command, which `dirtune.data.forked_worker` takes the place of; it hands its arguments,
environment and standard streams to the server. If the server ends, the next workers start as Ray starts them.

A process is forked only while that is safe: no thread that would be missed, no Ray, no GPU in use. The server ends with the
process that started it, also if that is killed, and a fork ends when Ray ends or kills it, as every worker does.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import threadpoolctl

from dirtune.data.forked_worker import FORKED, LENGTH_BYTES, SOCKET
from dirtune.process import replace_attributes, set_environment

SCRIPT = Path(__file__).with_name("forked_worker.py")
_LONGEST_PATH = 100
_STREAMS = 3


@contextmanager
def serve_forks(preload: Sequence[str]) -> Iterator[None]:
    """Fork the workers of a local Ray that starts inside the block from this process, as it is now.

    Nothing is done where a fork is not safe, or Ray runs elsewhere (`RAY_ADDRESS`): workers then start as Ray starts them.

    Args:
        preload: modules that the server imports before its first fork; none of them may import Ray.
    """
    with tempfile.TemporaryDirectory(prefix="dirtune-") as folder:
        path = f"{folder}/forks"
        if not is_safe() or len(path) > _LONGEST_PATH or os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
            yield
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            end, ours = os.pipe()
            server = os.fork()
            if server == 0:
                os.close(ours)
                _run_server(listener, end, preload)
        os.close(end)
        try:
            with set_environment({SOCKET: path}):
                yield
        finally:
            os.close(ours)
            # A program that ignores the ends of its children has none to wait for.
            with suppress(ChildProcessError):
                os.waitpid(server, 0)


def is_safe() -> bool:
    """Return True if a fork of this process can do whatever a new one can."""
    if sys.platform != "linux" or threading.active_count() > 1 or "ray" in sys.modules:
        return False
    # CUDA, once it has been asked for a GPU, works in no fork.
    if "/libcuda.so" in Path("/proc/self/maps").read_text():
        return False
    # Of the threads of libraries, a fork has none. OpenBLAS and jemalloc, which is Arrow's, know that; OpenMP would wait for its own.
    pools = threadpoolctl.threadpool_info()
    known = 1 + sum(pool["num_threads"] - 1 for pool in pools if pool["internal_api"] == "openblas")
    names = [Path(f"/proc/self/task/{task}/comm").read_text() for task in os.listdir("/proc/self/task")]
    return bool(sum(not name.startswith("jemalloc") for name in names) <= known)


@contextmanager
def fork_workers() -> Iterator[None]:
    """Let a node of Ray that starts inside the block have its workers forked, if there is a server."""
    from ray._private import node

    if SOCKET not in os.environ:
        yield
        return
    start = node.Node.start_raylet

    def start_raylet(self: node.Node, *arguments: Any, **options: Any) -> None:
        self._ray_params.setup_worker_path = str(SCRIPT)
        start(self, *arguments, **options)

    with replace_attributes(node.Node, start_raylet=start_raylet):
        yield


@dataclass
class _Fork:
    """A worker that runs."""

    process: int
    """Its process id."""
    handle: int
    """File descriptor that is readable once it has ended."""
    client: socket.socket
    """Connection to the process that Ray has started for it."""


@dataclass
class _Server:
    """State of the server, of which a fork closes all."""

    listener: socket.socket
    end: int
    """Pipe that is readable once the process that started the server has ended."""
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    forks: list[_Fork] = field(default_factory=list)

    def serve(self) -> None:
        """Fork a worker for each request until the end."""
        self.selector.register(self.end, selectors.EVENT_READ)
        self.selector.register(self.listener, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self.selector.select()}
            if self.end in ready:
                return
            for fork in list(self.forks):
                if fork.handle in ready:
                    self._report_end(fork)
                elif fork.client in ready:
                    # Ray has killed the process that it knows.
                    with suppress(ProcessLookupError):
                        os.kill(fork.process, signal.SIGKILL)
                    self.selector.unregister(fork.client)
            if self.listener in ready:
                client, _ = self.listener.accept()
                try:
                    self._fork(client)
                # It starts the worker as Ray does.
                except (OSError, ValueError):
                    client.close()

    def _fork(self, client: socket.socket) -> None:
        header, streams, _, _ = socket.recv_fds(client, LENGTH_BYTES, _STREAMS)
        try:
            content, length = bytearray(), int.from_bytes(header, "big")
            while len(content) < length:
                part = client.recv(length - len(content))
                if not part:
                    raise ConnectionError("the client has ended")
                content += part
            request = json.loads(content)
            process = os.fork()
            if process == 0:
                self._close()
                client.close()
                _run_worker(request, streams)
        finally:
            for stream in streams:
                os.close(stream)
        fork = _Fork(process, os.pidfd_open(process), client)
        self.forks.append(fork)
        self.selector.register(fork.handle, selectors.EVENT_READ)
        self.selector.register(client, selectors.EVENT_READ)
        # The end of a client is seen by the selector.
        with suppress(OSError):
            client.sendall(FORKED)

    def _report_end(self, fork: _Fork) -> None:
        _, status = os.waitpid(fork.process, 0)
        code = os.waitstatus_to_exitcode(status)
        # As a shell has it for a process that a signal has ended
        with suppress(OSError):
            fork.client.sendall(str(128 - code if code < 0 else code).encode())
        self.selector.unregister(fork.handle)
        if fork.client in self.selector.get_map():
            self.selector.unregister(fork.client)
        os.close(fork.handle)
        fork.client.close()
        self.forks.remove(fork)

    def _close(self) -> None:
        self.selector.close()
        self.listener.close()
        os.close(self.end)
        for fork in self.forks:
            os.close(fork.handle)
            fork.client.close()


def _run_server(listener: socket.socket, end: int, preload: Sequence[str]) -> NoReturn:
    """Be the server: without the signal handlers, exit functions and standard streams of the process that it is a fork of."""
    try:
        # Ctrl-C and signals to the group of the sweep are not for workers.
        os.setpgid(0, 0)
        atexit._clear()
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(each, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(_STREAMS):
            os.dup2(nothing, stream)
        for module in preload:
            importlib.import_module(module)
        # Forks share objects that no collection touches.
        gc.collect()
        gc.freeze()
        _Server(listener, end).serve()
    finally:
        os._exit(0)


def _run_worker(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Run a script of Ray as a process of its own would."""
    code = 1
    try:
        # Ray kills the whole group of a worker.
        os.setpgid(0, 0)
        for target, given in enumerate(streams):
            os.dup2(given, target)
            os.close(given)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        script = request["arguments"][0]
        sys.argv, sys.path[0] = request["arguments"], os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # Those of this process alone; its frames are those of the process that the server is a fork of, and must not go on.
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
