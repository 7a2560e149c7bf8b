"""Interface of a tracker."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from dirtune.trackers.trial_log import TrialLog

MARK = "dirtune.version"
"""Name of the last entry that is written of a trial: its version. A run without it was interrupted, and is written again."""


class Tracker(ABC):
    """Runs of one study in a tracker, one per recorded trial. Every method raises the errors of the tracker's own package."""

    follows_running = False
    """True if trials that are still running can be written, again and again."""

    @abstractmethod
    def list_logged(self) -> Mapping[str, str]:
        """Return the version of every trial that is logged completely, by its id."""

    @abstractmethod
    def write(self, trial: TrialLog) -> None:
        """Write a trial, in place of everything that is logged of it."""

    def write_report(self, file: Path) -> bool:
        """Store the report of the study as an artifact, in place of an earlier one; return False if there is no place for it."""
        return False

    def close(self) -> None:  # noqa: B027 - most trackers have nothing to finish
        """Finish what is still being written."""
