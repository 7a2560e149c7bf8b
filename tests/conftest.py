"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Ray's processes need the other core of two.
torch.set_num_threads(1)
# A shell that starts the tests in the background lets them and their subprocesses ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is imported stays: until `pytest_collection_finish` exempts it, every collection would visit it.
gc.disable()
# No test cuts the power, and thousands of small files are written: each would wait for the disk.
os.fsync = lambda descriptor: None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the shared Ray, and run the files with tests on a Ray first: they take longest."""
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
    on_ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in on_ray)


def pytest_collection_finish() -> None:
    """Exempt what was imported, millions of objects, from the garbage collections that begin now."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start one local Ray with two CPUs for the whole test session."""
    import ray

    from dirtune.data.session import start_two_processes

    # Ray would end a worker that is idle for a second, and start another one for the next test, which takes longer.
    system = {"enable_metrics_collection": False, "num_workers_soft_limit": 8}
    # Without "local" Ray would connect to a cluster that runs on this machine.
    with start_two_processes():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _system_config=system,
        )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _check_cpus_are_released(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that keeps a CPU of the shared Ray, instead of the later tests that would wait for it."""
    yield
    if "ray_session" not in request.fixturenames:
        return
    import ray

    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        if time.monotonic() > deadline:
            pytest.fail(f"CPUs are in use after the test: {ray.available_resources()} of {ray.cluster_resources()}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def digits(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root in which `digits` is ingested."""
    from dirtune.data.ingest import ingest

    root = tmp_path_factory.mktemp("data")
    ingest("digits", root=root)
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 4 MB: one version of digits fits, or the results of a small sweep; two versions do not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily, because a worker of Ray may still have a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
