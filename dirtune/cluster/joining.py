"""Joining a cluster as its driver, or being told in one sentence, within seconds, why that is not possible.

Ray waits for minutes for an address at which nobody listens, and ends the process when a token file cannot be read; both
are looked at first. What it then refuses by itself, other versions or another token, is said anew in one sentence. A
token is never printed: neither here nor by Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import ray
from ray.exceptions import AuthenticationError

from dirtune.errors import Fault, InputError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
DEFAULT_TOKEN_PATH = "~/.ray/auth_token"
REACH_SECONDS = 3.0
HOW = f"set {MODE}=token, and {TOKEN_PATH} to a file with the cluster's token (or {TOKEN} to the token)"


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Be a driver of the cluster at `host:port`, or `auto` for the one of this machine, while the block runs.

    A process that has joined one already stays in it.

    Raises:
        InputError: nobody is there, or the cluster refuses this process: by its versions or its token.
    """
    if ray.is_initialized():
        yield
        return
    if "://" in address:
        rule = "a driver joins a cluster at host:port, not at a URL (its jobs are for http://)"
        raise InputError(Fault(where=address, rule=rule))
    check_token(where=address)
    if address != "auto":
        reach(address, where=address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        ray.shutdown()
        raise InputError(Fault(where=address, rule=refusal(error))) from None
    try:
        yield
    finally:
        ray.shutdown()


def refusal(error: Exception) -> str:
    """Why Ray does not let this process in, as one sentence."""
    if isinstance(error, AuthenticationError):
        return token_refusal(str(error))
    words = " ".join(str(error).split())
    if "Version mismatch" in words:
        return f"other versions than the cluster's: {words.partition('Version mismatch: ')[2]}"
    return f"cannot join: {words}"


def token_refusal(said: str) -> str:
    """What to do about the token, by what Ray says of it."""
    if authentication() != "token":
        return f"the cluster asks for a token and got none: {HOW}"
    is_wrong = "invalid" in said.lower() or "incorrect" in said.lower()
    return f"the cluster refuses this token: {HOW}" if is_wrong else f"no token: {HOW}"


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
