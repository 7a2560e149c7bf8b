"""A Ray session for the duration of a block: the current one of the process, a cluster's, or a local one.

`dirtune.data.connect` connects to a cluster at `RAY_ADDRESS`, so that a wrong token, another version or an unreachable
address is a one-line error within seconds. A local session has no dashboard, hence no port that accepts jobs, and no port
of metrics. Its other ports, which Ray 2.60 opens on all interfaces, require the token in `~/.ray/auth_token`, unless
`RAY_AUTH_MODE` is set otherwise. Ray would write that file readable by all users of the machine, so it is made here.
Its processes have process groups of their own: a signal to all of ours (Ctrl-C, `timeout`) would end Ray before the work.
"""

import atexit
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dirtune.data.auth_token import DEFAULT_TOKEN_PATH, prepare_token
from dirtune.errors import Fault, InputError
from dirtune.process import set_environment, silence_loggers

# Characters of the path of a Unix socket, and Ray's part of it, which ends with the number of the process
_LONGEST_SOCKET = 107
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
IGNORE_UNHANDLED = "RAY_IGNORE_UNHANDLED_ERRORS"


def find_socket_fault() -> str | None:
    """Return why a local Ray could not open its sockets, with the remedy, or None if it can."""
    # As Ray chooses it
    source = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    folder = os.environ[source] if source else tempfile.gettempdir()
    most = _LONGEST_SOCKET - len(_SOCKET)
    if len(os.fsencode(folder)) <= most:
        return None
    return (
        f"the path of its folder ({source or 'the temporary one'}) has {len(os.fsencode(folder))} characters, and its "
        f"sockets leave {most}; set RAY_TMPDIR=/tmp"
    )


@contextmanager
def ray_session() -> Iterator[None]:
    """Use the Ray of this process or of `RAY_ADDRESS`; if there is none, start a local one and shut it down afterwards.

    Raises:
        InputError: the cluster at `RAY_ADDRESS` refuses the connection, or no local Ray starts.
    """
    # Imported here, because pipelines and the command line import this module before they need Ray; and before the silence,
    # because the first import sets the level of the log.
    import ray.data

    # A pass over a small set would log 20 lines, and a failing one 180 before the one line with the reason. Errors of
    # tasks that nothing waits for any longer would be printed as tracebacks after the sweep's final message.
    with silence_loggers("ray.data"), _hide_progress_bars(), set_environment({IGNORE_UNHANDLED: "1"}):
        address = os.environ.get("RAY_ADDRESS")
        if ray.is_initialized():
            yield
        elif address and address != "local":
            from dirtune.data.connect import connect_to_cluster

            with connect_to_cluster(address):
                yield
        else:
            if fault := find_socket_fault():
                raise InputError(Fault(where="Ray", rule=f"does not start: {fault}"))
            prepare_token(Path(os.path.expanduser(DEFAULT_TOKEN_PATH)))
            try:
                with _start_processes_in_own_groups():
                    # Without "local" Ray would connect to any cluster of this machine, also to one that is about to end.
                    ray.init(
                        address="local",
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        _system_config={
                            # Its port would answer without the token, and nothing reads it
                            "enable_metrics_collection": False,
                            # Time, in seconds, after which this process ends if all of Ray's were ended
                            "gcs_rpc_server_reconnect_timeout_s": 10,
                        },
                    )
            # Ray raises no narrower class when its processes do not start in time.
            except Exception as error:
                rule = f"does not start: {str(error).splitlines()[0]} (`dirtune doctor` examines the cause)"
                raise InputError(Fault(where="Ray", rule=rule)) from error
            try:
                yield
            finally:
                ray.shutdown()


@contextmanager
def _start_processes_in_own_groups() -> Iterator[None]:
    """Let each process that Ray (2.60) starts have a process group of its own, which its own children share."""
    from ray._private import services

    popen = services.ConsolePopen
    services.ConsolePopen = partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen


@contextmanager
def _hide_progress_bars() -> Iterator[None]:
    """Let Ray Data draw no bars, of which there is one for every pass, and an escape code at the end of the process."""
    import ray.data

    context = ray.data.DataContext.get_current()
    before, context.enable_progress_bars = context.enable_progress_bars, False
    try:
        yield
    finally:
        context.enable_progress_bars = before
        # Ray's logger of its command line initializes the colors of the terminal, which colorama resets.
        if (colors := sys.modules.get("colorama.initialise")) is not None:  # codespell:ignore
            atexit.unregister(colors.reset_all)
