"""Steps of a stage: which batches of which pass over the shuffled training rows an epoch has.

An epoch is one pass over the rows unless the recipe gives it a number of steps; its steps then continue where those of the
epoch before ended, within a pass. Everything follows from the numbers of epoch and step, so that a resumed run needs no
state, and passes have numbers of their own: the order of the rows and their views are derived from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dirtune.config import TrialConfig
from dirtune.errors import Fault
from dirtune.training.stages import Stage, list_stages


class PassPart(NamedTuple):
    """Consecutive steps of one pass."""

    number: int
    """Number of the pass in the run, from 1."""
    steps: range
    """Steps of the pass, from 0."""
    ends_pass: bool
    """True if the last step of the pass is among them."""


@dataclass(frozen=True)
class Passes:
    """Passes of a stage over a training split."""

    stage: Stage
    rows: int
    """Number of rows of the training split."""

    @property
    def used_rows(self) -> int:
        """Number of rows in the steps of a pass."""
        recipe = self.stage.recipe
        last = self.rows % recipe.batch_size
        drops_single = recipe.last_batch == "drop_single" and last == 1 and self.stage.has_terms
        return self.rows - last if recipe.last_batch == "drop" or drops_single else self.rows

    @property
    def steps_per_pass(self) -> int:
        """Number of steps of a pass."""
        return -(-self.used_rows // self.stage.recipe.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return self.stage.recipe.steps_per_epoch or self.steps_per_pass

    @property
    def per_epoch(self) -> float:
        """Number of passes in an epoch."""
        return self.steps_per_epoch / self.steps_per_pass

    def count_begun(self, epochs: int) -> int:
        """Return the number of passes that the first epochs of the stage begin."""
        return -(-epochs * self.steps_per_epoch // self.steps_per_pass)

    def iter_parts(self, epoch: int, *, skip: int = 0) -> Iterator[PassPart]:
        """Yield the parts of passes that are an epoch of the run, counted from 1, without its first `skip` steps."""
        step = (epoch - 1 - self.stage.start) * self.steps_per_epoch + skip
        left = self.steps_per_epoch - skip
        while left:
            number, first = divmod(step, self.steps_per_pass)
            stop = min(first + left, self.steps_per_pass)
            yield PassPart(self.stage.passes_before + number + 1, range(first, stop), stop == self.steps_per_pass)
            step, left = step + stop - first, left - (stop - first)

    def count_rows(self, epoch: int) -> int:
        """Return the number of rows in the steps of an epoch of the run; a row counts once per pass."""
        size = self.stage.recipe.batch_size
        return sum(
            min(part.steps.stop * size, self.used_rows) - part.steps.start * size for part in self.iter_parts(epoch)
        )

    def count_rows_of_step(self, epoch: int, step: int) -> int:
        """Return the number of rows in a step of an epoch, both counted from 1."""
        size = self.stage.recipe.batch_size
        in_pass = ((epoch - 1 - self.stage.start) * self.steps_per_epoch + step - 1) % self.steps_per_pass
        return min(size, self.used_rows - in_pass * size)


def find_batch_faults(config: TrialConfig, rows: int, *, where: str, key: str = "") -> Iterator[Fault]:
    """Yield a fault for every stage whose passes have no step.

    Args:
        config: the trial's configuration.
        rows: number of rows of the training split.
        where: source of the configuration, for errors.
        key: place of the configuration in its source, for errors.
    """
    for stage in list_stages(config):
        if not Passes(stage, rows).used_rows:
            size, place = stage.recipe.batch_size, f"{key}.recipe.last_batch".removeprefix(".")
            rule = f"leaves no step: the only batch has {rows} training rows of at most {size}"
            yield Fault(where=where, key=place, rule=rule, got=config.recipe.last_batch)
