"""Request of a figure: one value with the options of all kinds, of which each kind reads its own."""

from dataclasses import dataclass
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.results.records.names import check_known
from dirtune.results.tables.table import ArmTable, make_arm_table


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """Request of a figure; the fields are the options of `dirtune.results.figures.plot`."""

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

    def build_table(self) -> ArmTable:
        """Return the study's table: every arm by every region, with the differences to the reference.

        Raises:
            InputError: as `make_arm_table`.
        """
        return make_arm_table(
            self.root,
            self.study,
            metric=self.metric,
            split=self.split,
            selection=self.selection,
            reference=self.reference,
        )

    def choose_each(self, known: tuple[str, ...]) -> str:
        """Return the value of `each`, by default the first known one.

        Raises:
            InputError: it is unknown.
        """
        each = self.each or known[0]
        check_known("each", each, known)
        return each

    def get_arm(self) -> str | None:
        """Return the arm of a figure that shows one, or None for its default.

        Raises:
            InputError: several arms are requested.
        """
        if len(self.arms) > 1:
            raise InputError(Fault(where="arms", rule="this figure shows one arm", got=self.arms))
        return next(iter(self.arms), None)

    def make_error(self, rule: str) -> InputError:
        """Build the error for a figure that has nothing to draw."""
        return InputError(Fault(where=f"study {self.study}", rule=rule))


def format_source(table: ArmTable) -> str:
    """Return the beginning of a caption: study, split, selection."""
    return f"{table.study}, {table.split} split, {table.description}."
