"""Connection to a Ray cluster as its driver, or failure within seconds with a one-line reason.

Ray 2.60 waits for minutes for an address at which no cluster listens, writes to standard error for half a minute when its
token is refused, and ends the process when a token's file cannot be read. So a subprocess, whose end does no harm, asks
the cluster for its versions first. A token is never printed, neither here nor by Ray.
"""

import contextlib
import logging
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import check_version_info

from dirtune.data.auth_token import DEFAULT_TOKEN_PATH
from dirtune.errors import Fault, InputError
from dirtune.process import silence_loggers

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
CONNECT_TIMEOUT = 3.0
"""Seconds for a TCP connection."""
HANDSHAKE_TIMEOUT = 15.0
"""Seconds for a cluster to return its versions."""
REFUSED = 3
"""Exit code of `HANDSHAKE` if the cluster refuses the token."""
HANDSHAKE = f"""
import sys
from ray._common.usage.usage_lib import get_cluster_metadata
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    found = get_cluster_metadata(GcsClient(address=sys.argv[1])) or {{}}
except AuthenticationError:
    sys.exit({REFUSED})
print(found.get("ray_version"), found.get("python_version"))
"""
"""Script that prints the versions of Ray and Python that a cluster was started with."""
TOKEN_HINT = f"set {MODE}=token, and {TOKEN_PATH} to a file with the cluster's token (or {TOKEN} to the token)"


@contextlib.contextmanager
def connect_to_cluster(address: str) -> Iterator[None]:
    """Connect to the cluster at `host:port`, or `auto` for the one of this machine, while the block runs.

    A process that is connected to it already stays connected.

    Raises:
        InputError: the address is not reachable, the cluster refuses the versions or the token of this process, or the
            process is connected to another cluster.
    """
    if "://" in address:
        rule = "a driver connects to a cluster at host:port, not at a URL (http:// is the address of its jobs)"
        raise InputError(Fault(where=address, rule=rule))
    check_token(where=address)
    where = address
    if address == "auto" and not ray.is_initialized():
        address = find_local_cluster()
        where = f"auto, {address}"
    if address != "auto":
        # Ray itself would wait for minutes for an address at which nothing listens.
        check_reachable(address, where=where)
        check_versions(get_cluster_versions(address, where=where), where=where)
    if ray.is_initialized():
        own = str(ray.get_runtime_context().gcs_address)
        if address not in ("auto", own):
            rule = f"this process is connected to the Ray cluster at {own} and cannot connect to another"
            raise InputError(Fault(where=where, rule=rule))
        yield
        return
    try:
        # The logs of the workers would interrupt the output of the command.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        # A failed connection leaves parts of a session behind.
        ray.shutdown()
        raise InputError(Fault(where=where, rule=f"cannot connect: {' '.join(str(error).split())}")) from None
    try:
        yield
    finally:
        ray.shutdown()


def find_local_cluster() -> str:
    """Return `host:port` of the cluster of this machine to which Ray connects at the address `auto`.

    Raises:
        InputError: there is none.
    """
    try:
        # Ray applies the same function when a driver connects; it warns of several clusters, of which it takes the latest.
        with silence_loggers("ray._private.services"):
            return str(canonicalize_bootstrap_address("auto"))
    except (ConnectionError, ValueError):
        rule = "no Ray cluster runs on this machine; another one's address is host:port"
        raise InputError(Fault(where="auto", rule=rule)) from None


def get_cluster_versions(address: str, *, where: str | None = None) -> tuple[str, str]:
    """Return the versions of Ray and Python that a cluster was started with.

    Args:
        address: of the cluster, `host:port`.
        where: start of the error message; None means the address.

    Raises:
        InputError: it refuses the token, or does not respond as a Ray cluster.
    """
    where = address if where is None else where
    # In a subprocess, because Ray ends its process if the token's file cannot be read.
    command = [sys.executable, "-c", HANDSHAKE, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANDSHAKE_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        rule = f"does not respond as a Ray cluster within {HANDSHAKE_TIMEOUT:.0f} s"
        raise InputError(Fault(where=where, rule=rule)) from None
    if done.returncode == REFUSED:
        raise InputError(Fault(where=where, rule=format_token_error()))
    words = done.stdout.split()
    if len(words) != 2:
        raise InputError(Fault(where=where, rule="does not respond as a Ray cluster"))
    return words[0], words[1]


def check_versions(versions: tuple[str, str], *, where: str) -> None:
    """Raise if a cluster's versions of Ray and Python differ from those of this process, by Ray's own rule.

    Args:
        versions: of the cluster, as `get_cluster_versions` returns them.
        where: start of the error message.

    Raises:
        InputError: the versions differ.
    """
    try:
        # Ray applies the same function when a driver connects.
        check_version_info({"ray_version": versions[0], "python_version": versions[1]}, where)
    except RuntimeError:
        own = f"Ray {ray.__version__} on Python {platform.python_version()}"
        rule = f"the cluster runs Ray {versions[0]} on Python {versions[1]}, this is {own}: install the same on both"
        raise InputError(Fault(where=where, rule=rule)) from None


def format_token_error(*, is_missing: bool = False) -> str:
    """Return the remedy for a token that a cluster refused, or for a missing one."""
    if is_missing or get_auth_mode() != "token":
        return f"the cluster requires a token and received none: {TOKEN_HINT}"
    return f"the cluster refuses this token: {TOKEN_HINT}"


def get_auth_mode() -> str:
    """Return Ray's authentication mode for this process by name, never the token itself."""
    return os.environ.get(MODE, "disabled").lower()


def check_token(*, where: str) -> None:
    """Raise if the authentication mode is `token` and there is none.

    Raises:
        InputError: the token's file is missing, unreadable or empty.
    """
    if get_auth_mode() != "token" or os.environ.get(TOKEN):
        return
    path = Path(os.path.expanduser(os.environ.get(TOKEN_PATH) or DEFAULT_TOKEN_PATH))
    try:
        is_empty = not path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        is_empty = True
    if is_empty:
        rule = f"{MODE} is token, but {path} contains none: {TOKEN_HINT}"
        raise InputError(Fault(where=where, rule=rule))


def check_reachable(address: str, *, where: str) -> None:
    """Raise if no process listens at an address, `host:port` or a URL.

    Raises:
        InputError: the address is malformed or not reachable.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        host = parts.hostname or ""
    except (ValueError, KeyError):
        rule = "is not an address; a cluster's is host:port, its jobs' http://host:8265"
        raise InputError(Fault(where=where, rule=rule)) from None
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        rule = f"not reachable ({error.strerror or error}); is the cluster up, and its port forwarded?"
        raise InputError(Fault(where=where, rule=rule)) from None
