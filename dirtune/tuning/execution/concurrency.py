"""How many trials a sweep runs at once, while nodes come and go.

Looked up every few seconds, because a node that joins a running sweep shall be used, and one that has left shall not be waited
for by more trials than it had: a search asks for a configuration as late as it can.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dirtune.errors import InputError
from dirtune.study.resolve import ResolvedStudy
from dirtune.tuning.plan.autoscaling import NodeType, find_startable_nodes, list_nodes
from dirtune.tuning.plan.capacity import compute_concurrency, list_cluster_nodes

LOOK_SECONDS = 5.0


@dataclass
class Slots:
    """The trials of a study that the nodes of the joined cluster hold.

    Args:
        types: of nodes that an autoscaler may start; they count as if they were there.
        number: as it was found when the sweep began.
    """

    study: ResolvedStudy
    types: Sequence[NodeType]
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
            nodes = list_cluster_nodes()
            return compute_concurrency(self.study, [*nodes, *list_nodes(find_startable_nodes(self.types, nodes))])
        except InputError:
            return 1
