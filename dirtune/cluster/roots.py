"""Probes of the roots of data and results by writing and reading: do all nodes reach the same files?

The driver writes a file into the results root; every node reads it and writes one of its own; the driver reads those. A
node that does not find the driver's file must not write: its own disk may have a folder of the same name, in which the
file would remain.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dirtune.cluster.checks import Check, group_by_value, list_names
from dirtune.data.store import list_datasets
from dirtune.io.storage import Storage

DRIVER = "driver"
NOT_SHARED = "does not find the file that the driver has written"
NOT_RETURNED = "has written a file that the driver does not find"
NO_DATA_SETS = "no data set"


@dataclass(frozen=True, kw_only=True)
class RootProbe:
    """A probe of the roots, as every node runs it."""

    data: Storage | None
    results: Storage | None
    folder: str
    """Folder of the probe's files in `results`."""
    content: bytes
    """Content of the probe's files."""

    @classmethod
    def create(cls, data: Storage | None, results: Storage | None) -> "RootProbe":
        """Return a probe with a folder and a content that no other one has."""
        # Unique, because several doctors may check one root at the same time.
        unique = uuid.uuid4().hex
        return cls(data=data, results=results, folder=f".dirtune-probe-{unique[:12]}", content=unique.encode())


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Result of a probe on one node."""

    fault: str | None = None
    """The reason why the node cannot use the results root, or None."""
    data: str | None = None
    """The data sets that the node finds, or the reason why it finds none; None if there is no data root."""


@contextlib.contextmanager
def write_driver_file(probe: RootProbe) -> Iterator[str | None]:
    """Keep the driver's file in the results root while the block runs; yield the reason if it cannot be written."""
    root = probe.results
    if root is None:
        yield None
        return
    # Object stores have no folders that would remain.
    is_new = root.is_local and not root.exists("")
    name, fault = f"{probe.folder}/{DRIVER}", None
    try:
        try:
            root.write(name, probe.content)
            if root.read(name) != probe.content:
                fault = "does not return the content that was written"
        except OSError as error:
            fault = _format_os_error(error)
        yield fault
    finally:
        with contextlib.suppress(OSError):
            root.remove(probe.folder)
            if is_new:
                # Fails, and is suppressed, if another process has written into the root since.
                Path(root.path()).rmdir()


def run_probe(probe: RootProbe, node: str) -> ProbeResult:
    """Run a probe on a node: read the driver's file, write one, and list the data sets.

    Args:
        probe: created by the driver.
        node: id of the node, which names its file.
    """
    return ProbeResult(fault=_exchange_files(probe, node), data=_list_data_sets(probe.data))


def check_results_root(
    probe: RootProbe, driver_fault: str | None, results: Mapping[str, ProbeResult], *, names: Mapping[str, str]
) -> Check:
    """Check that every node reads and writes the results root; to be called while the files of the probe exist.

    Args:
        probe: with a results root.
        driver_fault: as yielded by `write_driver_file`.
        results: by the id of the node.
        names: of the nodes, by id.
    """
    root = probe.results
    assert root is not None
    faults = {}
    for node, result in results.items():
        fault = result.fault
        if fault is None:
            fault = NOT_RETURNED
            with contextlib.suppress(OSError):
                if root.read(f"{probe.folder}/{node}") == probe.content:
                    continue
        faults[node] = fault
    if driver_fault is None and not faults:
        return Check(subject="results root", value=f"{root.path()}: written and read by every node")
    reasons = f"{list_names([names[node] for node in faults])} {'; '.join(dict.fromkeys(faults.values()))}"
    advice = "use a URL, such as s3://bucket/results, or a path that every node mounts and may write to"
    return Check(
        subject="results root", value=f"{root.path()}: {driver_fault or reasons}", state="problem", advice=advice
    )


def check_data_root(probe: RootProbe, results: Mapping[str, ProbeResult], *, names: Mapping[str, str]) -> Check:
    """Check that every node finds the data sets that the driver finds; arguments as `check_results_root`."""
    root, expected = probe.data, _list_data_sets(probe.data)
    assert root is not None
    found = {names[node]: result.data or "" for node, result in results.items()}
    if any(data_sets != expected for data_sets in found.values()):
        value = f"{root.path()}: {group_by_value({'the driver': expected or '', **found})}"
        advice = "use a URL, such as s3://bucket/data, or a path that every node mounts"
        return Check(subject="data root", value=value, state="problem", advice=advice)
    if expected == NO_DATA_SETS:
        value, advice = f"{root.path()}: {NO_DATA_SETS}", "`dirtune ingest NAME --data ROOT`"
        return Check(subject="data root", value=value, state="warning", advice=advice)
    return Check(subject="data root", value=f"{root.path()}: {expected}")


def _exchange_files(probe: RootProbe, node: str) -> str | None:
    """Read the driver's file and write that of the node; return the reason if this fails."""
    if probe.results is None:
        return None
    try:
        if probe.results.read(f"{probe.folder}/{DRIVER}") != probe.content:
            return NOT_SHARED
        probe.results.write(f"{probe.folder}/{node}", probe.content)
    except FileNotFoundError:
        return NOT_SHARED
    except OSError as error:
        return f"cannot use it: {_format_os_error(error)}"
    return None


def _list_data_sets(root: Storage | None) -> str | None:
    if root is None:
        return None
    try:
        return ", ".join(list_datasets(root)) or NO_DATA_SETS
    except OSError as error:
        return _format_os_error(error)


def _format_os_error(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
