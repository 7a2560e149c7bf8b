"""Check that all nodes of a cluster can load the plug-ins of a study, before a trial runs."""

from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dirtune.errors import Fault, InputError
from dirtune.registry import Plugin


def check_nodes(plugins: Sequence[Plugin]) -> None:
    """Load plug-ins once on each node.

    Raises:
        InputError: with the fault of each node that cannot load them.
    """
    if not plugins:
        return
    # Without a CPU, so that a node that is in use answers, too
    load = ray.remote(num_cpus=0, max_retries=0)(_find_faults)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    found = ray.get(
        [
            load.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(list(plugins))
            for node in nodes
        ]
    )
    if faults := [fault for of_node in found for fault in of_node]:
        raise InputError(faults)


def _find_faults(plugins: Sequence[Plugin]) -> list[Fault]:
    for plugin in plugins:
        try:
            plugin.load()
        except InputError as error:
            return list(error.faults)
    return []
