"""Writing of a figure: fonts for letters that the default one lacks, one sentence for those that no font has."""

import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from dirtune.errors import Fault, InputError
from dirtune.io.files import make_parent
from dirtune.io.storage import Storage

LARGEST_DRAWN = 1e300
"""Largest absolute value of a figure: the arithmetic of axes with larger ones overflows."""
# Its glyphs are boxes with the name of a script.
_NO_FONT = "Last Resort"
_MISSING_GLYPH = re.compile(r"Glyph (\d+) ")


def check_drawable(name: str, data: Any) -> None:
    """Check the numbers of a figure's data; those that are infinite are a warning.

    Raises:
        InputError: a number is too large to be drawn.
    """
    sizes = [abs(number) for number in _list_numbers(data)]
    largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
    if largest > LARGEST_DRAWN:
        rule = f"can be drawn with numbers up to {LARGEST_DRAWN:.0e}"
        raise InputError(Fault(where=f"figure {name}", rule=rule, got=f"{largest:.3g}"))
    if math.inf in sizes:
        warnings.warn(f"the figure {name} has infinite values, which have no place on its axes", stacklevel=3)


def _list_numbers(data: Any) -> Iterator[float]:
    if isinstance(data, float | np.floating):
        yield float(data)
    elif isinstance(data, np.ndarray) and data.dtype.kind == "f" and data.size:
        yield from data.ravel().tolist()
    elif is_dataclass(data):
        yield from _list_numbers([getattr(data, field.name) for field in fields(data)])
    elif isinstance(data, Mapping):
        yield from _list_numbers([*data.keys(), *data.values()])
    elif isinstance(data, Collection) and not isinstance(data, str | bytes | np.ndarray):
        for each in data:
            yield from _list_numbers(each)


def write_figure(draw: Callable[[], Figure], output: Path, *, dpi: int) -> None:
    """Draw a figure into a file, with fonts of this machine for letters that the default font lacks.

    Args:
        draw: makes the figure; called again where other fonts are needed.
        output: file, whose folder is created.
        dpi: of images, and of rasterized parts of a vector file.

    Raises:
        InputError: the output cannot be written.
    """
    content, missing = _render(draw, output.suffix, dpi)
    if missing:
        families, unknown = _find_families(missing)
        if families:
            with mpl.rc_context({"font.family": [*mpl.rcParams["font.family"], *families]}):
                content, unknown = _render(draw, output.suffix, dpi)
        # An SVG file has its texts as texts, and the fonts are those of its reader.
        if unknown and output.suffix != ".svg":
            warnings.warn(
                f"no font of this machine has {''.join(sorted(unknown))}, which the figure shows as boxes: install one, such "
                "as Noto Sans CJK, or write an .svg file",
                stacklevel=3,
            )
    # After drawing, so that a figure with nothing to draw leaves no empty folder behind.
    make_parent(output)
    Storage.open(output.parent).write(output.name, content)


def _render(draw: Callable[[], Figure], suffix: str, dpi: int) -> tuple[bytes, set[str]]:
    """Return the content of a figure's file, and its letters that no font has."""
    content = io.BytesIO()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        draw().savefig(content, format=suffix[1:], dpi=dpi, bbox_inches="tight", pad_inches=0.03)
    missing = set()
    for each in found:
        if glyph := _MISSING_GLYPH.match(str(each.message)):
            missing.add(chr(int(glyph[1])))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return content.getvalue(), missing


def _find_families(letters: Collection[str]) -> tuple[list[str], set[str]]:
    """Return font families that have these letters, and the letters that none has."""
    families, unknown = [], set(letters)
    known = [entry.fname for entry in font_manager.fontManager.ttflist]
    # matplotlib remembers the fonts of its first start, so that later ones are searched for.
    for file in dict.fromkeys([*known, *sorted(font_manager.findSystemFonts())]):
        try:
            font = FT2Font(file)
        # Not every font is one that matplotlib can read.
        except (OSError, RuntimeError):
            continue
        own = {letter for letter in unknown if font.get_char_index(ord(letter))}
        if own and not font.family_name.startswith(_NO_FONT):
            font_manager.fontManager.addfont(file)
            families.append(font.family_name)
            unknown -= own
        if not unknown:
            break
    return families, unknown
