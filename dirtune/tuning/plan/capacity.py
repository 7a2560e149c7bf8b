"""The machines that a sweep may use, and how many workers find room on them.

What a worker asks for must be there on one node: two nodes with one free CPU each hold no worker of two. The workers of a
group may be on several. Only workers take CPUs and GPUs from Ray's account: the driver is no Ray task, Ray Train's
controllers, the mailboxes and Tune's side of a group ask for no CPU, and the Ray Data tasks that read the data set have
ended before the first worker starts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import ray
import torch

from dirtune.data.session import ray_session


class Node(NamedTuple):
    """What one machine gives to Ray."""

    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


def available_nodes() -> tuple[Node, ...]:
    """The nodes that a sweep would run on: of the cluster that it would join, else this machine."""
    if ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
        with ray_session():
            return nodes_of_cluster()
    return (Node(os.cpu_count() or 1, torch.cuda.device_count()),)


def nodes_of_cluster() -> tuple[Node, ...]:
    """The living nodes of the cluster that this process has joined."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(Node(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive)


def room(nodes: Iterable[Node], *, cpus: int, gpus: float) -> int:
    """How many workers the nodes hold, each of them on one node."""
    return sum(_room_on(node, cpus, gpus) for node in nodes)


def described(nodes: Iterable[Node]) -> str:
    """The nodes in words, equal ones together."""
    counted = Counter(nodes)
    return ", ".join(f"{number} with {node}" for node, number in counted.items())


def _room_on(node: Node, cpus: int, gpus: float) -> int:
    by_cpu = int(node.cpus // cpus)
    return min(by_cpu, _shares_of(node.gpus, gpus)) if gpus else by_cpu


def _shares_of(gpus: float, need: float) -> int:
    """Workers that find their share of the GPUs; a fraction is a part of one GPU, never of two."""
    if need >= 1:
        return int(gpus // need)
    # 1 // 0.2 is 4
    return int(gpus) * int(1 / need + 1e-9)
