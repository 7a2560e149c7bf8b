"""Exceptions of dirtune: `InputError` for invalid user input, `TrialFailure` for a training run that cannot continue.

An `InputError` carries every fault found, not only the first; the command line prints it without a traceback and exits
with code 2. A `TrialFailure` is recorded with its trial, and the sweep continues with the others.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate

# Characters, so that a message stays readable whatever a file contains
_LONGEST_PLACE, _LONGEST_VALUE, _LONGEST_NAMES, _LONGEST_FAULT = 400, 300, 500, 1500
_LONGEST_MESSAGE = 1900
# All but tabs and line breaks, which texts may have: characters that move the cursor of a terminal, change its title or
# colors, or the direction of the text
_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


NO_MEMORY = re.compile(
    r"out of memory|low on memory|can't allocate memory|ALLOC_FAILED"
    r"|unable to find (a valid cuDNN algorithm|an engine to execute)",
    re.IGNORECASE,
)
"""Text of out-of-memory errors without a type of their own: torch's of the CPU and of cuBLAS, Ray's, and that of a convolution for
none of whose algorithms a workspace is left."""
DEVICE_FAULT = re.compile(
    r"(CUDA|HIP) (driver )?error|CUDA driver|CUDA initialization|CUDNN_STATUS|cuDNN error|CUBLAS_STATUS|CUFFT_|No (CUDA|HIP) GPUs"
    r"|NVIDIA driver|miopenStatus"
    r"|Torch not compiled with CUDA|uncorrectable ECC|unhandled (cuda|system) error",
    re.IGNORECASE,
)
"""Text of errors of CUDA and ROCm, their drivers and libraries, and of GPUs that cannot be seen; torch has no types for most."""

LOST_PEER = re.compile(r"connection (closed|reset|refused)", re.IGNORECASE)
"""Text of errors of a lost rank, for which torch often raises a bare RuntimeError."""

_TRAINING_PACKAGES = {
    "fsspec",
    "jaxtyping",
    "nltk",
    "optuna",
    "pooch",
    "ray",
    "safetensors",
    "torch",
    "torchvision",
}


_SERVER_PACKAGES = {"starlette", "uvicorn"}


def is_of_machine(error: BaseException) -> bool:
    """Return True if an error is about memory, a GPU, a file or the network, and not about the code that it came through."""
    if isinstance(error, OSError | MemoryError) or type(error).__module__ == "torch.distributed":
        return True
    text = str(error) if isinstance(error, RuntimeError | AssertionError) else ""
    return any(found.search(text) for found in (NO_MEMORY, DEVICE_FAULT, LOST_PEER))


def escape_control_characters(text: str) -> str:
    """Return a text with its control characters as Python writes them, such as `\\x1b`."""
    return _CONTROL_CHARACTERS.sub(lambda found: repr(found.group())[1:-1], text)


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
        text = f"{_cut(place, _LONGEST_PLACE)}: {self.rule}"
        if self.got is not None:
            text += f", got {_cut(repr(self.got), _LONGEST_VALUE)}"
        if self.known:
            text += f"; known: {_list_names(sorted(self.known))}"
            # One name, as a list of guesses would repeat the known ones, in any case
            folded = {name.casefold(): name for name in self.known}
            close = get_close_matches(str(self.got)[:_LONGEST_VALUE].casefold(), folded, n=1)
            text += f" (did you mean {folded[close[0]]!r}?)" if close else ""
        return _cut(escape_control_characters(text), _LONGEST_FAULT)


def _cut(text: str, length: int) -> str:
    """Return a text without its middle if it is too long: both the begin and the end of a path or value tell it apart."""
    half = (length - 5) // 2
    return text if len(text) <= length else f"{text[:half]} ... {text[-half:]}"


def _list_names(names: Sequence[str]) -> str:
    """Return the names that fit into a message, and the number of the others."""
    for number, length in enumerate(accumulate(len(name) + 2 for name in names)):
        if length > _LONGEST_NAMES:
            return f"{', '.join(names[:number])} and {len(names) - number:,} more".removeprefix(" and ")
    return ", ".join(names)


class InputError(ValueError):
    """Invalid user input; `faults` holds every violated rule."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__(_join(self.faults))

    # Pickling calls the class with `args`, which is the text: these errors would lose their attributes between processes.
    def __reduce__(self) -> "tuple[type[InputError], tuple[tuple[Fault, ...]]]":
        return type(self), (self.faults,)


def _join(faults: Sequence[Fault]) -> str:
    """Return one line per fault, and the number of those that do not fit into a message."""
    lines, length = list[str](), 0
    for number, fault in enumerate(faults):
        line = str(fault)
        length += len(line) + 1
        if lines and length > _LONGEST_MESSAGE:
            return "\n".join([*lines, f"and {len(faults) - number:,} more faults"])
        lines.append(line)
    return "\n".join(lines)


def name_missing_package(error: ModuleNotFoundError) -> str | None:
    """Return what to install if the missing package belongs to the extra `train`, without which results can be read, or `serve`."""
    package = (error.name or "").partition(".")[0]
    if package in _SERVER_PACKAGES:
        return f"this needs the package {package}: `pip install 'dirtune[serve]'`"
    if package not in _TRAINING_PACKAGES:
        return None
    return f"this needs the package {package}, which training and ingesting use: `pip install 'dirtune[train]'`"


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
