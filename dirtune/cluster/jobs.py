"""Commands that run on a cluster as jobs: sent by Ray's Jobs API, followed by their log, ended by their exit code.

What is sent is a folder: the sources of dirtune as they are here, so that the cluster's image needs only what dirtune
depends on, and the code version of this checkout, so that records name it. It becomes the working directory of the job
and the first place where the job's processes look for modules. Only text crosses over: the Python of this machine
need not be that of the cluster, while its Ray must be.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from dirtune.data.connect import check_token, reach, token_refusal
from dirtune.errors import Fault, InputError
from dirtune.process import set_environment
from dirtune.training.provenance import code_version

PACKAGES = ("dirtune", "pipelines", "search_spaces")
LOOK_SECONDS = 1.0
STOPPED = 143
"""The exit code of a job that was stopped: Ray ends it by SIGTERM."""
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_OTHER_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True)
class Job:
    """A command that was sent to a cluster."""

    client: JobSubmissionClient
    address: str
    id: str

    @property
    def follow_command(self) -> str:
        """What shows its log again, from any shell that reaches the address."""
        return f"ray job logs --follow --address {self.address} {self.id}"


def send(
    client: JobSubmissionClient, entrypoint: str, *, address: str, files: Mapping[str, str], with_sources: bool
) -> Job:
    """Start a shell command on a cluster.

    Args:
        files: texts to put into its working directory, by name.
        with_sources: send dirtune itself as well.

    Raises:
        InputError: the cluster does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="dirtune-job-") as folder:
        pack(Path(folder), files, with_sources=with_sources)
        with _refused(address):
            id_ = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": folder})
    return Job(client, address, id_)


def follow(job: Job, write: Callable[[str], None]) -> int:
    """Write a job's log until it ends, from its beginning.

    Returns:
        Its exit code; 143 if it was stopped.

    Raises:
        InputError: the contact is lost; the job may go on.
        KeyboardInterrupt: Ctrl-C; the job goes on.
    """
    with _lost(job):
        asyncio.run(_tail(job, write))
        while not (details := job.client.get_job_info(job.id)).status.is_terminal():
            time.sleep(LOOK_SECONDS)
    return exit_code(details)


def exit_code(details: JobDetails) -> int:
    """The exit code of a job that has ended."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return STOPPED
    return details.driver_exit_code or 1


def connect(address: str) -> JobSubmissionClient:
    """A client of the jobs of a cluster, at `http://host:8265`.

    Raises:
        InputError: nobody is there, it is no Ray, one of another version, or it refuses this client's token.
    """
    if not address.startswith(("http://", "https://")):
        rule = "the address of a cluster's jobs begins with http:// or https://"
        raise InputError(Fault(where="--address", rule=rule, got=address))
    check_token(where=address)
    reach(address, where=address)
    # Of packing, sending and closing, at a level of their own
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Ray's client would prefer these variables to the address it is given.
    with _refused(address), set_environment(dict.fromkeys(_OTHER_ADDRESSES)):
        client = JobSubmissionClient(address)
    # Asked for when the client was made; the public `get_version` tells that of the interface only.
    there = client._server_ray_version
    if there != ray.__version__:
        rule = f"the cluster runs Ray {there}, this client {ray.__version__}: install the same here or there"
        raise InputError(Fault(where=address, rule=rule))
    return client


def pack(folder: Path, files: Mapping[str, str], *, with_sources: bool) -> None:
    """Fill the folder that is sent."""
    for name, text in files.items():
        (folder / name).write_text(text)
    if not with_sources:
        return
    for package in PACKAGES:
        source = Path(importlib.import_module(package).__path__[0])
        shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    # By it `importlib.metadata` finds a package that nobody has installed, with this checkout's version.
    about = folder / "dirtune-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dirtune\nVersion: {code_version()}\n")


async def _tail(job: Job, write: Callable[[str], None]) -> None:
    async for lines in job.client.tail_job_logs(job.id):
        write(lines)


@contextlib.contextmanager
def _refused(address: str) -> Iterator[None]:
    """Whatever keeps a cluster from taking a request, as one sentence; a job's client raises many kinds of errors."""
    try:
        yield
    except AuthenticationError as error:
        # Else what was shown is wrong
        is_missing = "Authentication required" in str(error)
        raise InputError(Fault(where=address, rule=token_refusal(is_missing=is_missing))) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        # Perhaps the server's traceback
        said = str(error).strip().splitlines() or [type(error).__name__]
        rule = f"does not answer as the jobs of a Ray cluster do ({said[-1]})"
        raise InputError(Fault(where=address, rule=rule)) from None


@contextlib.contextmanager
def _lost(job: Job) -> Iterator[None]:
    import aiohttp

    try:
        yield
    except (OSError, RuntimeError, aiohttp.ClientError):
        rule = f"lost contact with job {job.id}, which may go on; `{job.follow_command}`"
        raise InputError(Fault(where=job.address, rule=rule)) from None
