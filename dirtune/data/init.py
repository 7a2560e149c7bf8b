"""The beginning of a study on own data: ingest, and a study file to start from."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from dirtune.data.ingest import ingest, make_name
from dirtune.data.sources import SUFFIXES, find_image
from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, LabelTransform
from dirtune.study.starter import write_starter_study


def init(
    source: Any,
    *,
    label: str | None = None,
    name: str | None = None,
    unit: str | None = None,
    transform: LabelTransform | Literal["auto"] | None = None,
    group: str | None = None,
    options: Mapping[str, object] | None = None,
    output: str | Path | None = None,
    data: str | Path = "data",
    report: Callable[[str], None] = print,
) -> Path:
    """Ingest own data, and write a study of common methods with settings that suit them; return its file.

    Args:
        source: own data, as `ingest` reads them, or the name of an ingested data set.
        label: column of the label, which own data need.
        name: of the data set; None for that of the file or folder.
        unit: of the label, for display.
        transform: of the label: log, log1p or none; None is auto, which is log for positive labels over orders of magnitude.
        group: column of groups that must not cross splits, such as the person.
        options: further settings of the pipeline, `table` or `images`.
        output: the study file; None for `NAME_methods.yaml` in the current folder.
        data: root of the ingested data sets.
        report: receives the outcome of the ingest, and its notes.

    Raises:
        InputError: the study file exists, there is no such source, the data cannot be ingested, or they have no methods to
            begin with.
    """
    is_own = _is_own(source)
    if not is_own:
        if Path(source).suffix.lower() in (*SUFFIXES, ".txt") or "/" in str(source):
            raise InputError(Fault(where=str(source), rule="no such file or folder"))
        # A data set that has been ingested keeps the settings of its ingest.
        settings = {
            "label": label,
            "name": name,
            "unit": unit,
            "transform": transform,
            "group": group,
            **(options or {}),
        }
        if unused := [key for key, value in settings.items() if value is not None]:
            root = Storage.open(data)
            known = [each for each in root.list_folders() if root.exists(f"{each}/{MANIFEST}")]
            rule = f"is no file or folder, and an ingested data set takes no {', '.join(unused)}"
            raise InputError(Fault(where="init", rule=rule, got=str(source), known=known))
    set_name = choose_set_name(source, name)
    file = Path(output) if output is not None else Path(f"{set_name}_methods.yaml")
    # Before the ingest, which may take a while.
    if not file.absolute().parent.is_dir():
        raise InputError(Fault(where=str(file), rule="there is no folder to write it into"))
    if file.exists():
        raise InputError(Fault(where=str(file), rule="exists, and is not overwritten; --output names another file"))
    if is_own:
        given = {"label_transform": transform or "auto", **(options or {})}
        manifest = ingest(
            source, name=set_name, label=label, unit=unit, group=group, root=data, options=given, report=report
        )
        for note in manifest.notes:
            report(note)
    else:
        manifest = read_manifest(Storage.open(data), set_name)
    text = write_starter_study(manifest, name=choose_study_name(file.stem), file=str(file))
    # As a whole, or a second try would find a part of it on a disk that was full
    Storage.open(file.absolute().parent).write(file.name, text.encode())
    return file


def choose_set_name(source: Any, name: str | None = None) -> str:
    """Return the name of the data set of a source: the given one, or that of the file, folder or ingested set.

    Raises:
        InputError: data in memory have no name.
    """
    if name is not None:
        return name
    if not isinstance(source, str | Path):
        raise InputError(Fault(where="init", key="name", rule="names the data set, and is needed for data in memory"))
    return make_name(source) if _is_own(source) else str(source)


def choose_study_name(stem: str) -> str:
    """Return the name of a study for the name of its file."""
    return re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_-") or "study"


def choose_pipeline(path: Path) -> str:
    """Return the pipeline for a file or folder: `images` for a folder that has some, else `table`."""
    return "table" if find_image(path) is None else "images"


def _is_own(source: Any) -> bool:
    """Return True if a source is to be ingested, False if it may be the name of a set that has been."""
    return not isinstance(source, str | Path) or "://" in str(source) or Path(os.path.expanduser(source)).exists()
