"""Lists of face images: the rows of a CSV file, each a face or what is wrong with it.

The columns are `age`, `path` and, if the list decides the split, `split`:

    age,path,split
    31,AgeDB/11706_OliviaHussey_31_f.jpg,train
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from dirtune.errors import Fault, InputError
from dirtune.manifest import SPLITS, LabelSpec

HEADERS = (["age", "path"], ["age", "path", "split"])
PersonOf = Callable[[str], str | None]
"""Who is seen, by the path of the image; none: the path is not of the data set's form."""


class Face(NamedTuple):
    """One row of a list."""

    path: str
    """Of the image, relative to the raw folder; also the sample id."""
    age: float
    """Years."""
    person: str
    split: str | None
    """As published."""


def read_list(path: Path, label: LabelSpec, person_of: PersonOf) -> list[Face | Fault]:
    """The rows of a list, each a face or what is wrong with it.

    Args:
        label: says which ages there can be.
        person_of: says which paths there can be; nothing outside of the raw folder may be among them.

    Raises:
        InputError: there is no such file, or it is no such table.
    """
    lines = _lines(path)
    header = lines[0] if lines else []
    if header not in HEADERS:
        rule = "the first line must name the columns age,path or age,path,split"
        raise InputError(Fault(where=f"{path}:1", rule=rule, got=",".join(header)[:80]))
    return list(_rows(path, lines, label, person_of))


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))
    except FileNotFoundError:
        raise InputError(Fault(where=str(path), rule="no such file")) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(Fault(where=str(path), rule=f"must be CSV text ({error})")) from None


def _rows(path: Path, lines: list[list[str]], label: LabelSpec, person_of: PersonOf) -> Iterator[Face | Fault]:
    first_line: dict[str, int] = {}
    for number, cells in enumerate(lines[1:], start=2):
        where = f"{path}:{number}"
        row = _row(where, cells, len(lines[0]), label, person_of)
        if isinstance(row, Face) and first_line.setdefault(row.path, number) != number:
            rule = f"the image stands in line {first_line[row.path]} already"
            row = Fault(where=where, key="path", rule=rule, got=row.path)
        yield row


def _row(where: str, cells: list[str], columns: int, label: LabelSpec, person_of: PersonOf) -> Face | Fault:
    if len(cells) != columns:
        return Fault(where=where, rule=f"must have {columns} columns", got=len(cells))
    text, path = cells[:2]
    split = cells[2] if columns > 2 else None
    try:
        age = float(text)
    except ValueError:
        return Fault(where=where, key="age", rule="must be a number", got=text)
    if not label.low <= age <= label.high:
        rule = f"must be within {label.low:g}..{label.high:g}"
        return Fault(where=where, key="age", rule=rule, got=age)
    if split is not None and split not in SPLITS:
        return Fault(where=where, key="split", rule="unknown split", got=split, known=SPLITS)
    if (who := person_of(path)) is None:
        return Fault(where=where, key="path", rule="is no file name of this data set", got=path)
    return Face(path, age, who, split)
