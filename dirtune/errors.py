"""Exceptions of dirtune: `InputError` for invalid user input, `TrialFailure` for a training run that cannot continue.

An `InputError` carries every fault found, not only the first; the command line prints it without a traceback and exits
with code 2. A `TrialFailure` is recorded with its trial, and the sweep continues with the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One violated rule: its place in the input, the value received, and the accepted names."""

    where: str
    """A file, or a file and row."""
    rule: str
    """The violated rule, as a sentence fragment without a subject."""
    key: str = ""
    """Dotted path inside `where`."""
    got: object = None
    """The value received; None if the fault is not about a value."""
    known: Sequence[str] = ()
    """The accepted names, if the rule is about a name."""

    def __str__(self) -> str:
        place = f"{self.where}: {self.key}" if self.key else self.where
        text = f"{place}: {self.rule}"
        if self.got is not None:
            text += f", got {self.got!r}"
        if self.known:
            text += f"; known: {', '.join(sorted(self.known))}"
            # One name: a list of guesses would repeat the known ones.
            close = get_close_matches(str(self.got), list(self.known), n=1)
            text += f" (did you mean {close[0]!r}?)" if close else ""
        return text


class InputError(ValueError):
    """Invalid user input; `faults` holds every violated rule."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    # Pickling calls the class with `args`, which is the text: these errors would lose their attributes between processes.
    def __reduce__(self) -> "tuple[type[InputError], tuple[tuple[Fault, ...]]]":
        return type(self), (self.faults,)


class TrialFailure(RuntimeError):
    """A training run cannot continue; the sweep records it as failed and continues with the next."""


class NonFiniteLoss(TrialFailure):
    """A term of the loss became NaN or infinite."""

    def __init__(self, term: str, epoch: int, step: int) -> None:
        self.term, self.epoch, self.step = term, epoch, step
        super().__init__(f"loss term {term!r} is not finite at epoch {epoch}, step {step}")

    def __reduce__(self) -> "tuple[type[NonFiniteLoss], tuple[str, int, int]]":
        return type(self), (self.term, self.epoch, self.step)


class OutOfMemory(TrialFailure):
    """A training step did not fit into memory; `message` names its batch."""

    def __init__(self, message: str, epoch: int) -> None:
        self.message, self.epoch = message, epoch
        super().__init__(message)

    def __reduce__(self) -> "tuple[type[OutOfMemory], tuple[str, int]]":
        return type(self), (self.message, self.epoch)
