"""Storage failures of the driver: captured while Ray Tune runs, raised as one line afterwards.

The folder of a running sweep retries what fails for `RETRY_SECONDS` (`dirtune.io.storage`), so a short outage costs only the
wait. A worker whose retries fail loses its trial, which is retried like any trial that has lost its worker; storage that is
out of reach from one node alone therefore costs nothing either. A failure of the driver itself ends the sweep, because no
process is left to record how trials end. All records are complete, and `resume` runs the rest.

Ray Tune would replace an exception of its searcher and callbacks by one of its own, with a traceback as its text. So the
methods of the driver that Tune calls capture storage errors instead of raising them, and the driver starts nothing more.

Trade-off: the tables that a selection is computed from are not read again.
"""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.tuning.folder.lock import LockLostError


class HasStorageFailure(Protocol):
    """Object that keeps its first storage error."""

    storage_failure: Exception | None


_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound=HasStorageFailure)


def capture_storage_errors(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R | None]:
    """Wrap a method so that a storage error is kept in `storage_failure` (the first one) instead of raised."""

    @functools.wraps(method)
    def capture(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return method(self, *args, **kwargs)
        except (OSError, LockLostError) as error:
            self.storage_failure = self.storage_failure or error
            return None

    return capture


def raise_storage_failure(folder: Storage, failure: Exception | None) -> None:
    """Raise the storage error of a sweep, if there was one.

    Raises:
        InputError: with the folder and the reason.
        LockLostError: another driver has taken the study.
    """
    if failure is None:
        return
    if isinstance(failure, LockLostError):
        raise failure
    reason = str(getattr(failure, "strerror", None) or str(failure) or type(failure).__name__).splitlines()[0]
    rule = (
        f"cannot be written or read ({reason}), so the sweep has ended; "
        "all records are complete, and `dirtune resume` runs the rest"
    )
    raise InputError(Fault(where=folder.path(), rule=rule)) from None
