"""`dirtune submit`: a study is checked here, sent to a cluster, and swept there as a job.

The job is two commands that one could type on the cluster: `dirtune doctor`, which finds out whether every node reaches
the roots, and, if it sees no problem, `dirtune sweep`. Submitting the same study again completes it, as sweeping does.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from dirtune.cluster.jobs import Job, connect, send
from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST
from dirtune.study.files import StudyFile, find_study
from dirtune.study.resolve import resolve
from dirtune.tuning.plan.autoscaling import node_types, written
from dirtune.tuning.plan.checks import check, data_set_of
from dirtune.tuning.search.secondary import check_secondary

STUDY, CLUSTER = "study.yaml", "cluster.yaml"


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A cluster, and what commands use there."""

    address: str
    """Of its jobs: http://host:8265."""
    python: str = "python"
    """As the head's shell finds it."""
    installed: bool = False
    """Run the dirtune that is installed there, not the one of here."""


def submit(
    study: str,
    *,
    address: str,
    data: str,
    results: str,
    python: str = "python",
    installed: bool = False,
    expect: str | None = None,
) -> Job:
    """Send a study to a cluster, to be swept there; it goes on when this process has ended.

    Args:
        study: a file, one of its variants as `FILE:VARIANT`, or the name of a shipped study.
        address: of the cluster's jobs, `http://host:8265`.
        data: root of the ingested data sets, as every node of the cluster reaches it: a URL or an absolute path.
        results: root of the results, likewise.
        python: the Python of the cluster, as the shell of its head finds it.
        installed: use the dirtune that is installed there; its version must be that of here.
        expect: the cluster's file, which is sent along with its node types alone (`dirtune.tuning.plan.autoscaling`).

    Raises:
        InputError: with everything that is wrong with the study and the roots, before anything is sent; or the cluster
            cannot be reached, or does not take it.
    """
    destination = Destination(address=address, python=python, installed=installed)
    types = node_types(expect)
    faults = [*root_faults("--data", data), *root_faults("--results", results)]
    file = find_study(study)
    faults += _faults_of(file, data)
    if faults:
        raise InputError(faults)
    client = connect(destination.address)
    return send(
        client,
        entrypoint(destination, data=data, results=results, expect=bool(types)),
        address=destination.address,
        with_sources=not destination.installed,
        files={STUDY: file.text()} | ({CLUSTER: written(types)} if types else {}),
    )


def run_there(destination: Destination, verb: str, *words: str, roots: Mapping[str, str]) -> Job:
    """Run another verb of the command line on a cluster, such as `status`, where its roots are in reach.

    Args:
        roots: by option; errors as `submit`.
    """
    if faults := [fault for option, root in roots.items() for fault in root_faults(option, root)]:
        raise InputError(faults)
    client = connect(destination.address)
    options = [part for pair in roots.items() for part in pair]
    return send(
        client,
        command(destination, verb, *words, *options),
        address=destination.address,
        files={},
        with_sources=not destination.installed,
    )


def entrypoint(destination: Destination, *, data: str, results: str, expect: bool = False) -> str:
    """The job of a study: the roots are tried from every node before the sweep begins.

    Args:
        expect: the job comes with the node types of the cluster.
    """
    roots = ("--data", data, "--results", results)
    same = ("--dirtune", version("dirtune")) if destination.installed else ()
    doctor = command(destination, "doctor", *roots, *same)
    further = ("--expect", CLUSTER) if expect else ()
    return f"{doctor} && {command(destination, 'sweep', STUDY, *roots, *further)}"


def command(destination: Destination, verb: str, *arguments: str) -> str:
    """A verb of the command line as a shell command there."""
    return f"{destination.python} -m dirtune.cli {shlex.join([verb, *arguments])}"


def root_faults(option: str, root: str) -> Iterator[Fault]:
    """Why a root means nothing on a cluster, or should not be told to it."""
    parts = urlsplit(root) if "://" in root else None
    if parts is None and not PurePosixPath(root).is_absolute():
        rule = "must be a URL or an absolute path that every node reaches: a job's own folder is temporary"
        yield Fault(where=option, rule=rule, got=root)
    if parts is not None and (parts.username or parts.password):
        rule = "must not hold keys, which the cluster's list of jobs would show; give them to its nodes as environment"
        yield Fault(where=option, rule=rule)


def _faults_of(file: StudyFile, data: str) -> Sequence[Fault]:
    """What is wrong with a study, by itself and, if they are in reach from here, with its data."""
    try:
        study = resolve(file.raw(), where=file.where)
        # What the cluster reaches need not be in reach from here
        with contextlib.suppress(OSError):
            root, name = Storage.at(data), data_set_of(study)
            if root.exists(f"{name}/{MANIFEST}"):
                manifest = read_manifest(root, name)
                check(study, manifest)
                check_secondary(study, manifest)
    except InputError as error:
        return error.faults
    return ()
