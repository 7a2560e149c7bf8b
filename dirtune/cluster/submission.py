"""`dirtune submit`: validate a study here, submit it to a cluster, and sweep it there as a job.

The job is two commands that a user could type on the cluster: `dirtune doctor`, which checks that every node reaches the
roots, and, if there is no problem, `dirtune sweep`. Submitting the same study again completes it, as sweeping does.
"""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from dirtune.cluster.jobs import Job, connect, submit_job
from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST
from dirtune.plugins import FilePlugin, find_obstacle
from dirtune.registry import Plugin
from dirtune.study.files import StudyFile, StudySource, StudyText, find_study, load_plugins
from dirtune.study.resolve import resolve
from dirtune.tuning.plan import autoscaling, checks

STUDY, CLUSTER, PLUGINS = "study.yaml", "cluster.yaml", "plugins"
"""Files in the working directory of the job, and the folder of its plug-ins."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A cluster, and how commands run there."""

    address: str
    """Address of its jobs: http://host:8265."""
    python: str = "python"
    """Python executable, as the shell of the head finds it."""
    installed: bool = False
    """Run the dirtune that is installed there instead of sending the sources of this one."""


def submit(
    study: StudySource,
    *,
    address: str,
    data: str,
    results: str,
    python: str = "python",
    installed: bool = False,
    expect: str | None = None,
    plugins: Sequence[str | Path] = (),
    allow_plugins: bool = False,
) -> Job:
    """Sweep a study on a cluster, as a job that continues when this process has ended.

    Args:
        study: a file, one of its variants as `FILE:VARIANT`, the name of a shipped study, the content of a file as a
            mapping, or a `dirtune.Study`.
        address: of the cluster's jobs, `http://host:8265`.
        data: root of the ingested data sets, as every node reaches it: a URL or an absolute path.
        results: root of the results, as every node reaches it.
        python: Python executable of the cluster, as the shell of its head finds it.
        installed: run the dirtune that is installed there; its version must be the same as here.
        expect: the cluster's file, of which only the node types are sent (`dirtune.tuning.plan.autoscaling`).
        plugins: as for `dirtune.sweep`; files that the study uses are sent with it.
        allow_plugins: as for `dirtune.sweep`.

    Raises:
        InputError: with every fault of the study and the roots, before anything is sent; or the cluster is not reachable
            or refuses the job.
    """
    destination = Destination(address=address, python=python, installed=installed)
    types = autoscaling.read_node_types(expect)
    faults = [*find_root_faults("--data", data), *find_root_faults("--results", results)]
    file = find_study(study)
    sent = {f"{PLUGINS}/{each.name}": each.source for each in load_plugins(file, plugins, allow=allow_plugins)}
    used, study_faults = _check_study(file, data)
    faults += study_faults
    sent |= {f"{PLUGINS}/{each.name}": each.source for each in used if isinstance(each, FilePlugin)}
    if faults:
        raise InputError(faults)
    # The study and the roots are validated before the cluster is contacted.
    client = connect(destination.address)
    return submit_job(
        client,
        build_entrypoint(destination, data=data, results=results, expect=bool(types), plugins=list(sent)),
        address=destination.address,
        with_sources=not destination.installed,
        files={STUDY: file.read_yaml()} | ({CLUSTER: autoscaling.format_node_types(types)} if types else {}) | sent,
    )


def submit_command(destination: Destination, verb: str, *arguments: str, roots: Mapping[str, str]) -> Job:
    """Run a command of dirtune on a cluster, such as `status`, for roots that this machine does not reach.

    Args:
        destination: the cluster.
        verb: the command.
        arguments: of the command.
        roots: by option, such as `--results`.

    Raises:
        InputError: as `submit`.
    """
    if faults := [fault for option, root in roots.items() for fault in find_root_faults(option, root)]:
        raise InputError(faults)
    client = connect(destination.address)
    options = [part for pair in roots.items() for part in pair]
    return submit_job(
        client,
        build_command(destination, verb, *arguments, *options),
        address=destination.address,
        files={},
        with_sources=not destination.installed,
    )


def build_entrypoint(
    destination: Destination, *, data: str, results: str, expect: bool = False, plugins: Sequence[str] = ()
) -> str:
    """Return the shell command of a study's job: check the roots on every node, then sweep.

    Args:
        destination: the cluster.
        data: root of the data sets.
        results: root of the results.
        expect: the job's working directory has the node types of the cluster.
        plugins: files of plug-ins in the job's working directory.
    """
    roots = ("--data", data, "--results", results)
    # Sent sources have this version by themselves.
    dirtune = ("--dirtune", version("dirtune")) if destination.installed else ()
    node_types = ("--expect", CLUSTER) if expect else ()
    doctor = build_command(destination, "doctor", *roots, *dirtune)
    files = [part for name in plugins for part in ("--plugin", name)]
    return f"{doctor} && {build_command(destination, 'sweep', STUDY, *roots, *node_types, *files)}"


def build_command(destination: Destination, verb: str, *arguments: str) -> str:
    """Return a command of dirtune as a shell command for a cluster, with every argument quoted."""
    return f"{destination.python} -m dirtune.cli {shlex.join([verb, *arguments])}"


def find_root_faults(option: str, root: str) -> Iterator[Fault]:
    """Find the faults of a root that a cluster cannot use or should not receive.

    Args:
        option: the option that the root comes from, for error messages.
        root: a path or URL.
    """
    parts = urlsplit(root) if "://" in root else None
    if parts is None and not PurePosixPath(root).is_absolute():
        rule = "must be a URL or an absolute path that every node reaches: a job's own folder is temporary"
        yield Fault(where=option, rule=rule, got=root)
    if parts is not None and (parts.username or parts.password):
        rule = "must not hold keys, which the cluster's list of jobs would show; give them to its nodes as environment"
        yield Fault(where=option, rule=rule)


def _check_study(file: StudyFile | StudyText, data: str) -> tuple[Sequence[Plugin], Sequence[Fault]]:
    """Return the plug-ins that a study uses, and its faults, against its data only if this machine reaches them."""
    try:
        study = resolve(file.read_plain(), where=file.where)
        # Data that only the cluster reaches are checked there.
        with contextlib.suppress(OSError):
            root, name = Storage.open(data), checks.get_data_set(study)
            if root.exists(f"{name}/{MANIFEST}"):
                manifest = read_manifest(root, name)
                checks.check_study(checks.resolve_from_data(study, manifest), manifest)
    except InputError as error:
        return (), error.faults
    obstacles = [fault for plugin in study.plugins if (fault := find_obstacle(plugin)) is not None]
    return study.plugins, obstacles
