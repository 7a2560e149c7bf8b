"""The seeds of a sequential study while its sweep runs: every recorded trial may make further ones due."""

from __future__ import annotations

from dirtune.io.storage import Storage
from dirtune.results.analysis.sequential import SequentialRule, recorded_value, recorded_values, seeds_due
from dirtune.training.trial import TrialJob


class SeedSequence:
    """What the arms of one study are compared by, as far as it is recorded."""

    def __init__(self, folder: Storage, rule: SequentialRule) -> None:
        self._folder, self._rule = folder, rule
        self._values = recorded_values(folder, rule)

    def tell(self, job: TrialJob) -> None:
        """A trial is complete and recorded."""
        value = recorded_value(self._folder, self._rule, job.trial_id)
        if value is not None:
            self._values.setdefault(job.arm, {})[job.config.seed] = value

    def seeds_due(self) -> dict[str, tuple[int, ...]]:
        """By arm, the seeds that it needs, recorded or not."""
        return seeds_due(self._rule, self._values)
