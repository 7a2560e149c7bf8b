"""Number of trials that a sweep runs at once, while nodes join and leave.

The cluster is queried every few seconds: a node that joins a running sweep is used, and after a node has left, no more trials
wait for its slots than it had, since a search asks for a configuration as late as possible.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dirtune.errors import InputError
from dirtune.study.resolve import ResolvedStudy
from dirtune.tuning.plan import autoscaling, capacity

QUERY_SECONDS = 5.0


@dataclass
class Concurrency:
    """Trials of a study that the nodes of the connected cluster hold.

    Args:
        node_types: nodes that an autoscaler may start; they count like nodes that exist.
        count: number found when the sweep began.
    """

    study: ResolvedStudy
    node_types: Sequence[autoscaling.NodeType]
    count: int
    _queried_at: float = float("-inf")

    def update(self) -> int:
        """Return the number of trials; 1 if no node holds a trial, so that its worker waits for a node to join."""
        if time.monotonic() - self._queried_at >= QUERY_SECONDS:
            self._queried_at = time.monotonic()
            nodes = capacity.list_cluster_nodes()
            startable = autoscaling.list_nodes(autoscaling.find_startable_nodes(self.node_types, nodes))
            try:
                self.count = capacity.compute_concurrency(self.study, [*nodes, *startable])
            except InputError:
                # The node that held a trial has left; an autoscaler or a person may bring another.
                self.count = 1
        return self.count
