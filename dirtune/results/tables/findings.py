"""What a check of a written table finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A cell whose numbers the store does not support."""

    line: int
    """Of the text, from 1."""
    row: str
    column: str
    written: str
    now: str | None
    """What the store says; None: it has no such cell."""

    def __str__(self) -> str:
        now = "the store has no such row" if self.now is None else f"the store says {self.now}"
        return f"line {self.line}: {self.row}, {self.column}: {self.written}; {now}"


@dataclass(frozen=True)
class Check:
    """The outcome."""

    numbers: int
    """And verdicts that were compared."""
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        cells = len(self.findings)
        last = f"{self.numbers} numbers and verdicts checked, {cells or 'no'} cell{'s' * (cells != 1)} not supported"
        return "\n".join([*map(str, self.findings), last])
