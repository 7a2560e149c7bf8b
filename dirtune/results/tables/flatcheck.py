"""Checking a CSV of ours, which says itself what it shows: every number and verdict of every line, at full precision."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.findings import Check, Finding
from dirtune.results.tables.flat import CSV_COLUMNS, as_csv
from dirtune.results.tables.judging import DEFAULT_MARGIN

_KEYS = ("study", "arm", "split", "selection", "metric", "region", "reference")
# Keys that earlier files lack
_ADDED = ("shots", "bin_width")
_NUMBERS = (
    "mean",
    "sd",
    "n",
    "difference",
    "difference_sd",
    "low",
    "high",
    "pairs",
    "p",
    "p_holm",
    "margin",
    "p_equivalence",
    "further_seeds",
    "configurations",
)
_WORDS = ("verdict",)
# Relative: another numpy may add up in another order
_TOLERANCE = 1e-9


def is_csv(text: str) -> bool:
    """Whether the text begins like a CSV of ours, of which columns may have been taken out."""
    header = text.split("\n", 1)[0].strip().split(",")
    return set(_KEYS) <= set(header) <= set(CSV_COLUMNS)


def check_csv(root: str | Path, text: str) -> Check:
    """Compare its numbers with what the store says now.

    Raises:
        InputError: a study, metric or reference is not in the store any more, or there are no lines.
    """
    lines = list(csv.DictReader(io.StringIO(text)))
    if not lines:
        raise InputError(Fault(where="check", rule="the CSV has no lines"))
    now: dict[tuple[str, ...], Mapping[str, str]] = {}
    for study, split, selection, reference, margin, shots, width in dict.fromkeys(map(_table_of, lines)):
        request = TableRequest(
            studies=(study,),
            split=split,
            selection=selection,
            reference=reference or None,
            margin=margin,
            metrics=tuple(dict.fromkeys(line["metric"] for line in lines if line["study"] == study)),
            shots=shots or None,
            bin_width=float(width) if width else None,
        )
        made = csv.DictReader(io.StringIO(as_csv(compare(root, request))))
        now |= {_key(line): line for line in made}
    findings = [
        Finding(number, " ".join(line[key] for key in _KEYS[:-1]), name, line[name], _said(now.get(_key(line)), name))
        for number, line in enumerate(lines, start=2)
        for name in (*_NUMBERS, *_WORDS)
        if line.get(name) and not _equal(line[name], _said(now.get(_key(line)), name))
    ]
    numbers = sum(bool(line.get(name)) for line in lines for name in _NUMBERS)
    return Check(numbers, tuple(findings))


def _table_of(line: Mapping[str, str]) -> tuple[str, ...]:
    margin = line.get("margin_asked") or DEFAULT_MARGIN
    asked = tuple(line[name] for name in ("study", "split", "selection", "reference"))
    return (*asked, margin, *(line.get(name, "") for name in _ADDED))


def _key(line: Mapping[str, str]) -> tuple[str, ...]:
    return (*(line[name] for name in _KEYS), *(line.get(name, "") for name in _ADDED))


def _said(line: Mapping[str, str] | None, name: str) -> str | None:
    return None if line is None else line[name]


def _equal(written: str, now: str | None) -> bool:
    if not now:
        return False
    if written == now:
        return True
    try:
        return math.isclose(float(written), float(now), rel_tol=_TOLERANCE)
    except ValueError:
        return False
