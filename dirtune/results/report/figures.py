"""Figures of a report (`dirtune.results.figures`) as SVG elements of one page.

Identifiers must be unique in a page, and names shown in a figure must stay text. Each SVG file is therefore parsed, its
identifiers get a prefix, and it is serialized again.
"""

import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from dirtune.results.figures import plot

REPORT_FIGURES = {
    "regions": "Arms by shot region",
    "forest": "Differences to the reference, with intervals",
    "error_by_label": "Error against label",
    "training_curves": "Validation by epoch",
    "anchors": "Cosine similarity against label distance",
}
"""Titles of the kinds that every report draws, in this order. Not tsne, which takes minutes for many arms."""
SEARCH_FIGURES = {
    "history": "Search, trial by trial",
    "parallel": "Search, setting by setting",
    "importance": "Importance of the settings",
}
"""Titles of the kinds that reports of searches draw as well."""
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#")


@dataclass(frozen=True)
class Picture:
    """A figure, or the problem that prevented it; a figure may have warnings as its problem."""

    title: str
    svg: str = ""
    problem: str = ""


def draw_pictures(root: str | Path, study: str, settings: Sequence[str], *, is_search: bool) -> Iterator[Picture]:
    """Draw the figures of a study; a figure that cannot be drawn is a picture with its problem.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        settings: dotted paths, with a curve over each.
        is_search: also draw `SEARCH_FIGURES`.
    """
    for kind, title in {**REPORT_FIGURES, **(SEARCH_FIGURES if is_search else {})}.items():
        yield _draw_picture(root, study, title, kind, None)
    for setting in settings:
        yield _draw_picture(root, study, f"Metric against {setting}", "curve", setting)


def _draw_picture(root: str | Path, study: str, title: str, kind: str, x: str | None) -> Picture:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as messages:
        # Warnings, as of too few trials, are shown below the figure.
        warnings.simplefilter("always")
        try:
            file = plot(root, study, kind, x=x, output=Path(folder) / "figure.svg")
        # The report shows the problem instead of the figure.
        except ValueError as error:
            return Picture(title, problem=str(error))
        svg = prefix_identifiers(file.read_text(encoding="utf-8"), prefix=f"{kind}-{x}-")
        return Picture(title, svg=svg, problem=" ".join(str(one.message) for one in messages))


def prefix_identifiers(svg: str, *, prefix: str) -> str:
    """Return an SVG file as an element for a page, with a prefix for its identifiers and the references to them."""
    # Without registered names ElementTree would write every element as ns0:...
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    # Prefixes come from settings, whose names contain dots.
    safe = re.sub(r"[^\w-]", "-", prefix)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, _add_prefix(name, value, safe))
    return ElementTree.tostring(root, encoding="unicode")


def _add_prefix(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}{value}"
    if name in {"href", f"{{{XLINK}}}href"} and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    return _REFERENCE.sub(f"url(#{prefix}", value)
