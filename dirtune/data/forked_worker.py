"""Script that a local Ray runs for each worker process: asks the server of this session to fork it, and waits for its end.

It takes the place of Ray's own script, with the same arguments, and runs that one where no server answers, or where the
worker needs another environment or interpreter. Only the standard library is imported: this process lives as long as the worker.
"""

import json
import os
import socket
import sys

SOCKET = "DIRTUNE_WORKER_SOCKET"
"""Environment variable with the path of the server's socket."""
LENGTH_BYTES = 8
"""Size of the number before a request."""
FORKED = b"+"
"""Reply to a request; at the worker's end, its exit code follows as text."""
_PYTHON = "--language=PYTHON"
_ENVIRONMENT = "--serialized-runtime-env-context="
# What Ray's own script would prepare
_PREPARED = ("command_prefix", "env_vars", "override_worker_entrypoint")


def main(arguments: list[str]) -> int:
    """Have the worker forked and return its exit code, or become Ray's own script."""
    # After flags of the interpreter
    program = next(at for at, each in enumerate(arguments) if each.endswith(".py"))
    own = [each for each in arguments[program:] if not each.startswith((_PYTHON, _ENVIRONMENT))]
    code = run_fork(own) if is_plain(arguments) else None
    if code is None:
        script = os.path.join(os.path.dirname(own[0]), "setup_worker.py")
        os.execv(sys.executable, [sys.executable, script, *arguments])
    return code


def is_plain(arguments: list[str]) -> bool:
    """Return True for a worker in Python that runs in the environment and the interpreter of this process."""
    texts = [each.removeprefix(_ENVIRONMENT) for each in arguments if each.startswith(_ENVIRONMENT)]
    contexts = [json.loads(text or "{}") for text in texts]
    return _PYTHON in arguments and not any(
        any(each.get(name) for name in _PREPARED) or each.get("py_executable", sys.executable) != sys.executable
        for each in contexts
    )


def run_fork(arguments: list[str]) -> int | None:
    """Return the exit code of a fork that runs a script with these arguments; None if there is none."""
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ.get(SOCKET, ""))
            # The worker's standard streams
            socket.send_fds(connection, [len(request).to_bytes(LENGTH_BYTES, "big")], [0, 1, 2])
            connection.sendall(request)
            if connection.recv(1) != FORKED:
                return None
        except OSError:
            return None
        try:
            code = connection.recv(LENGTH_BYTES)
        # The server has been killed.
        except OSError:
            code = b""
    return int(code) if code else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
