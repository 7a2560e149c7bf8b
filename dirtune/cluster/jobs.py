"""Commands that run on a cluster as jobs: submitted by Ray's Jobs API, followed by their log, ended by their exit code.

A job's working directory is sent with it: the sources of dirtune as they are here, so that the cluster's image needs only
dirtune's dependencies, and the code version of this checkout, so that records name it. It is the first place where the
job's processes look for modules. Only text is transferred: the Python version of this machine may differ from that of the
cluster, its Ray version must not.
"""

import asyncio
import contextlib
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

from dirtune.data.connect import check_reachable, check_token, format_token_error
from dirtune.errors import Fault, InputError
from dirtune.process import set_environment
from dirtune.training.provenance import get_code_version

POLL_SECONDS = 1.0
STOPPED = 143
"""Exit code of a job that was stopped: Ray ends it by SIGTERM."""
_VERBOSE_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    client: JobSubmissionClient
    address: str
    id: str

    @property
    def follow_command(self) -> str:
        """The shell command that shows its log from the beginning, on any machine that reaches the address."""
        return f"ray job logs --follow --address {self.address} {self.id}"


def submit_job(
    client: JobSubmissionClient, entrypoint: str, *, address: str, files: Mapping[str, str], with_sources: bool
) -> Job:
    """Start a shell command on a cluster.

    Args:
        client: as returned by `connect`.
        entrypoint: the command.
        address: of the cluster's jobs, for error messages and `Job.follow_command`.
        files: texts to write into the working directory, by name.
        with_sources: send the sources of dirtune as well.

    Raises:
        InputError: the cluster refuses the job.
    """
    with tempfile.TemporaryDirectory(prefix="dirtune-job-") as folder:
        write_working_directory(Path(folder), files, with_sources=with_sources)
        with _convert_errors(address):
            # Ray uploads the folder during this call, so that it may be removed afterwards.
            id_ = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": folder})
    return Job(client, address, id_)


def follow(job: Job, write: Callable[[str], None]) -> int:
    """Write a job's log from its beginning until the job ends.

    Returns:
        Its exit code; 143 if it was stopped.

    Raises:
        InputError: the connection is lost; the job may continue.
        KeyboardInterrupt: Ctrl-C; the job continues.
    """
    # Imported here, because only Ray's job client depends on it.
    import aiohttp

    async def write_log() -> None:
        async for lines in job.client.tail_job_logs(job.id):
            write(lines)

    try:
        asyncio.run(write_log())
        # The log may end some time before the job's status is final.
        while not (details := job.client.get_job_info(job.id)).status.is_terminal():
            time.sleep(POLL_SECONDS)
    except (OSError, RuntimeError, aiohttp.ClientError):
        rule = f"lost the connection to job {job.id}, which may continue; `{job.follow_command}`"
        raise InputError(Fault(where=job.address, rule=rule)) from None
    return get_exit_code(details)


def get_exit_code(details: JobDetails) -> int:
    """Return the exit code of a job that has ended."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    # A stopped job may have no exit code of its driver.
    if details.status == JobStatus.STOPPED:
        return STOPPED
    return details.driver_exit_code or 1


def connect(address: str) -> JobSubmissionClient:
    """Return a client of a cluster's jobs, at `http://host:8265`.

    Raises:
        InputError: the address is not reachable, is not a Ray cluster or one of another version, or refuses the token.
    """
    if not address.startswith(("http://", "https://")):
        rule = "the address of a cluster's jobs begins with http:// or https://"
        raise InputError(Fault(where="--address", rule=rule, got=address))
    check_token(where=address)
    check_reachable(address, where=address)
    # Ray's clients log packing, sending and closing at INFO, each logger at a level of its own.
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Ray's client prefers these variables to the address that it is given.
    with _convert_errors(address), set_environment(dict.fromkeys(_ADDRESS_VARIABLES)):
        client = JobSubmissionClient(address)
    # Received when the client was created; the public `get_version` has the version of the interface only.
    cluster_version = client._server_ray_version
    if cluster_version != ray.__version__:
        rule = f"the cluster runs Ray {cluster_version}, this client {ray.__version__}: install one version on both"
        raise InputError(Fault(where=address, rule=rule))
    return client


def write_working_directory(folder: Path, files: Mapping[str, str], *, with_sources: bool) -> None:
    """Write the working directory of a job: texts by name and, if asked, the sources of dirtune."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    if not with_sources:
        return
    # In a checkout the pipelines and the studies are links, which are copied as what they lead to.
    shutil.copytree(Path(__file__).parents[1], folder / "dirtune", ignore=shutil.ignore_patterns("__pycache__"))
    # `importlib.metadata` finds a package by this folder, with this checkout's version, without an installation.
    metadata = folder / "dirtune-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dirtune\nVersion: {get_code_version()}\n")


@contextlib.contextmanager
def _convert_errors(address: str) -> Iterator[None]:
    """Raise InputError with one line for the many kinds of errors that Ray's client raises."""
    try:
        yield
    except AuthenticationError as error:
        # Any other message means that the given token is wrong.
        is_missing = "Authentication required" in str(error)
        raise InputError(Fault(where=address, rule=format_token_error(is_missing=is_missing))) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        # The last line, because the message may be the server's traceback.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        rule = f"does not answer as the jobs of a Ray cluster do ({lines[-1]})"
        raise InputError(Fault(where=address, rule=rule)) from None
