"""The placement groups that Tune asks for, withdrawn in a way that Ray gives their resources back.

Whenever a trial ends, Tune asks for the resources of the next one and, as its worker can be used again, withdraws the request
within milliseconds. Ray (2.60; its issue 64693) loses what it has already set aside for a placement group that is removed
while it is being made: until the cluster ends, those CPUs and GPUs belong to nobody. Enough short trials, and the next sweep
waits for ever on a cluster that is idle.

So a request that is withdrawn is kept for a moment: for the next request of the same kind, else until its placement group is
made and can be removed without loss. One that waits for a place longer than that is removed too, or an autoscaler would start
a node for it.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import ray
from ray.air.execution.resources import PlacementGroupResourceManager, ResourceRequest
from ray.tune.execution import tune_controller
from ray.util.placement_group import remove_placement_group

SETTLING_SECONDS = 1.0
"""A placement group for which there is a place is made in some milliseconds."""


class SettledPlacementGroups(PlacementGroupResourceManager):
    """Tune's placement groups, none of which is removed while Ray makes it.

    Args:
        update_interval_s: how often Ray is asked what has become of a request, at most.
    """

    def __init__(self, update_interval_s: float = 0.1) -> None:
        super().__init__(update_interval_s)
        # The moments
        self._withdrawn: dict[ResourceRequest, list[float]] = defaultdict(list)

    def request_resources(self, resource_request: ResourceRequest) -> None:
        if self._withdrawn[resource_request]:
            self._withdrawn[resource_request].pop()
        else:
            super().request_resources(resource_request)

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        self._withdrawn[resource_request].append(time.monotonic())

    def update_state(self) -> None:
        super().update_state()
        for request, moments in self._withdrawn.items():
            while moments and len(self._request_to_staged_pgs[request]) < len(moments):
                moments.pop(0)
                self._remove_a_ready_one(request)
            while moments and time.monotonic() - moments[0] > SETTLING_SECONDS:
                moments.pop(0)
                super().cancel_resource_request(request)

    def clear(self) -> None:
        """Remove everything, once what has just got a place is made."""
        if ray.is_initialized() and (being_made := self.get_resource_futures()):
            ray.wait(being_made, num_returns=len(being_made), timeout=SETTLING_SECONDS)
        super().clear()

    def _remove_a_ready_one(self, request: ResourceRequest) -> None:
        group = self._request_to_ready_pgs[request].pop()
        self._pg_to_request.pop(group)
        remove_placement_group(group)


@contextlib.contextmanager
def settled_placement_groups() -> Iterator[None]:
    """While this lasts, Tune (which has no setting for it) uses `SettledPlacementGroups`."""
    tune_controller.PlacementGroupResourceManager = SettledPlacementGroups
    try:
        yield
    finally:
        tune_controller.PlacementGroupResourceManager = PlacementGroupResourceManager
