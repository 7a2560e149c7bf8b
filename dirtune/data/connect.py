"""Joining a cluster as its driver, or being told in one sentence, within seconds, why that is not possible.

Ray 2.60 waits for minutes for an address at which no cluster listens, writes to standard error for half a minute when its token is
refused, and ends the process when a token's file cannot be read. So a process of its own, which may end as it likes,
asks the cluster for its versions first. A token is never printed: neither here nor by Ray.
"""

from __future__ import annotations

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
from ray._private.utils import check_version_info
from ray.exceptions import RayError

from dirtune.errors import Fault, InputError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
DEFAULT_TOKEN_PATH = "~/.ray/auth_token"
REACH_SECONDS = 3.0
HELLO_SECONDS = 15.0
REFUSED = 3
HELLO = f"""
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
"""Prints the versions of Ray and Python that a cluster was started with."""
HOW = f"set {MODE}=token, and {TOKEN_PATH} to a file with the cluster's token (or {TOKEN} to the token)"


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Be a driver of the cluster at `host:port`, or `auto` for the one of this machine, while the block runs.

    A process that has joined it already stays in it.

    Raises:
        InputError: nobody is there, the cluster refuses this process by its versions or its token, or the process has joined
            another one.
    """
    if "://" in address:
        rule = "a driver joins a cluster at host:port, not at a URL (its jobs are for http://)"
        raise InputError(Fault(where=address, rule=rule))
    check_token(where=address)
    if address != "auto":
        reach(address, where=address)
        compare(versions_of(address), where=address)
    if ray.is_initialized():
        own = str(ray.get_runtime_context().gcs_address)
        if address not in ("auto", own):
            rule = f"this process has joined the Ray of {own}, and cannot join another"
            raise InputError(Fault(where=address, rule=rule))
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        ray.shutdown()
        said = " ".join(str(error).split())
        raise InputError(Fault(where=address, rule=f"cannot join: {said}")) from None
    try:
        yield
    finally:
        ray.shutdown()


def versions_of(address: str) -> tuple[str, str]:
    """The Ray and the Python that a cluster was started with.

    Raises:
        InputError: it refuses the token, or does not answer as a cluster does.
    """
    command = [sys.executable, "-c", HELLO, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HELLO_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        rule = f"does not answer as a Ray cluster does, within {HELLO_SECONDS:.0f} s"
        raise InputError(Fault(where=address, rule=rule)) from None
    if done.returncode == REFUSED:
        raise InputError(Fault(where=address, rule=token_refusal()))
    words = done.stdout.split()
    if len(words) != 2:
        raise InputError(Fault(where=address, rule="does not answer as a Ray cluster does"))
    return words[0], words[1]


def compare(there: tuple[str, str], *, where: str) -> None:
    """See that a cluster has the Ray and the Python of this process, as exactly as Ray itself asks for it.

    Raises:
        InputError: it has others.
    """
    try:
        check_version_info({"ray_version": there[0], "python_version": there[1]}, where)
    except RuntimeError:
        here = f"Ray {ray.__version__} on Python {platform.python_version()}"
        rule = f"the cluster runs Ray {there[0]} on Python {there[1]}, this is {here}: install the same here or there"
        raise InputError(Fault(where=where, rule=rule)) from None


def token_refusal(*, is_missing: bool = False) -> str:
    """What to do when a cluster does not take this process's token, or has been shown none."""
    if is_missing or authentication() != "token":
        return f"the cluster asks for a token and got none: {HOW}"
    return f"the cluster refuses this token: {HOW}"


def authentication() -> str:
    """Ray's authentication mode for this process, by name; where it is `token`, the token itself is nobody's business."""
    return os.environ.get(MODE, "disabled").lower()


def check_token(*, where: str) -> None:
    """See that there is a token, if one is to be shown.

    Raises:
        InputError: the file that should hold it cannot be read, or there is none.
    """
    if authentication() != "token" or os.environ.get(TOKEN):
        return
    path = Path(os.environ.get(TOKEN_PATH) or DEFAULT_TOKEN_PATH).expanduser()
    try:
        is_empty = not path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        is_empty = True
    if is_empty:
        rule = f"{MODE} is token, but {path} holds none: {HOW}"
        raise InputError(Fault(where=where, rule=rule))


def reach(address: str, *, where: str) -> None:
    """See that somebody listens at an address, `host:port` or a URL.

    Raises:
        InputError: nobody does, or it is no address.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        host = parts.hostname or ""
    except (ValueError, KeyError):
        rule = "is no address; a cluster's is host:port, its jobs' http://host:8265"
        raise InputError(Fault(where=where, rule=rule)) from None
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        rule = f"nobody answers there ({error.strerror or error}); is the cluster up, and its port forwarded?"
        raise InputError(Fault(where=where, rule=rule)) from None
