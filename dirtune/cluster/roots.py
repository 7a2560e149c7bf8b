"""Whether the roots of data and results are one place for all nodes: found out by writing and reading, not by their names.

The driver puts a file into the results root, every node reads it and puts one beside it, the driver reads those. A node
that does not see the driver's file writes none: a folder of the same name on a disk of its own would stay behind there.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dirtune.cluster.checks import Observation, by_value, named
from dirtune.data.store import list_datasets
from dirtune.io.storage import Storage

DRIVER = "driver"
UNSEEN = "does not see what the driver has written"
MISSING = "has written what the driver does not see"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What every node is asked to try, as the driver sees it."""

    data: Storage | None
    results: Storage | None
    folder: str
    """Of the probe's files below `results`."""
    secret: bytes
    """That the driver's file holds."""

    @classmethod
    def of(cls, data: Storage | None, results: Storage | None) -> Probe:
        mark = uuid.uuid4().hex
        folder = f".dirtune-probe-{mark[:12]}"
        return cls(data=data, results=results, folder=folder, secret=mark.encode())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one node says of the roots."""

    fault: str | None = None
    """Why it cannot use the results root."""
    data: str | None = None
    """The data sets that it sees, or why it sees none."""


@contextlib.contextmanager
def probing(probe: Probe) -> Iterator[str | None]:
    """The driver's part: its file is there while the block runs; gives why it cannot be written, if so."""
    root = probe.results
    if root is None:
        yield None
        return
    is_new = root.is_local and not root.exists("")
    try:
        yield _tried(root, probe)
    finally:
        with contextlib.suppress(OSError):
            root.remove(probe.folder)
            if is_new:
                # What has come into it meanwhile keeps it
                Path(root.path()).rmdir()


def answer(probe: Probe, node: str) -> Answer:
    """A node's part: read what the driver wrote, write beside it, and name the data sets there are."""
    return Answer(fault=_echoed(probe, node), data=_data_sets(probe.data))


def results_root(
    probe: Probe, own_fault: str | None, answers: Mapping[str, Answer], *, names: Mapping[str, str]
) -> Observation:
    """What is to be said of the results root; while the files of `probe` are still there.

    Args:
        answers: by the id of the node that gave them.
        names: of the nodes, by id.
    """
    root = probe.results
    assert root is not None
    faults = {id_: found.fault or _unseen(root, probe, id_) for id_, found in answers.items()}
    wrong = [names[id_] for id_, fault in faults.items() if fault]
    if own_fault is None and not wrong:
        value = f"{root.path()}: written and read by every node"
        return Observation(subject="results root", value=value)
    reasons = "; ".join(dict.fromkeys(fault for fault in faults.values() if fault))
    value = f"{root.path()}: {own_fault or f'{named(wrong)} {reasons}'}"
    advice = "use a URL, such as s3://bucket/results, or a path that every node mounts and may write to"
    return Observation(subject="results root", value=value, state="problem", advice=advice)


def data_root(probe: Probe, answers: Mapping[str, Answer], *, names: Mapping[str, str]) -> Observation:
    """What is to be said of the data root: every node sees the data sets that the driver sees."""
    root, own = probe.data, _data_sets(probe.data)
    assert root is not None
    seen = {names[id_]: found.data or "" for id_, found in answers.items()}
    if any(sets != own for sets in seen.values()):
        value = f"{root.path()}: {by_value({'the driver': own or '', **seen})}"
        advice = "use a URL, such as s3://bucket/data, or a path that every node mounts"
        return Observation(subject="data root", value=value, state="problem", advice=advice)
    if own == NOTHING:
        value, advice = f"{root.path()}: no data set", "`dirtune ingest NAME --data ROOT`"
        return Observation(subject="data root", value=value, state="warning", advice=advice)
    return Observation(subject="data root", value=f"{root.path()}: {own}")


NOTHING = "no data set"


def _tried(root: Storage, probe: Probe) -> str | None:
    name = f"{probe.folder}/{DRIVER}"
    try:
        root.write(name, probe.secret)
        return None if root.read(name) == probe.secret else "does not give back what was written"
    except OSError as error:
        return _said(error)


def _echoed(probe: Probe, node: str) -> str | None:
    if probe.results is None:
        return None
    try:
        if probe.results.read(f"{probe.folder}/{DRIVER}") != probe.secret:
            return UNSEEN
        probe.results.write(f"{probe.folder}/{node}", probe.secret)
    except FileNotFoundError:
        return UNSEEN
    except OSError as error:
        return f"cannot use it: {_said(error)}"
    return None


def _unseen(root: Storage, probe: Probe, node: str) -> str | None:
    with contextlib.suppress(OSError):
        if root.read(f"{probe.folder}/{node}") == probe.secret:
            return None
    return MISSING


def _data_sets(root: Storage | None) -> str | None:
    if root is None:
        return None
    try:
        return ", ".join(list_datasets(root)) or NOTHING
    except OSError as error:
        return _said(error)


def _said(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
