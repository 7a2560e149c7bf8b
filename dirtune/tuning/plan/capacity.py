"""Capacity of a cluster: its nodes, and the number of workers and trials that fit on them.

The CPUs and GPUs of a worker must be on one node: two nodes with one free CPU each hold no worker of two. Workers of
a group may be on several nodes. Only workers take CPUs and GPUs from Ray's account: the driver is no Ray task, Ray
Train's controllers, the mailboxes and Tune's side of a group ask for no CPU, and the Ray Data tasks that read the data
set have ended before the first worker starts.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from dirtune.errors import Fault, InputError
from dirtune.study.resolve import ResolvedStudy


class Node(NamedTuple):
    """Resources of one machine, as registered with Ray."""

    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


def list_available_nodes() -> tuple[Node, ...]:
    """Return the nodes that a sweep would use: those of the configured cluster, or this machine."""
    # Ray takes seconds to import and to connect to, which a plan for this machine does not need.
    ray = sys.modules.get("ray")
    if os.environ.get("RAY_ADDRESS") or (ray is not None and ray.is_initialized()):
        from dirtune.data.session import ray_session

        with ray_session():
            return list_cluster_nodes()
    return (Node(os.cpu_count() or 1, torch.cuda.device_count()),)


def list_cluster_nodes() -> tuple[Node, ...]:
    """Return the live nodes of the cluster that this process is connected to."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in resources)


def count_workers(nodes: Iterable[Node], *, cpus: int, gpus: float) -> int:
    """Return the number of workers that fit on the nodes, each on one node.

    Args:
        cpus: CPUs of a worker.
        gpus: GPUs of a worker; a fraction is a share of one GPU, never of two.
    """
    total = 0
    for node in nodes:
        by_cpu = int(node.cpus // cpus)
        # Float division loses a share: 1 // 0.2 is 4.
        by_gpu = int(node.gpus // gpus) if gpus >= 1 else int(node.gpus) * int(1 / gpus + 1e-9) if gpus else by_cpu
        total += min(by_cpu, by_gpu)
    return total


def resolve_cpus(study: ResolvedStudy, nodes: Sequence[Node]) -> ResolvedStudy:
    """Return a study whose workers have a number of CPUs: for auto, their GPU's share of the cores of the poorest GPU node."""
    need = study.resources
    if need.cpus != "auto":
        return study
    shares = [int(need.gpus * node.cpus / node.gpus) for node in nodes if node.gpus] if need.gpus else []
    return replace(study, resources=need.model_copy(update={"cpus": max(1, min(shares, default=1))}))


def compute_concurrency(study: ResolvedStudy, nodes: Sequence[Node]) -> int:
    """Return the number of trials that these nodes run concurrently.

    Raises:
        InputError: the nodes cannot hold one trial.
    """
    need = study.resources
    workers = count_workers(nodes, cpus=need.cores, gpus=need.gpus)
    if workers >= need.workers:
        fitting = workers // need.workers
        return min(fitting, need.concurrent or fitting)
    # A cluster that is too small in total needs other advice than one whose nodes are too small.
    trial = Node(need.cores * need.workers, need.gpus * need.workers)
    cluster = Node(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    if trial.cpus > cluster.cpus or trial.gpus > cluster.gpus:
        rule = f"one trial needs {trial}, the cluster has {cluster.cpus:g} and {cluster.gpus:g}"
    else:
        rule = (
            f"a worker needs {Node(need.cores, need.gpus)} on one node; the nodes ({describe_nodes(nodes)}) "
            f"hold {workers} of the {need.workers} of a trial"
        )
    raise InputError(Fault(where=study.name, key="resources", rule=rule))


def get_packing_note(study: ResolvedStudy, nodes: Sequence[Node], *, trials: int) -> str | None:
    """Return a note if trials would share GPUs while others are idle, because Ray fills one after the other, else None.

    Args:
        trials: number of trials that are left.
    """
    gpus = sum(int(node.gpus) for node in nodes)
    if not 0 < study.resources.gpus < 1 or not 0 < trials <= gpus:
        return None
    return (
        f"{trials} trials with gpus: {study.resources.gpus:g} would share GPUs while others of the {gpus} are idle; "
        "with so few trials, set resources.gpus: 1"
    )


def describe_nodes(nodes: Iterable[Node]) -> str:
    """Return a list of the nodes in words, with equal nodes counted."""
    return ", ".join(f"{number} with {node}" for node, number in Counter(nodes).items())
