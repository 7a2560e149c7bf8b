"""How many trials a sweep runs at once, while nodes come and go.

Looked up every few seconds, because a node that joins a running sweep shall be used, and one that has left shall not be waited
for by more trials than it had: a search asks for a configuration as late as it can.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from dirtune.errors import InputError
from dirtune.tuning.nodes import nodes_of_cluster
from dirtune.tuning.preflight import capacity
from dirtune.tuning.study import ResolvedStudy

LOOK_SECONDS = 5.0


@dataclass
class Slots:
    """The trials of a study that the nodes of the joined cluster hold.

    Args:
        number: as it was found when the sweep began.
    """

    study: ResolvedStudy
    number: int
    _looked: float = float("-inf")

    def now(self) -> int:
        """How many; where not even one fits, one, whose worker waits for a node to come."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self.number = self._found()
        return self.number

    def _found(self) -> int:
        try:
            return capacity(self.study, nodes_of_cluster())
        except InputError:
            return 1
