"""What ends a sweep whose results cannot be written or read any longer, and the one sentence about it.

The folder of a running sweep is patient (`dirtune.io.storage`): what fails for `RETRY_SECONDS` at most costs nothing but the
wait. A worker that has waited in vain loses its trial, which is tried again like any that has lost its worker; so a place that
is out of reach from one node alone costs nothing either. It is the driver's own failing that ends the sweep, because nobody is
left to write down how trials end. What is recorded is whole, and `resume` runs the rest.

Ray Tune would make an error of its own, with a traceback as its text, of what is raised while it asks and tells. So the methods
of the driver that Tune calls raise nothing of this kind: they note it, and the driver has nothing more to do.

Trade-off: Optuna's storage is not asked a second time, since what its objects have noted of a step that failed half-way is not
known; nor are the tables that a selection is made from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from optuna.exceptions import StorageInternalError

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage

RETRY_SECONDS = 60.0


class Ending(Protocol):
    """Whoever has nothing more to do once there is an outage."""

    outage: Exception | None


_P = ParamSpec("_P")
_R = TypeVar("_R")
_E = TypeVar("_E", bound=Ending)


def noted_as_outage(method: Callable[Concatenate[_E, _P], _R]) -> Callable[Concatenate[_E, _P], _R | None]:
    """A method that notes the failing of the results' storage, in place of raising it; the first one is kept."""

    @functools.wraps(method)
    def noting(self: _E, /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return method(self, *args, **kwargs)
        except (OSError, StorageInternalError) as error:
            self.outage = self.outage or error
            return None

    return noting


def refuse_to_go_on(folder: Storage, outage: Exception | None) -> None:
    """End a sweep that had an outage.

    Raises:
        InputError: it had one.
    """
    if outage is None:
        return
    rule = (
        f"cannot be written or read ({_reason(outage)}), so the sweep has ended; "
        "what is recorded is whole, and `dirtune resume` goes on from there"
    )
    raise InputError(Fault(where=folder.path(), rule=rule)) from None


def _reason(error: BaseException) -> str:
    """Optuna's own words about a failed commit blame the data."""
    said = error.__cause__ or error
    text = getattr(said, "strerror", None) or str(said) or type(said).__name__
    return str(text).splitlines()[0]
