"""Journal of a study folder: one line per step of its searches, in Optuna's own format, from which Optuna replays them.

The journal of a sweep in an object store is a local file that is copied back when its driver ends; if the driver is killed, the
copy is lost, and anybody may delete or damage the file. The records remain: a journal that Optuna cannot replay is therefore
replaced by an empty one, which is filled from them (`dirtune.tuning.folder.optuna_storage`).
"""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from dirtune.io.storage import RETRY_SECONDS, Storage
from dirtune.tuning.folder import layout
from dirtune.tuning.folder.lock import LockLostError


@contextlib.contextmanager
def open_journal(folder: Storage) -> Iterator[JournalStorage]:
    """Yield the Optuna storage of a sweep, which holds the folder's lock; a remote folder's is written back at exit."""
    if folder.is_local:
        yield _replay(folder)
        return
    # Objects cannot be appended to
    with tempfile.TemporaryDirectory(prefix="dirtune-optuna-") as scratch:
        local = Storage.open(scratch)
        if folder.exists(layout.OPTUNA_JOURNAL):
            local.write(layout.OPTUNA_JOURNAL, folder.read(layout.OPTUNA_JOURNAL))
        try:
            yield _replay(local)
        # The driver that has taken the study writes its own
        except LockLostError:
            local.remove(layout.OPTUNA_JOURNAL)
            raise
        finally:
            # If this fails, the next sweep restores the searches from the records
            with contextlib.suppress(OSError):
                if local.exists(layout.OPTUNA_JOURNAL):
                    content = local.read(layout.OPTUNA_JOURNAL)
                    folder.with_retry(RETRY_SECONDS).write(layout.OPTUNA_JOURNAL, content)


def _replay(folder: Storage) -> JournalStorage:
    """Return the storage of a local journal, without the part of a line that a killed driver has left."""
    try:
        content = folder.read(layout.OPTUNA_JOURNAL)
    except FileNotFoundError:
        content = b""
    whole = content[: content.rfind(b"\n") + 1]
    try:
        storage = JournalStorage(_Journal(folder, map(json.loads, whole.splitlines())))
        for study in storage.get_all_studies():
            for trial in storage.get_all_trials(study._study_id, deepcopy=False):
                trial._validate()
                hash(tuple(trial.user_attrs.items()))
    # Lines that are not JSON, or not what Optuna writes: any error is possible
    except Exception:
        folder.remove(layout.OPTUNA_JOURNAL)
        return JournalStorage(_Journal(folder, ()))
    if whole != content:
        folder.write(layout.OPTUNA_JOURNAL, whole)
    return storage


class _Journal(BaseJournalBackend):
    """Steps of searches, each appended to the file of a folder.

    Optuna's own backend, which several processes share, locks and reads the file in every step, and a process that is killed
    there leaves the lock to the next one. The driver is the only writer.

    Args:
        folder: on a local disk.
        steps: that the file has already.
    """

    def __init__(self, folder: Storage, steps: Iterable[dict[str, Any]]) -> None:
        self._folder = folder.with_retry(RETRY_SECONDS)
        self._unread = list(steps)
        self._read = 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._folder.append(layout.OPTUNA_JOURNAL, "".join(f"{line}\n" for line in lines).encode())
        self._unread += map(json.loads, lines)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        # There is one reader, so that what it has read is not needed again
        del self._unread[: log_number_from - self._read]
        self._read = log_number_from
        yield from tuple(self._unread)
