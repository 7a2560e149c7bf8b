"""Fixtures that all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # one test process beside Ray's on two cores
# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray with two CPUs for the whole test session."""
    import ray

    # local: not one that somebody else has started on this machine.
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def digits(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which `digits` is ingested."""
    from dirtune.data.ingest import ingest

    root = tmp_path_factory.mktemp("data")
    ingest("digits", root=root)
    return root
