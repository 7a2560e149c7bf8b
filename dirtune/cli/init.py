"""Command that begins a study on own data: ingest, and a study file to start from."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dirtune.cli.app import DataRoot, app, show
from dirtune.cli.arguments import parse_assignments

if TYPE_CHECKING:
    from dirtune.manifest import Manifest

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
MOST_PIXELS = 224
"""Height and width of stored images, unless the first one is smaller."""


@app.command()
def init(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A csv, tsv or Parquet file, a folder of images with one, or an ingested data set."
        ),
    ],
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set. Default: that of the file or folder.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the label, for display.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of groups that must not cross splits, such as the person.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Further option of the pipeline, as name=value. Repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The study file. Default: NAME_methods.yaml.")] = None,
    data: DataRoot = "data",
) -> None:
    """Ingest own data and write a study of common methods, with settings that suit the data."""
    from dirtune.data.store import read_manifest
    from dirtune.errors import Fault, InputError
    from dirtune.io.storage import Storage
    from dirtune.study.starter import write_starter_study

    path, root = Path(source).expanduser(), Storage.open(data)
    is_own = path.exists()
    set_name = (name or re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-") or "data") if is_own else source
    file = output or Path(f"{set_name}_methods.yaml")
    if file.exists():
        raise InputError(Fault(where=str(file), rule="exists, and is not overwritten; --output names another file"))
    if is_own:
        options = {"name": set_name, "label": label, "unit": unit, "group": group}
        manifest = _ingest(path, data, options, option or [])
        show(*manifest.notes)
    else:
        given = {"--label": label, "--name": name, "--unit": unit, "--group": group, "--option": option}
        if unused := [flag for flag, value in given.items() if value]:
            known = [each for each in root.list_folders() if root.exists(f"{each}/manifest.json")]
            rule = f"is no file or folder, and an ingested data set takes no {', '.join(unused)}"
            raise InputError(Fault(where="init", rule=rule, got=source, known=known))
        manifest = read_manifest(root, source)
    text = write_starter_study(manifest, name=file.stem, file=str(file))
    file.write_text(text)
    show(
        f"study: {file}",
        "next:",
        f"  dirtune inspect {manifest.name}",
        f"  dirtune sweep {file}",
        f"  dirtune table {file.stem}",
    )


def _ingest(path: Path, root: str, options: dict[str, Any], extra: list[str]) -> "Manifest":
    """Ingest a table, or a folder of images with a table of their labels."""
    from dirtune.data import ingest
    from dirtune.errors import Fault, InputError

    if options["label"] is None:
        raise InputError(Fault(where="init", key="--label", rule="names the column of the label, and is needed"))
    first = None if path.is_file() else next((each for each in path.rglob("*") if each.suffix.lower() in IMAGES), None)
    pipeline = "table" if first is None else "images"
    chosen = {key: value for key, value in options.items() if value is not None}
    chosen |= parse_assignments(extra, "--option", ingest.load_pipeline(pipeline).Options)
    if first is not None and "image_size" not in chosen:
        from PIL import Image

        with Image.open(first) as image:
            chosen["image_size"] = max(8, min(MOST_PIXELS, *image.size))
    return ingest.ingest(pipeline, root=root, raw=path, options=chosen)
