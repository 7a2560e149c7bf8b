"""The beginning of a study on own data: ingest, and a study file to start from."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from dirtune.data.ingest import ingest
from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, LabelTransform, Manifest
from dirtune.study.starter import write_starter_study

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
TABLES = {".csv", ".tsv", ".txt", ".parquet"}
MOST_PIXELS = 224
"""Height and width of stored images, unless the first one is smaller."""


def init(
    source: str | Path,
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
        source: a csv, tsv or Parquet file, a folder of images with one, or the name of an ingested data set.
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
    path = Path(source).expanduser()
    if not path.exists():
        if path.suffix.lower() in TABLES or "/" in str(source):
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
    set_name = name or (re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-") if path.exists() else str(source))
    file = Path(output) if output is not None else Path(f"{set_name}_methods.yaml")
    # Before the ingest, which may take a while.
    if not file.absolute().parent.is_dir():
        raise InputError(Fault(where=str(file), rule="there is no folder to write it into"))
    if file.exists():
        raise InputError(Fault(where=str(file), rule="exists, and is not overwritten; --output names another file"))
    if path.exists():
        given = {"name": set_name, "label": label, "unit": unit, "group": group, "label_transform": transform}
        chosen = {key: value for key, value in given.items() if value is not None} | dict(options or {})
        chosen.setdefault("label_transform", "auto")
        manifest = _ingest_own(path, data, chosen, report)
        for note in manifest.notes:
            report(note)
    else:
        manifest = read_manifest(Storage.open(data), set_name)
    file.write_text(write_starter_study(manifest, name=file.stem, file=str(file)))
    return file


def choose_pipeline(path: Path) -> str:
    """Return the pipeline for a file or folder: `images` for a folder that has some, else `table`."""
    return "table" if _find_image(path) is None else "images"


def _ingest_own(path: Path, data: str | Path, options: dict[str, object], report: Callable[[str], None]) -> Manifest:
    if "label" not in options:
        raise InputError(Fault(where="init", key="label", rule="names the column of the label, and is needed"))
    image = _find_image(path)
    if image is not None and "image_size" not in options:
        from PIL import Image

        with Image.open(image) as opened:
            options["image_size"] = max(8, min(MOST_PIXELS, *opened.size))
    return ingest("table" if image is None else "images", root=data, raw=path, options=options, report=report)


def _find_image(path: Path) -> Path | None:
    return None if path.is_file() else next((each for each in path.rglob("*") if each.suffix.lower() in IMAGES), None)
