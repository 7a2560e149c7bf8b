"""What a figure is asked for: one value for all kinds, of which each reads what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.results.tables.table import ArmTable, arm_table, check_known


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """A figure of a study; the fields are the options of `dirtune.results.figures.plot`."""

    root: str | Path
    study: str
    x: str | None = None
    y: str | None = None
    metric: str | None = None
    region: str = "all"
    split: str = "test"
    selection: str = "best_val"
    reference: str | None = None
    arms: tuple[str, ...] = ()
    each: str | None = None
    method: str = "ped_anova"
    relative: bool = False

    def table(self) -> ArmTable:
        """The study's table: every arm by every region, with the differences to the reference.

        Raises:
            InputError: as `arm_table`.
        """
        return arm_table(
            self.root,
            self.study,
            metric=self.metric,
            split=self.split,
            selection=self.selection,
            reference=self.reference,
        )

    def one_of(self, known: tuple[str, ...]) -> str:
        """What `each` says, by default the first of the known ones.

        Raises:
            InputError: it is none of them.
        """
        each = self.each or known[0]
        check_known("each", each, known)
        return each

    def one_arm(self) -> str | None:
        """The arm of a figure that shows one; none: it has a default.

        Raises:
            InputError: several were asked for.
        """
        if len(self.arms) > 1:
            raise InputError(Fault(where="arms", rule="this figure shows one arm", got=self.arms))
        return next(iter(self.arms), None)

    def nothing(self, rule: str) -> InputError:
        """That there is nothing to draw, and why."""
        return InputError(Fault(where=f"study {self.study}", rule=rule))


def source_of(table: ArmTable) -> str:
    """The beginning of a caption: study, split, selection."""
    return f"{table.study}, {table.split} split, {table.description}."
