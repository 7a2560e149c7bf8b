"""The report of a study as one self-contained HTML file, without network or other files.

Names, errors and settings are untrusted texts: the template engine escapes them all, and a content security policy blocks
every request and every script but the one whose hash it contains.
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import BaseLoader, ChoiceLoader, Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from dirtune.io.files import make_parent
from dirtune.io.storage import Storage
from dirtune.results.records.names import check_known
from dirtune.results.records.store import read_once
from dirtune.results.report.content import read_content
from dirtune.results.report.figures import draw_pictures
from dirtune.results.tables.render import footer, grids


def write_report(root: str | Path, study: str, *, output: Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        output: the HTML file; None means `reports/<study>.html`.

    Raises:
        InputError: the study is unknown, its trials have different data, or a file is damaged.
    """
    file = output or Path("reports") / f"{study}.html"
    check_known("type of file", file.suffix, (".html", ".htm"))
    make_parent(file)
    Storage.open(file.parent).write(file.name, render_page(root, study).encode())
    return file


@read_once()
def render_page(root: str | Path, study: str) -> str:
    """Return the HTML of a report; raises as `write_report`."""
    content = read_content(root, study)
    pictures = draw_pictures(root, study, content.varied, is_search=content.is_search)
    script = _read_part("sorting.js")
    return (
        make_environment()
        .get_template("page.html")
        .render(
            content=content,
            grids=grids.make_grids(content.table),
            notes=footer.make_footer(content.table),
            pictures=[(picture, Markup(picture.svg)) for picture in pictures],
            style=Markup(_read_part("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def make_environment(*loaders: BaseLoader) -> Environment:
    """Return an environment with the templates of the report, whose parts other pages use, too.

    Args:
        loaders: of further templates, which come first.
    """
    # An undefined name in a template is an error instead of an empty text.
    return Environment(
        loader=ChoiceLoader([*loaders, FunctionLoader(_read_part)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read_part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").strip()
