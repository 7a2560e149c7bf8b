"""Run with `pytest tests/tuning/plan/test_capacity.py`; `tests/cluster/test_doctor.py` lists the nodes of a cluster."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from dirtune.errors import InputError
from dirtune.tuning.plan.capacity import (
    Node,
    compute_concurrency,
    count_workers,
    describe_nodes,
    get_packing_note,
    list_available_nodes,
    list_cluster_nodes,
    resolve_cpus,
)
from tests.tuning.plan.test_checks import study


def test_the_resources_of_a_worker_are_on_one_node() -> None:
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


@pytest.mark.parametrize(
    ("gpus", "trials", "is_noted"), [(0.5, 4, True), (0.5, 5, False), (1, 2, False), (0.5, 0, False)]
)
def test_few_trials_that_would_share_gpus_are_noted(gpus: float, trials: int, is_noted: bool) -> None:
    note = get_packing_note(study(resources={"gpus": gpus}), [Node(8, 4)], trials=trials)
    assert (note is not None) is is_noted


def test_auto_gives_a_worker_its_gpus_share_of_the_cores_of_the_poorest_node() -> None:
    nodes = [Node(64, 8), Node(16, 4), Node(32)]

    def cpus_of(**resources: object) -> int | str:
        return resolve_cpus(study(resources=resources), nodes).resources.cpus

    assert cpus_of(cpus="auto", gpus=1) == 4
    assert cpus_of(cpus="auto", gpus=0.1) == 1
    assert cpus_of(cpus="auto") == 1
    assert cpus_of(cpus=3, gpus=1) == 3


def test_equal_nodes_are_counted_in_words() -> None:
    text = describe_nodes([Node(4, 1), Node(2), Node(4, 1)])
    assert text == "2 with 4 CPUs and 1 GPUs, 1 with 2 CPUs and 0 GPUs"


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "trials"),
    [
        ({}, 2, 0, 2),
        ({"cpus": 2}, 7, 0, 3),
        ({"workers": 2}, 7, 0, 3),
        ({"workers": 2, "cpus": 3}, 13, 0, 2),
        ({"concurrent": 2}, 8, 0, 2),
        ({"concurrent": 9}, 8, 0, 8),
        ({"gpus": 1}, 64, 4, 4),
        ({"gpus": 1}, 3, 4, 3),
        ({"gpus": 1, "workers": 2}, 64, 5, 2),
        ({"gpus": 0.5}, 64, 2, 4),
        # 1 // 0.2 is 4
        ({"gpus": 0.2}, 64, 1, 5),
        ({"gpus": 0.1}, 64, 1, 10),
        # No trial takes the rest of two GPUs
        ({"gpus": 0.4}, 64, 2, 4),
    ],
)
def test_concurrency_is_limited_by_cpus_gpus_and_the_study(
    resources: dict[str, Any], cpus: float, gpus: float, trials: int
) -> None:
    assert compute_concurrency(study(resources=resources), [Node(cpus, gpus)]) == trials


@pytest.mark.parametrize(
    ("resources", "rule"),
    [
        ({"cpus": 3}, "one trial needs 3 CPUs and 0 GPUs, the cluster has 2 and 1"),
        ({"workers": 4}, "one trial needs 4 CPUs and 0 GPUs, the cluster has 2 and 1"),
        ({"gpus": 1, "workers": 2}, "one trial needs 2 CPUs and 2 GPUs, the cluster has 2 and 1"),
    ],
)
def test_a_trial_larger_than_the_cluster_is_rejected_with_both_sizes(resources: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError) as caught:
        compute_concurrency(study(resources=resources), [Node(2, 1)])
    assert str(caught.value) == f"tiny: resources: {rule}"


@pytest.mark.parametrize(
    ("resources", "nodes", "trials"),
    [
        # Six CPUs, but one is left over on each
        ({"cpus": 2}, [Node(3), Node(3)], 2),
        # A group may spread
        ({"cpus": 2, "workers": 2}, [Node(3), Node(3)], 1),
        ({"cpus": 1, "workers": 3}, [Node(2), Node(2), Node(2)], 2),
        # GPUs without a CPU beside them
        ({"gpus": 1}, [Node(1, 4), Node(8, 1)], 2),
        ({"gpus": 0.5}, [Node(8, 1), Node(4, 0)], 2),
        ({"concurrent": 3}, [Node(2), Node(2)], 3),
    ],
)
def test_concurrency_counts_workers_that_fit_on_one_node(
    resources: dict[str, Any], nodes: list[Node], trials: int
) -> None:
    assert compute_concurrency(study(resources=resources), nodes) == trials


@pytest.mark.parametrize(
    ("resources", "nodes", "rule"),
    [
        (
            {"cpus": 4},
            [Node(3), Node(3), Node(2)],
            "a worker needs 4 CPUs and 0 GPUs on one node; the nodes (2 with 3 CPUs and 0 GPUs, "
            "1 with 2 CPUs and 0 GPUs) hold 0 of the 1 of a trial",
        ),
        (
            {"cpus": 2, "workers": 3},
            [Node(3), Node(3)],
            "a worker needs 2 CPUs and 0 GPUs on one node; the nodes (2 with 3 CPUs and 0 GPUs) "
            "hold 2 of the 3 of a trial",
        ),
        (
            {"gpus": 1, "cpus": 2},
            [Node(1, 4), Node(16, 0)],
            "a worker needs 2 CPUs and 1 GPUs on one node; the nodes (1 with 1 CPUs and 4 GPUs, "
            "1 with 16 CPUs and 0 GPUs) hold 0 of the 1 of a trial",
        ),
    ],
)
def test_a_worker_that_fits_only_across_nodes_is_rejected_with_the_nodes(
    resources: dict[str, Any], nodes: list[Node], rule: str
) -> None:
    with pytest.raises(InputError) as caught:
        compute_concurrency(study(resources=resources), nodes)
    assert str(caught.value) == f"tiny: resources: {rule}"


@pytest.mark.ray
def test_a_connected_process_lists_the_nodes_of_its_cluster(ray_session: None) -> None:
    (node,) = list_cluster_nodes()
    assert list_available_nodes() == (node,)
    assert node.cpus == 2


def test_without_a_cluster_this_machine_is_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert list_available_nodes() == (Node(os.cpu_count() or 1, torch.cuda.device_count()),)
