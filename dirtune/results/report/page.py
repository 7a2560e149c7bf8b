"""The report of a study as one HTML file that needs nothing else: no network, no other file.

Names, errors and settings come from anybody's study, so that every text is escaped by the template engine, and a content
security policy lets nothing be loaded and no script run but the one whose hash it has.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dirtune.io.storage import Storage
from dirtune.results.report.content import content
from dirtune.results.report.figures import pictures
from dirtune.results.tables.footer import footer
from dirtune.results.tables.layout import grids_of


def report(root: str | Path, study: str, *, output: Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        output: the HTML file; none: `reports/<study>.html`.

    Raises:
        InputError: there is no such study, its trials saw different data, or a file is damaged.
    """
    file = output or Path("reports") / f"{study}.html"
    Storage.at(file.parent).write(file.name, page(root, study).encode())
    return file


def page(root: str | Path, study: str) -> str:
    """The text of the file; errors as of `report`."""
    found = content(root, study)
    drawn = pictures(root, study, found.swept, is_search=found.is_search)
    script = _part("sorting.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html")).render(
        content=found,
        grids=grids_of(found.table),
        notes=footer(found.table),
        pictures=[(picture, Markup(picture.svg)) for picture in drawn],
        style=Markup(_part("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").strip()
