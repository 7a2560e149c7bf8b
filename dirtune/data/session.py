"""A Ray session for as long as it is needed: the one that is there, or a quiet local one of our own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

IGNORED = "RAY_IGNORE_UNHANDLED_ERRORS"


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the Ray of this process, or of `RAY_ADDRESS`; if there is none, start a local one and end it afterwards."""
    import ray
    import ray.data  # sets up its logger, so that the level below stays

    logger = logging.getLogger("ray.data")
    level, started = logger.level, not ray.is_initialized()
    # A pass over a small set would log 20 lines, and one that fails 180 before the one sentence that says why.
    logger.setLevel(logging.CRITICAL)
    unhandled = os.environ.get(IGNORED)
    # The errors of tasks that nobody waits for any longer would come as tracebacks, after the sentence on what has ended.
    os.environ[IGNORED] = "1"
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if started:
            ray.shutdown()
        if unhandled is None:
            os.environ.pop(IGNORED, None)
