"""Nodes that a cluster's autoscaler may still start, read from the file that the cluster was started with.

Ray 2.60 lists the live nodes only, and the open autoscalers do not publish their node types:
`ray._private.state.get_cluster_config` reads what only a hosted platform writes. So the user names the file of `ray up`
(`cluster.yaml`; on a head that `ray up` has made, `~/ray_bootstrap_config.yaml`), or one of the same form:

    max_workers: 4
    available_node_types:
      gpu_worker: {resources: {CPU: 8, GPU: 1}, max_workers: 4}

Other keys are ignored, as is the type named by `head_node_type`. A live node with the CPUs and GPUs of a type counts as
a node of that type. Limitation: each type may fill the cluster's `max_workers` by itself; if all types together exceed
it, fewer trials run concurrently than planned, and nothing is lost.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dirtune.errors import Fault, InputError
from dirtune.io.yamlfile import dump_yaml, read_yaml
from dirtune.tuning.plan.capacity import Node
from dirtune.wording import format_count

TYPES = "available_node_types"


class NodeType(NamedTuple):
    """Equal nodes that an autoscaler can start."""

    name: str
    node: Node
    number: int

    def __str__(self) -> str:
        return f"{format_count(self.number, 'node')} of type {self.name} ({self.node} each) can be started"


def read_node_types(file: str | Path | None) -> tuple[NodeType, ...]:
    """Return the worker types of a cluster's file, each with its largest number of nodes.

    Raises:
        InputError: the file has no node types, or a type has no resources.
    """
    if file is None:
        return ()
    plain, where = read_yaml(Path(os.path.expanduser(file))), str(file)
    types = plain.get(TYPES) if isinstance(plain, Mapping) else None
    if not isinstance(types, Mapping):
        rule = "must be the node types of a cluster, as in the file of `ray up`"
        raise InputError(Fault(where=where, key=TYPES, rule=rule))
    workers = {str(name): spec for name, spec in types.items() if name != plain.get("head_node_type")}
    if faults := [fault for name, spec in workers.items() for fault in _find_faults(name, spec, where)]:
        raise InputError(faults)
    most = plain.get("max_workers")
    found = []
    for name, spec in workers.items():
        resources = spec["resources"]
        node = Node(float(resources["CPU"]), float(resources.get("GPU", 0)))
        # As Ray does: a type without a limit of its own has that of the cluster.
        number = spec.get("max_workers", most if _is_count(most) else 0)
        found.append(NodeType(name, node, int(min(number, most) if _is_count(most) else number)))
    return tuple(found)


def format_node_types(types: Sequence[NodeType]) -> str:
    """Return the types as such a file, without its other keys: cloud credentials, addresses, commands."""
    plain = {
        each.name: {"resources": {"CPU": each.node.cpus, "GPU": each.node.gpus}, "max_workers": each.number}
        for each in types
    }
    return dump_yaml({TYPES: plain})


def find_startable_nodes(types: Sequence[NodeType], alive: Sequence[Node]) -> tuple[NodeType, ...]:
    """Return the types with the numbers of nodes that are not alive yet."""
    # A live node carries no name of its type, so that it is matched by its resources.
    unmatched = Counter(Node(float(node.cpus), float(node.gpus)) for node in alive)
    found = []
    for each in types:
        running = min(unmatched[each.node], each.number)
        unmatched[each.node] -= running
        found.append(each._replace(number=each.number - running))
    return tuple(each for each in found if each.number)


def list_nodes(types: Sequence[NodeType]) -> list[Node]:
    """Return the nodes of all types, one entry per node."""
    return [each.node for each in types for _ in range(each.number)]


def _find_faults(name: str, spec: Any, where: str) -> Iterator[Fault]:
    key = f"{TYPES}.{name}"
    resources = spec.get("resources") if isinstance(spec, Mapping) else None
    if not isinstance(resources, Mapping) or "CPU" not in resources:
        yield Fault(where=where, key=f"{key}.resources", rule="must name the CPUs, and the GPUs if there are any")
        return
    counts = {f"resources.{unit}": resources.get(unit, 0) for unit in ("CPU", "GPU")}
    for entry, value in (counts | {"max_workers": spec.get("max_workers", 0)}).items():
        if not _is_count(value):
            yield Fault(where=where, key=f"{key}.{entry}", rule="must be a number", got=value)


def _is_count(value: Any) -> bool:
    # In YAML `true` is a bool, which Python counts as an int.
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
