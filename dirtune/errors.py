"""The errors that dirtune raises on purpose.

`InputError` is for the user: what was given cannot be used. It carries every fault found, not only the first, and the
command line prints it without a traceback and exits with code 2. `TrialFailure` is for the record: one training run
could not go on, the sweep can.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with an input: where, which rule, what came, what is known."""

    where: str
    """A file, or a file and row."""
    rule: str
    """The rule that does not hold, as a sentence fragment."""
    key: str = ""
    """Dotted path inside `where`."""
    got: object = None
    """None: nothing came."""
    known: Sequence[str] = ()
    """The accepted names, if the rule is about a name."""

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        text = f"{place}: {self.rule}"
        if self.got is not None:
            text += f", got {self.got!r}"
        if self.known:
            text += f"; known: {', '.join(sorted(self.known))}"
            close = get_close_matches(str(self.got), list(self.known), n=1)
            text += f" (did you mean {close[0]!r}?)" if close else ""
        return text


class InputError(ValueError):
    """What the user gave cannot be used; `faults` holds everything that is wrong with it."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class TrialFailure(RuntimeError):
    """A training run cannot go on; the sweep records it as failed and continues."""


class NonFiniteLoss(TrialFailure):
    """A term of the loss became NaN or infinite."""

    def __init__(self, term: str, epoch: int, step: int) -> None:
        self.term, self.epoch, self.step = term, epoch, step
        super().__init__(f"loss term {term!r} is not finite at epoch {epoch}, step {step}")

    def __reduce__(self) -> tuple[type[NonFiniteLoss], tuple[str, int, int]]:
        return type(self), (self.term, self.epoch, self.step)


class OutOfMemory(TrialFailure):
    """A training step needed more memory than there was; `said` is one sentence that names its batch."""

    def __init__(self, said: str, epoch: int) -> None:
        self.said, self.epoch = said, epoch
        super().__init__(said)

    def __reduce__(self) -> tuple[type[OutOfMemory], tuple[str, int]]:
        return type(self), (self.said, self.epoch)
