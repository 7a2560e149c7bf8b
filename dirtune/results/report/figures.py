"""The figures of a report as SVG elements that can stand together in one page.

They are those of `dirtune.results.figures`. In one page identifiers must not clash, and whatever names a figure shows must
stay text; so each file is parsed, its identifiers get a prefix of its own, and it is written anew.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from dirtune.results.figures import plot

FIGURES = {
    "regions": "Arms by shot region",
    "forest": "Differences to the reference, with intervals",
    "error_by_label": "Error against label",
    "training_curves": "Validation by epoch",
    "anchors": "Cosine similarity against label distance",
}
"""Kinds and their titles: tried for every study, in this order. A t-SNE of many arms would take minutes."""
OF_SEARCH = {
    "history": "Search, trial by trial",
    "parallel": "Search, setting by setting",
    "importance": "What decides the search",
}
"""Those of studies that search settings."""
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#")


@dataclass(frozen=True)
class Picture:
    """A figure, or why there is none or no good one."""

    title: str
    svg: str = ""
    problem: str = ""


def pictures(root: str | Path, study: str, settings: Sequence[str], *, is_search: bool) -> Iterator[Picture]:
    """The figures of a study; what cannot be drawn is a picture with its problem.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        settings: a curve over each of these dotted paths.
        is_search: whether it has those `OF_SEARCH`.
    """
    for kind, title in {**FIGURES, **(OF_SEARCH if is_search else {})}.items():
        yield _picture(root, study, title, kind, None)
    for setting in settings:
        yield _picture(root, study, f"Metric against {setting}", "curve", setting)


def _picture(root: str | Path, study: str, title: str, kind: str, x: str | None) -> Picture:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            file = plot(root, study, kind, x=x, output=Path(folder) / "figure.svg")
        except ValueError as error:  # a report has a hole there, and the rest of it
            return Picture(title, problem=str(error))
        svg = inline(file.read_text(encoding="utf-8"), prefix=f"{kind}-{x}-")
        return Picture(title, svg=svg, problem=" ".join(str(one.message) for one in said))


def inline(svg: str, *, prefix: str) -> str:
    """An SVG file as an element of a page, its identifiers prefixed."""
    # Without these names every element would be written as ns0:...
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    safe = re.sub(r"[^\w-]", "-", prefix)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, _prefixed(name, value, safe))
    return ElementTree.tostring(root, encoding="unicode")


def _prefixed(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}{value}"
    if name in {"href", f"{{{XLINK}}}href"} and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    return _REFERENCE.sub(f"url(#{prefix}", value)
