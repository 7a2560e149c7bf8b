"""The resources that dead training groups keep, and how they are given back.

A Ray Train group reserves its resources in a placement group which its controller makes. When the process that had started
the group is killed, Ray (2.60) keeps this reservation for as long as the job lives, since the cleaner that Ray Train leaves
behind asks an API of the dashboard, which a local Ray does not run. The next group then waits for its resources for ever.

So the driver, which outlives them, gives them back. Ray Train does not let anybody name these placement groups: they are told
by being of this job, made since the sweep began, unnamed, and of the bundles that a group asks for. A group that has
reported is known exactly; of two groups that are just starting when one of them dies, the other one has to start again.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group_table,
    remove_placement_group,
)


def own_reservation() -> str | None:
    """The placement group of the rank that calls, as `Reservations.report` takes it."""
    group = get_current_placement_group()
    return None if group is None else str(group.id.hex())


class Reservations:
    """What the groups of one sweep hold.

    Args:
        bundle: the resources of one rank.
        ranks: how many a group has.
    """

    def __init__(self, bundle: dict[str, float], ranks: int) -> None:
        self._bundles = [bundle] * ranks
        self._foreign = set(self._alike())
        # The worker of a trial
        self._workers: dict[str, str] = {}
        # The reservation of a worker
        self._held: dict[str, str] = {}

    def start(self, trial_id: str, worker: str) -> None:
        """A worker has taken a trial."""
        self._workers[trial_id] = worker

    def report(self, trial_id: str, reservation: str | None) -> None:
        """The group of a trial's worker has said what it holds."""
        if reservation is not None:
            self._held[self._workers[trial_id]] = reservation

    def lose(self, trial_id: str) -> None:
        """The worker of a trial has died."""
        self._held.pop(self._workers.pop(trial_id, ""), None)
        self._give_back(keep=set(self._held.values()))

    def give_back_all(self) -> None:
        """The sweep is over."""
        self._give_back(keep=set())

    def _give_back(self, keep: set[str]) -> None:
        for name in set(self._alike()) - self._foreign - keep:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))

    def _alike(self) -> list[str]:
        # A placement group's id ends with its job's
        job = ray.get_runtime_context().get_job_id()
        return [
            name
            for name, group in placement_group_table().items()
            if name.endswith(job) and group["state"] != "REMOVED" and self._fits(group)
        ]

    def _fits(self, group: dict[str, Any]) -> bool:
        return not group["name"] and [*group["bundles"].values()] == self._bundles
