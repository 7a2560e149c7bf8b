"""Run with `pytest tests/cluster/test_assessment.py`."""

from __future__ import annotations

from typing import Any

import pytest

from dirtune.cluster import assessment as judgement
from dirtune.cluster.assessment import GIB, JUDGES, Member, judged
from dirtune.cluster.machine import Machine, Space
from dirtune.tuning.plan.capacity import Node

VERSIONS = {"dirtune": "0.1.0", "Python": "3.11.7", "Ray": "2.60.0", "torch": "2.15.0"}

FOUR_CPUS = Node(4)


def machine(**changes: Any) -> Machine:
    usual: dict[str, Any] = {
        "versions": VERSIONS,
        "cuda": "13.0",
        "gpus": 0,
        "collectives": ("gloo", "nccl"),
        "shared_memory": Space(8 * GIB, 8 * GIB),
        "disk": Space(50 * GIB, 100 * GIB),
        "open_files": 65536,
    }
    return Machine(**{**usual, **changes})


def member(name: str = "a", *, node: Node = FOUR_CPUS, skew: float = 0.0, **changes: Any) -> Member:
    return Member(name=name, node=node, machine=machine(**changes), skew=skew)


def test_a_fit_cluster_has_one_observation_per_subject_and_nothing_to_do() -> None:
    found = list(judged([member("a"), member("b", node=Node(8, 2), gpus=2)]))
    assert {each.state for each in found} == {"ok"}
    assert not [each.advice for each in found if each.advice]
    subjects = [each.subject for each in found]
    assert subjects == [
        "dirtune",
        "Python",
        "Ray",
        "torch",
        "CPUs",
        "GPUs",
        "CUDA build",
        "collectives",
        "shared memory",
        "disk",
        "open files",
        "clock",
    ]
    values = {each.subject: each.value for each in found}
    assert (values["CPUs"], values["GPUs"]) == ("12 on 2 nodes", "2")


def test_whatever_is_not_ok_says_what_to_do() -> None:
    bad = member(
        "b",
        node=Node(0, 1),
        skew=100.0,
        gpus=2,
        cuda=None,
        collectives=(),
        shared_memory=None,
        disk=Space(0, GIB),
        open_files=256,
        versions={**VERSIONS, "Ray": "2.59.0"},
    )
    assert len(JUDGES) == 8
    for observation in judged([bad]):
        assert (observation.state == "ok") == (observation.advice == ""), observation


@pytest.mark.parametrize("name", list(VERSIONS))
def test_another_version_on_a_node_is_a_problem_that_names_the_node(name: str) -> None:
    other = member("b", versions={**VERSIONS, name: "9.9"})
    (found,) = (each for each in judgement.versions([member(), other]) if each.state != "ok")
    assert (found.subject, found.state) == (name, "problem")
    assert found.value == f"{VERSIONS[name]} on a; 9.9 on b"


def test_a_package_that_is_installed_nowhere_is_a_problem() -> None:
    lacking = member(versions={**VERSIONS, "dirtune": "not installed"})
    (found,) = (each for each in judgement.versions([lacking]) if each.state != "ok")
    assert (found.subject, found.state, found.value) == ("dirtune", "problem", "not installed")


def test_a_cluster_without_cpus_may_get_some_and_is_warned_of() -> None:
    found = judgement.processors([member(node=Node(0, 1))])
    assert found.state == "warning"
    assert "--expect" in found.advice


def test_gpus_that_ray_does_not_give_away_are_a_warning() -> None:
    found = judgement.accelerators([member(gpus=0), member("b", node=Node(4, 1), gpus=4)])
    assert (found.state, found.value) == ("warning", "1; more on b")
    assert "--num-gpus" in found.advice


def test_a_torch_without_cuda_is_a_problem_only_where_there_are_gpus() -> None:
    assert judgement.cuda([member(cuda=None)]).state == "ok"
    for changes in ({"node": Node(4, 1)}, {"gpus": 1}):
        found = judgement.cuda([member(), member("b", cuda=None, **changes)])
        assert (found.state, found.value) == ("problem", "13.0 on a; none on b")


def test_nccl_is_needed_where_there_are_gpus_and_gloo_everywhere() -> None:
    assert judgement.collectives([member(collectives=("gloo",))]).state == "ok"
    lacking = judgement.collectives([member(node=Node(4, 1), collectives=("gloo",))])
    assert lacking.state == "problem"
    assert "need nccl, which torch lacks on a" in lacking.advice
    assert judgement.collectives([member(collectives=("nccl",))]).state == "warning"


def test_little_shared_memory_is_a_warning_about_the_node_with_the_least() -> None:
    docker = member("b", shared_memory=Space(2**26, 2**26))
    found = judgement.shared_memory([member(), docker])
    assert (found.state, found.value) == ("warning", "0.1 of 0.1 GiB free on b")
    assert "--shm-size" in found.advice
    assert judgement.shared_memory([member(shared_memory=None)]).state == "warning"


@pytest.mark.parametrize(
    ("free", "total", "state"),
    [(50, 100, "ok"), (9, 100, "warning"), (4, 100, "problem"), (40, 1000, "problem"), (0, 0, "warning")],
)
def test_a_disk_is_short_of_space_or_so_full_that_ray_does_not_use_it(free: int, total: int, state: str) -> None:
    roomy = member("a", disk=Space(500 * GIB, 600 * GIB))
    assert judgement.disk([roomy, member("b", disk=Space(free * GIB, total * GIB))]).state == state


def test_few_open_files_are_a_warning() -> None:
    found = judgement.open_files([member(), member("b", open_files=1024)])
    assert (found.state, found.value) == ("warning", "1,024 on b")


@pytest.mark.parametrize(("skew", "state"), [(0.1, "ok"), (10.0, "warning"), (31.0, "problem")])
def test_a_clock_is_wrong_when_a_living_driver_may_be_taken_for_dead(skew: float, state: str) -> None:
    found = judgement.clock([member(), member("b", skew=skew)])
    assert found.state == state
    assert ("b is at least" in found.value) == (state != "ok")
