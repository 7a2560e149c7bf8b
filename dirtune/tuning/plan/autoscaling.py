"""The nodes that a cluster's autoscaler may still start, by the file that it was started with.

Ray 2.60 tells a driver which nodes live, and the open autoscalers keep their node types to themselves: what
`ray._private.state.get_cluster_config` reads, only a hosted platform writes. So the user names the file of `ray up`
(`cluster.yaml`; on a head that `ray up` has made, `~/ray_bootstrap_config.yaml`), or one of the same form:

    max_workers: 4
    available_node_types:
      gpu_worker: {resources: {CPU: 8, GPU: 1}, max_workers: 4}

Other keys are passed over, the type named by `head_node_type` as well. A living node with the CPUs and GPUs of a type is
taken for one of them. Of several types each may fill the cluster's own `max_workers`; if all of them together cannot, a
trial waits that was expected to run, and nothing is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dirtune.errors import Fault, InputError
from dirtune.io.yamlfile import read_yaml
from dirtune.tuning.plan.capacity import Node

TYPES = "available_node_types"


class NodeType(NamedTuple):
    """Equal nodes that an autoscaler starts."""

    name: str
    node: Node
    number: int

    def __str__(self) -> str:
        nodes = "node" if self.number == 1 else "nodes"
        return f"{self.number} {nodes} of type {self.name} ({self.node} each) can be started"


def node_types(file: str | Path | None) -> tuple[NodeType, ...]:
    """The types of workers in a cluster's file, each with the most nodes of it; without a file none.

    Raises:
        InputError: it is no such file, or a type does not say its resources.
    """
    if file is None:
        return ()
    plain, where = read_yaml(Path(file).expanduser()), str(file)
    types = plain.get(TYPES) if isinstance(plain, Mapping) else None
    if not isinstance(types, Mapping):
        rule = "must hold the node types of a cluster, as the file of `ray up` does"
        raise InputError(Fault(where=where, key=TYPES, rule=rule))
    head = plain.get("head_node_type")
    workers = {str(name): spec for name, spec in types.items() if name != head}
    if faults := [fault for name, spec in workers.items() for fault in _faults(name, spec, where)]:
        raise InputError(faults)
    return tuple(_node_type(name, spec, plain) for name, spec in workers.items())


def written(types: Sequence[NodeType]) -> str:
    """The types as such a file, without what else stood in theirs: keys of a cloud, addresses, commands."""
    plain = {
        each.name: {"resources": {"CPU": each.node.cpus, "GPU": each.node.gpus}, "max_workers": each.number}
        for each in types
    }
    return yaml.safe_dump({TYPES: plain}, sort_keys=False)


def to_come(types: Sequence[NodeType], alive: Sequence[Node]) -> tuple[NodeType, ...]:
    """What is left to be started of the types while these nodes live."""
    there = Counter(Node(float(node.cpus), float(node.gpus)) for node in alive)
    left = []
    for each in types:
        taken = min(there[each.node], each.number)
        there[each.node] -= taken
        left.append(each._replace(number=each.number - taken))
    return tuple(each for each in left if each.number)


def nodes_of(types: Sequence[NodeType]) -> list[Node]:
    """The nodes one by one."""
    return [each.node for each in types for _ in range(each.number)]


def _faults(name: str, spec: Any, where: str) -> Iterator[Fault]:
    resources = spec.get("resources") if isinstance(spec, Mapping) else None
    key = f"{TYPES}.{name}.resources"
    if not isinstance(resources, Mapping) or "CPU" not in resources:
        yield Fault(where=where, key=key, rule="must say the CPUs, and the GPUs if there are any")
        return
    for unit in ("CPU", "GPU"):
        if not _is_number(found := resources.get(unit, 0)):
            yield Fault(where=where, key=f"{key}.{unit}", rule="must be a number", got=found)
    if not _is_number(most := spec.get("max_workers", 0)):
        key = f"{TYPES}.{name}.max_workers"
        yield Fault(where=where, key=key, rule="must be a number", got=most)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _node_type(name: str, spec: Mapping[str, Any], plain: Mapping[str, Any]) -> NodeType:
    resources, most = spec["resources"], plain.get("max_workers")
    of_type = spec.get("max_workers", most if _is_number(most) else 0)
    number = min(of_type, most) if _is_number(most) else of_type
    node = Node(float(resources["CPU"]), float(resources.get("GPU", 0)))
    return NodeType(name, node, int(number))
