"""A Ray session for the duration of a block: the current one of the process, a cluster's, or a local one.

`dirtune.data.connect` connects to a cluster at `RAY_ADDRESS`, so that a wrong token, another version or an unreachable
address is a one-line error within seconds. A local session has no dashboard, hence no port that accepts jobs, and no port
of metrics. Its other ports, which Ray 2.60 opens on all interfaces, require the token in `~/.ray/auth_token`, unless
`RAY_AUTH_MODE` is set otherwise. Ray would write that file readable by all users of the machine, so it is made here.

A local session starts the two processes of Ray that it needs, in 1.6 s instead of 4.3 (two cores), and ends in 0.3 s
instead of 1.3. Each has a process group of its own: a signal to all of ours (Ctrl-C, `timeout`) would end Ray before the work.
"""

import atexit
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dirtune.data.auth_token import DEFAULT_TOKEN_PATH, prepare_token
from dirtune.data.fork_server import fork_workers
from dirtune.data.ray_data import run_short_passes
from dirtune.errors import Fault, InputError
from dirtune.process import replace_attributes, set_environment, silence_loggers

# Characters of the path of a Unix socket, and Ray's part of it, which ends with the number of the process
_LONGEST_SOCKET = 107
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
# Ray itself waits as long for its node.
_NODE_SECONDS = 30.0
_LEFT_OUT = ("start_api_server", "start_monitor", "start_log_monitor")
IGNORE_UNHANDLED = "RAY_IGNORE_UNHANDLED_ERRORS"


def find_socket_fault() -> str | None:
    """Return why a local Ray could not open its sockets, with the remedy, or None if it can."""
    # As Ray chooses it; otherwise it is /tmp.
    source = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    if source is None:
        return None
    folder, most = os.environ[source], _LONGEST_SOCKET - len(_SOCKET)
    if not os.path.isabs(folder):
        fault = f"is {folder!r}, which is no absolute path"
    elif not folder.isascii():
        fault = "has letters that are not ASCII"
    elif len(folder) > most:
        fault = f"has {len(folder)} characters, and its sockets leave {most}"
    else:
        return None
    return f"the path of its folder ({source}) {fault}; set RAY_TMPDIR=/tmp"


@contextmanager
def ray_session() -> Iterator[None]:
    """Use the Ray of this process or of `RAY_ADDRESS`; if there is none, start a local one and shut it down afterwards.

    Raises:
        InputError: the cluster at `RAY_ADDRESS` refuses the connection, or no local Ray starts.
    """
    # Imported here, because pipelines and the command line import this module before they need Ray; and before the silence,
    # because the first import sets the level of the log.
    import ray.data

    address = os.environ.get("RAY_ADDRESS")
    is_local = not ray.is_initialized() and address in (None, "", "local")
    # A pass over a small set would log 20 lines, and a failing one 180 before the one line with the reason. Errors of
    # tasks that nothing waits for any longer would be printed as tracebacks after the sweep's final message.
    with (
        silence_loggers("ray.data"),
        run_short_passes(is_local=is_local),
        _write_no_escape_codes(),
        set_environment({IGNORE_UNHANDLED: "1"}),
    ):
        if ray.is_initialized():
            yield
        elif address and not is_local:
            from dirtune.data.connect import connect_to_cluster

            with connect_to_cluster(address):
                yield
        else:
            if fault := find_socket_fault():
                raise InputError(Fault(where="Ray", rule=f"does not start: {fault}"))
            prepare_token(Path(os.path.expanduser(DEFAULT_TOKEN_PATH)))
            try:
                with start_two_processes(), fork_workers():
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
def start_two_processes() -> Iterator[None]:
    """Let `ray.init` start the servers of the cluster and of the node alone, each in a process group of its own.

    It would start three in Python, too: without a dashboard, its server sends Ray's statistics of usage; the monitor starts
    nodes; the other monitor shows what workers print. Where packages of the dashboard are missing, its agent opens no port.
    """
    from ray._private import node, services, utils
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled

    get_node = services.get_node

    def get_node_at_once(gcs_address: str, node_id: str) -> Any:
        # Ray looks for it once a second.
        client, deadline = GcsClient(address=gcs_address), time.monotonic() + _NODE_SECONDS
        while time.monotonic() < deadline and node_id not in {each.hex() for each in client.get_all_node_info()}:
            time.sleep(0.02)
        return get_node(gcs_address, node_id)

    with (
        replace_attributes(
            services, ConsolePopen=partial(services.ConsolePopen, process_group=0), get_node=get_node_at_once
        ),
        replace_attributes(utils, get_dashboard_dependency_error=lambda: "not used"),
        replace_attributes(node.Node, **dict.fromkeys(_LEFT_OUT, lambda *_, **__: None)),
    ):
        yield


@contextmanager
def _write_no_escape_codes() -> Iterator[None]:
    """Write no escape code at the end of the process, to a terminal that Ray's loggers have colored."""
    try:
        yield
    finally:
        # Ray's logger of its command line initializes the colors of the terminal, which colorama resets.
        if (colors := sys.modules.get("colorama.initialise")) is not None:  # codespell:ignore
            atexit.unregister(colors.reset_all)
