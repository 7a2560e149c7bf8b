"""Ray Data for short passes: all CPUs from the first task on, and no processes that only watch.

Of Ray 2.60, measured on two cores with passes of some seconds:

* A pass asks another process for the CPUs that it may use, does not wait for the answer, and looks for it a second later;
  until then it runs one task at a time. Here it looks in every round.
* It keeps as many tasks as there are CPUs, so that a CPU is idle from the end of its task to the end of the round, up to
  0.1 s. `queue_all_tasks` leaves the order of tasks to Ray itself.
* In a Ray of this machine alone, nothing scales the cluster and no dashboard shows statistics. Their two processes take
  200 MB each, and the first pass waits a second for one of them.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dirtune.process import replace_attributes

_ROUND_SECONDS = 0.1


@contextmanager
def run_short_passes(*, is_local: bool) -> Iterator[None]:
    """Set Ray Data up for short passes of this process, without bars, of which there is one for each pass.

    Args:
        is_local: whether Ray was started for this process, on this machine.
    """
    import ray.data
    from ray.data._internal import stats
    from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator
    from ray.data._internal.execution.resource_manager import ResourceManager

    def ignore(*_: Any, **__: Any) -> None:
        pass

    def list_resources(_: Any) -> dict[str, dict[str, float]]:
        return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

    with ExitStack() as stack:
        stack.enter_context(replace_attributes(ray.data.DataContext.get_current(), enable_progress_bars=False))
        stack.enter_context(replace_attributes(ResourceManager, GLOBAL_LIMITS_UPDATE_INTERVAL_S=_ROUND_SECONDS))
        if is_local:
            coordinator = {
                "request_resources": ignore,
                "cancel_request": ignore,
                "get_reserved_resources": list_resources,
            }
            stack.enter_context(replace_attributes(DefaultAutoscalingCoordinator, **coordinator))
            manager = {
                "update_execution_metrics": ignore,
                "update_iteration_metrics": ignore,
                "register_dataset_to_stats_actor": ignore,
                "gen_dataset_id_from_stats_actor": lambda: uuid.uuid4().hex,
            }
            stack.enter_context(replace_attributes(stats._StatsManager, **manager))
        yield


@contextmanager
def queue_all_tasks() -> Iterator[None]:
    """Let data sets that are made inside, and those made of them, hand all tasks of a pass to Ray at once.

    Nothing then keeps tasks from running ahead of their reader: for passes whose outputs are small, or kept until the end.
    """
    import ray.data

    with replace_attributes(ray.data.DataContext.get_current(), op_resource_reservation_enabled=False):
        yield
