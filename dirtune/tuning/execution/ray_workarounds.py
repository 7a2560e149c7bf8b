"""Workarounds for Ray (2.60): resources that it does not release, and packages and processes that it starts in vain.

Withdrawn requests (Ray issue 64693). Whenever a trial ends, Tune requests the resources of the next one and, as the worker
can be reused, cancels the request within milliseconds. Ray leaks the resources of a placement group that is removed while
it is being created: until the cluster ends, those CPUs and GPUs are unavailable. After enough short trials, the next sweep
waits forever on an idle cluster. `SettledPlacementGroups` therefore keeps a canceled request for a moment: for the next
request of the same kind, else until its placement group exists and can be removed without a leak. A request that stays
pending longer is removed as well, or an autoscaler would start a node for it.

Dead training groups (no issue known). A Ray Train group reserves its resources in a placement group that its controller
creates. When the process that started the group is killed, Ray keeps this reservation for as long as the job lives, since
the cleaner that Ray Train leaves behind asks an API of the dashboard, which a local Ray does not run. The next group then
waits for its resources forever. `GroupReservations` lets the driver, which outlives the groups, release them. Ray Train
does not let anyone name these placement groups: they are recognized by belonging to this job, having been created since
the sweep began, having no name, and having the bundles that a group requests. A group that has reported is known exactly;
if one of two groups that are just starting dies, the other one has to start again.

Idle workers (no issue known). When several trials end at once and the next ones are not staged yet, Tune keeps the worker
of one of them and ends the others, and the next trials wait for new processes. An idle worker is given to a trial whose own
worker is starting, and that process is ended. `keep_workers` keeps idle workers for a moment, and those that are starting.

Packages of trackers (no issue known). Before a run, Tune compares the classes of its callbacks with those of all trackers,
for its statistics of usage, and imports mlflow and wandb for it where they are installed: two seconds and more.
`without_callback_statistics` leaves that out.

Environment of workers (no issue known). Tune gives its workers variables of the driver's environment, and one for another
library. A process that a local Ray has started already has another environment, so that it is ended and a new one is started:
a second on two cores. `without_worker_environment` lets them have that of Ray where they would get nothing else.
"""

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import ray
from ray.air._internal import usage
from ray.air.execution.resources import PlacementGroupResourceManager, ResourceRequest
from ray.tune.execution import class_cache, tune_controller
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache
from ray.util.placement_group import PlacementGroup

from dirtune.process import replace_attributes

IDLE_SECONDS = 5.0
"""Time that a worker without a trial is kept, unless there are no more trials."""
SETTLING_SECONDS = 1.0
"""Time that a canceled request is kept. A placement group whose resources are free is created within milliseconds."""


class SettledPlacementGroups(PlacementGroupResourceManager):
    """Tune's placement groups, none of which is removed while Ray creates it.

    Args:
        update_interval_s: shortest time between two queries of the state of the requests.
    """

    def __init__(self, update_interval_s: float = 0.1) -> None:
        super().__init__(update_interval_s)
        self._cancel_times: dict[ResourceRequest, list[float]] = defaultdict(list)

    def request_resources(self, resource_request: ResourceRequest) -> None:
        if self._cancel_times[resource_request]:
            self._cancel_times[resource_request].pop()
        else:
            super().request_resources(resource_request)

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        self._cancel_times[resource_request].append(time.monotonic())

    def update_state(self) -> None:
        super().update_state()
        for request, times in self._cancel_times.items():
            # Fewer requests are being created than were canceled: some of the canceled ones exist by now.
            while times and len(self._request_to_staged_pgs[request]) < len(times):
                times.pop(0)
                group = self._request_to_ready_pgs[request].pop()
                self._pg_to_request.pop(group)
                ray.util.remove_placement_group(group)
            while times and time.monotonic() - times[0] > SETTLING_SECONDS:
                times.pop(0)
                super().cancel_resource_request(request)

    def clear(self) -> None:
        """Remove all placement groups, once those that are being created exist."""
        if ray.is_initialized():
            # Those of workers first, whose resources the others wait for
            for group in self._acquired_pgs:
                ray.util.remove_placement_group(group)
            deadline = time.monotonic() + SETTLING_SECONDS
            for group in self._staging_future_to_pg.values():
                # Not by its future, a task that needs a worker process
                group.wait(max(0.0, deadline - time.monotonic()))
        super().clear()


@contextlib.contextmanager
def use_settled_placement_groups() -> Iterator[None]:
    """Let Tune, which has no setting for it, use `SettledPlacementGroups` inside the block; all are removed at its end.

    After an interrupt Tune would remove them only when its controller is garbage-collected, and a later sweep in the same
    Ray session would wait for their resources.
    """
    managers: list[SettledPlacementGroups] = []

    def make_manager() -> SettledPlacementGroups:
        managers.append(SettledPlacementGroups())
        return managers[-1]

    with replace_attributes(tune_controller, PlacementGroupResourceManager=make_manager):
        try:
            yield
        finally:
            for manager in managers:
                manager.clear()


class IdleWorkers(_ObjectCache):
    """Tune's workers that have no trial, by their resources."""

    def __init__(self, may_keep_one: bool = True) -> None:
        super().__init__(may_keep_one)
        self._idle_since: dict[int, float] = {}

    def cache_object(self, key: Any, obj: Any) -> bool:
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        self._idle_since[id(obj)] = time.monotonic()
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Remove and yield the workers that have been idle for too long and that no staged trial needs."""
        for key, workers in self._cached_objects.items():
            needed = 0 if force_all else self._max_num_objects[key]
            # The first has been idle for longest.
            while len(workers) > needed and (
                force_all or time.monotonic() - self._idle_since[id(workers[0])] > IDLE_SECONDS
            ):
                self._num_cached_objects -= 1
                yield workers.pop(0)


@contextlib.contextmanager
def keep_workers() -> Iterator[None]:
    """Let Tune keep idle workers for `IDLE_SECONDS` inside the block, and workers that start for their trial."""
    controller = tune_controller.TuneController
    reuse = controller._maybe_reuse_cached_actor

    def reuse_unless_starting(self: Any, trial: Trial) -> bool:
        worker = self._trial_to_actor.get(trial)
        is_live = worker in self._actor_manager._live_actors_to_ray_actors_resources
        return not (is_live and worker not in self._started_actors) and bool(reuse(self, trial))

    with (
        replace_attributes(tune_controller, _ObjectCache=IdleWorkers),
        replace_attributes(controller, _maybe_reuse_cached_actor=reuse_unless_starting),
    ):
        yield


@contextlib.contextmanager
def without_callback_statistics() -> Iterator[None]:
    """Let Tune not count callbacks by their class inside the block."""
    with replace_attributes(usage, tag_callbacks=lambda callbacks: False):
        yield


@contextlib.contextmanager
def without_worker_environment() -> Iterator[None]:
    """Let Tune's workers have the environment of Ray inside the block, if this process has started Ray and all of it is there."""
    node = ray._private.worker._global_node
    if node is None or not node.is_head() or class_cache.ENV_VARS_TO_PROPAGATE & os.environ.keys():
        yield
        return
    with replace_attributes(class_cache, DEFAULT_ENV_VARS={}):
        yield


def get_reservation() -> str | None:
    """Return the id of the calling rank's placement group, as `GroupReservations.report` takes it."""
    group = ray.util.get_current_placement_group()
    return None if group is None else str(group.id.hex())


class GroupReservations:
    """Placement groups of the training groups of one sweep.

    Args:
        bundle: resources of one rank.
        ranks: ranks of a group.
    """

    def __init__(self, bundle: dict[str, float], ranks: int) -> None:
        self._bundles = [bundle] * ranks
        self._foreign = set(self._list_similar())
        self._worker_of_trial: dict[str, str] = {}
        self._reservation_of_worker: dict[str, str] = {}

    def start(self, trial_id: str, worker: str) -> None:
        """Register the worker that runs a trial."""
        self._worker_of_trial[trial_id] = worker

    def report(self, trial_id: str, reservation: str | None) -> None:
        """Register the placement group that the training group of a trial has reported."""
        if reservation is not None:
            self._reservation_of_worker[self._worker_of_trial[trial_id]] = reservation

    def release(self, trial_id: str) -> None:
        """Release the resources of the worker of a trial, which has died."""
        self._reservation_of_worker.pop(self._worker_of_trial.pop(trial_id, ""), None)
        self._remove_all(except_for=set(self._reservation_of_worker.values()))

    def release_all(self) -> None:
        """Release the resources of all groups of the sweep."""
        self._remove_all(except_for=set())

    def _remove_all(self, except_for: set[str]) -> None:
        for name in set(self._list_similar()) - self._foreign - except_for:
            ray.util.remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))

    def _list_similar(self) -> list[str]:
        """Return the placement groups of this job that could be those of a training group."""
        job = ray.get_runtime_context().get_job_id()
        return [
            name
            for name, group in ray.util.placement_group_table().items()
            # The id of a placement group ends with that of its job.
            if name.endswith(job) and group["state"] != "REMOVED" and self._has_right_bundles(group)
        ]

    def _has_right_bundles(self, group: dict[str, Any]) -> bool:
        return not group["name"] and [*group["bundles"].values()] == self._bundles
