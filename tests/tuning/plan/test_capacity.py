"""Run with `pytest tests/tuning/plan/test_capacity.py`; one test starts a cluster of two nodes in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from dirtune.tuning.plan.capacity import (
    Node,
    count_workers,
    describe_nodes,
    list_available_nodes,
    list_cluster_nodes,
)

CLUSTER = """
import json, os, sys
import ray
from ray.cluster_utils import Cluster
from dirtune.tuning.plan.capacity import list_available_nodes

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
cluster.add_node(num_cpus=3, num_gpus=2)
os.environ["RAY_ADDRESS"] = cluster.address
before = ray.is_initialized()
nodes = list_available_nodes()
print(json.dumps([sorted(nodes), before, ray.is_initialized()]))
cluster.shutdown()
"""


def test_a_worker_has_its_share_of_one_node() -> None:
    nodes = [Node(3), Node(3), Node(1)]
    assert count_workers(nodes, cpus=1, gpus=0) == 7
    assert count_workers(nodes, cpus=2, gpus=0) == 2
    assert count_workers(nodes, cpus=4, gpus=0) == 0
    # Twice the rest of a GPU is lost
    assert count_workers([Node(8, 1), Node(8, 1)], cpus=1, gpus=0.4) == 4
    # On the first the CPU decides
    assert count_workers([Node(1, 1), Node(8, 1)], cpus=1, gpus=0.25) == 5
    # 1 // 0.1 is 9
    assert count_workers([Node(16, 1)], cpus=1, gpus=0.1) == 10


def test_equal_nodes_are_named_together() -> None:
    text = describe_nodes([Node(4, 1), Node(2), Node(4, 1)])
    assert text == "2 with 4 CPUs and 1 GPUs, 1 with 2 CPUs and 0 GPUs"


@pytest.mark.ray
def test_a_process_that_has_joined_a_cluster_sees_its_nodes(ray_session: None) -> None:
    (node,) = list_cluster_nodes()
    assert list_available_nodes() == (node,)
    assert node.cpus == 2


@pytest.mark.ray
def test_the_nodes_of_a_running_cluster_are_read_without_staying_in_it() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", CLUSTER], capture_output=True, text=True, check=True, env=environment)
    nodes, before, after = json.loads(done.stdout.strip().splitlines()[-1])
    assert nodes == [[1.0, 0.0], [3.0, 2.0]]
    assert (before, after) == (False, False)


def test_without_a_cluster_it_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert list_available_nodes() == (Node(os.cpu_count() or 1, torch.cuda.device_count()),)
