"""A Ray session for as long as it is needed: the one that is there, or a quiet local one of our own.

A cluster at `RAY_ADDRESS` is joined by `dirtune.data.connect`, so that a wrong token, another version or a dead address is one
sentence within seconds. A session of our own has no dashboard, hence no port that takes jobs. Its other ports, which Ray 2.60
opens on all interfaces, ask for a token that Ray makes (in `~/.ray/auth_token`), unless `RAY_AUTH_MODE` says otherwise.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from dirtune.errors import Fault, InputError
from dirtune.process import set_environment, silence_loggers

IGNORED = "RAY_IGNORE_UNHANDLED_ERRORS"


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the Ray of this process, or of `RAY_ADDRESS`; if there is none, start a local one and end it afterwards.

    Raises:
        InputError: the cluster at `RAY_ADDRESS` cannot be joined, or no Ray starts here.
    """
    # A pass over a small set would log 20 lines, and one that fails 180 before the one sentence that says why. The errors
    # of tasks that nobody waits for any longer would come as tracebacks, after the sentence on what has ended.
    with silence_loggers("ray.data"), set_environment({IGNORED: "1"}), _session():
        yield


def _session() -> AbstractContextManager[None]:
    import ray

    if ray.is_initialized():
        return nullcontext()
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return _of_our_own()
    from dirtune.data.connect import joined

    return joined(address)


@contextmanager
def _of_our_own() -> Iterator[None]:
    import ray

    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of no narrower class where Ray's processes do not come up in time
        rule = f"does not start here: {str(error).splitlines()[0]} (`dirtune doctor` looks for the cause)"
        raise InputError(Fault(where="Ray", rule=rule)) from error
    try:
        yield
    finally:
        ray.shutdown()
