"""Run with `pytest tests/cluster/test_checks.py`."""

from __future__ import annotations

from typing import Any

import pytest

from dirtune.cluster import checks
from dirtune.cluster.checks import CHECKS, GIB, Check, NodeReport, check_nodes
from dirtune.cluster.gpu_health import GpuHealth
from dirtune.cluster.machine import Machine, Space
from dirtune.tuning.plan.capacity import Node

VERSIONS = {"dirtune": "0.1.0", "Python": "3.11.7", "Ray": "2.60.0", "torch": "2.15.0"}

FOUR_CPUS = Node(4)


def make_machine(**changes: Any) -> Machine:
    usual: dict[str, Any] = {
        "versions": VERSIONS,
        "cuda": "13.0",
        "driver": "580.65.06",
        "gpu_test": "GPU, capability 9.0, 79 of 80 GiB free",
        "gpus": 0,
        "compiler": "/usr/bin/gcc",
        "collectives": ("gloo", "nccl"),
        "shared_memory": Space(8 * GIB, 8 * GIB),
        "disk": Space(50 * GIB, 100 * GIB),
        "open_files": 65536,
    }
    return Machine(**{**usual, **changes})


def make_report(name: str = "a", *, node: Node = FOUR_CPUS, clock_skew: float = 0.0, **changes: Any) -> NodeReport:
    return NodeReport(name=name, node=node, machine=make_machine(**changes), clock_skew=clock_skew)


def test_a_good_cluster_has_one_check_per_subject_and_no_advice() -> None:
    found = list(check_nodes([make_report("a"), make_report("b", node=Node(8, 2), gpus=2)]))
    assert {each.state for each in found} == {"ok"}
    assert not [each.advice for each in found if each.advice]
    subjects = [each.subject for each in found]
    assert subjects == [
        "dirtune",
        "Python",
        "Ray",
        "torch",
        "NVIDIA driver",
        "GPU test",
        "C compiler",
        "CPUs",
        "GPUs",
        "GPU build",
        "collectives",
        "shared memory",
        "disk",
        "open files",
        "clock",
    ]
    values = {each.subject: each.value for each in found}
    assert (values["CPUs"], values["GPUs"]) == ("12 on 2 nodes", "2")


def test_every_check_that_is_not_ok_has_advice() -> None:
    bad = make_report(
        "b",
        node=Node(0, 1),
        clock_skew=100.0,
        gpus=2,
        cuda=None,
        gpu_fault="RuntimeError: CUDA error",
        collectives=(),
        shared_memory=None,
        disk=Space(0, GIB),
        open_files=256,
        versions={**VERSIONS, "Ray": "2.59.0"},
    )
    assert len(CHECKS) == 8
    for check in check_nodes([bad]):
        assert (check.state == "ok") == (check.advice == ""), check


@pytest.mark.parametrize("name", list(VERSIONS))
def test_another_version_on_a_node_is_a_problem_that_names_the_node(name: str) -> None:
    other = make_report("b", versions={**VERSIONS, name: "9.9"})
    (found,) = (each for each in checks.check_versions([make_report(), other]) if each.state != "ok")
    assert (found.subject, found.state) == (name, "problem")
    assert found.value == f"{VERSIONS[name]} on a; 9.9 on b"


def test_a_package_that_is_not_installed_on_any_node_is_a_problem() -> None:
    lacking = make_report(versions={**VERSIONS, "dirtune": "not installed"})
    (found,) = (each for each in checks.check_versions([lacking]) if each.state != "ok")
    assert (found.subject, found.state, found.value) == ("dirtune", "problem", "not installed")


def test_a_cluster_without_cpus_is_a_warning_because_it_may_scale_up() -> None:
    found = checks.check_cpus([make_report(node=Node(0, 1))])
    assert found.state == "warning"
    assert "--expect" in found.advice


def test_gpus_that_ray_does_not_schedule_are_a_warning() -> None:
    found = checks.check_gpus([make_report(gpus=0), make_report("b", node=Node(4, 1), gpus=4)])
    assert (found.state, found.value) == ("warning", "1; more on b")
    assert "--num-gpus" in found.advice


def test_a_torch_for_cpus_is_a_problem_only_where_there_are_gpus() -> None:
    assert checks.check_gpu_build([make_report(cuda=None)]).state == "ok"
    for changes in ({"node": Node(4, 1)}, {"gpus": 1}):
        found = checks.check_gpu_build([make_report(), make_report("b", cuda=None, **changes)])
        assert (found.state, found.value) == ("problem", "CUDA 13.0 on a; none on b")


def test_a_build_with_rocm_is_named_and_checked_by_what_applies_to_it() -> None:
    of_amd = {"node": Node(8, 1), "gpus": 1, "cuda": None, "rocm": "6.4.43484", "driver": None}
    # Before the capability 8.0 of NVIDIA, none of theirs lacks bf16.
    test = "AMD Instinct MI100, capability 7.0, 31 of 32 GiB free"
    amd = make_report("amd", gpu_test=test, **of_amd)
    found = {each.subject: each for each in check_nodes([amd])}
    assert {each.state for each in found.values()} == {"ok"}
    assert (found["GPU build"].value, found["GPU test"].value) == ("ROCm 6.4.43484", test)
    assert not found.keys() & {"NVIDIA driver", "bf16"}
    # Together with one of NVIDIA
    both = {each.subject: each for each in check_nodes([amd, make_report("b", node=Node(8, 1), gpus=1)])}
    assert both["GPU build"].value == "ROCm 6.4.43484 on amd; CUDA 13.0 on b"
    assert both["NVIDIA driver"].value == "580.65.06"
    broken = make_report("amd", gpu_test=None, gpu_fault="GPU 0: RuntimeError: HIP error: out of memory", **of_amd)
    (fault,) = checks.check_gpu_function([broken])
    assert (fault.subject, fault.state) == ("GPU test", "problem")
    assert "rocm-smi" in fault.advice
    assert "nvidia" not in fault.advice.lower()


def test_nccl_is_required_on_nodes_with_gpus_and_gloo_everywhere() -> None:
    assert checks.check_collectives([make_report(collectives=("gloo",))]).state == "ok"
    lacking = checks.check_collectives([make_report(node=Node(4, 1), collectives=("gloo",))])
    assert lacking.state == "problem"
    assert "need nccl, which torch lacks on a" in lacking.advice
    assert checks.check_collectives([make_report(collectives=("nccl",))]).state == "warning"


def test_little_shared_memory_is_a_warning_with_the_node_that_has_least() -> None:
    docker = make_report("b", shared_memory=Space(2**26, 2**26))
    found = checks.check_shared_memory([make_report(), docker])
    assert (found.state, found.value) == ("warning", "0.1 of 0.1 GiB free on b")
    assert "--shm-size" in found.advice
    assert checks.check_shared_memory([make_report(shared_memory=None)]).state == "warning"


@pytest.mark.parametrize(
    ("free", "total", "state"),
    [(50, 100, "ok"), (9, 100, "warning"), (4, 100, "problem"), (40, 1000, "problem"), (0, 0, "warning")],
)
def test_a_disk_with_little_space_is_a_warning_and_one_too_full_for_ray_a_problem(
    free: int, total: int, state: str
) -> None:
    roomy = make_report("a", disk=Space(500 * GIB, 600 * GIB))
    assert checks.check_disk([roomy, make_report("b", disk=Space(free * GIB, total * GIB))]).state == state


def test_few_open_files_are_a_warning() -> None:
    found = checks.check_open_files([make_report(), make_report("b", open_files=1024)])
    assert (found.state, found.value) == ("warning", "1,024 on b")


@pytest.mark.parametrize(("skew", "state"), [(0.1, "ok"), (10.0, "warning"), (31.0, "problem")])
def test_clock_skew_is_a_problem_when_a_lock_may_expire_while_its_driver_runs(skew: float, state: str) -> None:
    found = checks.check_clocks([make_report(), make_report("b", clock_skew=skew)])
    assert found.state == state
    assert ("b is at least" in found.value) == (state != "ok")


def test_warnings_are_no_problem() -> None:
    fine, odd = (Check(subject="a", value="1"), Check(subject="b", value="2", state="warning"))
    assert not checks.has_problem([fine, odd])
    assert checks.has_problem([fine, Check(subject="c", value="3", state="problem"), odd])


def test_a_common_value_is_shown_once_and_different_ones_by_node() -> None:
    assert checks.group_by_value({"a": "2.60", "b": "2.60"}) == "2.60"
    assert checks.group_by_value({"a": "2.60", "b": "2.59", "c": "2.60"}) == "2.60 on a, c; 2.59 on b"
    assert checks.group_by_value({}) == ""


def test_nodes_after_the_fourth_are_counted() -> None:
    assert checks.list_names(["a", "b"]) == "a, b"
    assert checks.list_names(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"


def test_a_driver_that_is_older_than_cuda_and_a_gpu_that_fails_are_problems_with_their_nodes() -> None:
    good = make_report("a", node=Node(8, 1), gpus=1)
    old = make_report("b", node=Node(8, 1), gpus=1, driver="570.124", gpu_test=None, gpu_fault="RuntimeError: too old")
    driver, test = checks.check_gpu_function([good, old, make_report("c", driver=None)])
    assert (driver.state, test.state) == ("problem", "problem")
    assert driver.value == "580.65.06 on a; 570.124 on b"
    assert driver.advice == "install NVIDIA driver 580 or later on b: CUDA 13.0 of torch needs it"
    assert test.value == "RuntimeError: too old"
    assert [each.state for each in checks.check_gpu_function([good])] == ["ok", "ok"]
    assert list(checks.check_gpu_function([make_report()])) == []


def test_a_missing_compiler_and_emulated_bf16_are_warnings_where_there_are_gpus() -> None:
    old = make_report(
        "old", node=Node(8, 1), gpus=1, compiler=None, gpu_test="Tesla T4, capability 7.5, 14 of 15 GiB free"
    )
    good = make_report("good", node=Node(8, 1), gpus=1)
    (compiler,) = checks.check_compiler([good, old])
    (precision,) = checks.check_half_precision([good, old])
    assert (compiler.state, compiler.value) == ("warning", "none on old")
    assert "install gcc and Python's headers" in compiler.advice
    assert (precision.state, precision.value) == ("warning", "emulated on old, whose GPUs have a capability below 8.0")
    assert [each.value for each in checks.check_compiler([good])] == ["/usr/bin/gcc"]
    assert list(checks.check_compiler([make_report(compiler=None)])) == []
    assert list(checks.check_half_precision([good, make_report(gpu_test=None)])) == []


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "capability"),
        ("AcceleratorError: CUDA error: uncorrectable ECC error encountered", "--gpu-reset"),
        ("AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", "-c DEFAULT"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB.", "lists"),
        ("RuntimeError: its convolution differs from the CPU's by 31.0%", "replaced"),
        ("no result within 60 s", "hangs"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "install or reload the NVIDIA driver"),
        ("RuntimeError: something else", "repair it"),
    ],
)
def test_the_advice_for_a_gpu_that_fails_follows_from_its_fault(fault: str, advice: str) -> None:
    report = make_report(node=Node(8, 1), gpus=1, gpu_test=None, gpu_fault=f"GPU 0: {fault}")
    *_, test = checks.check_gpu_function([report])
    assert test.state == "problem"
    assert advice in test.advice
    assert "leave its GPUs out" in test.advice


def test_memory_errors_and_compute_modes_are_reported_with_their_gpus() -> None:
    healthy = GpuHealth(number=0, name="H200")
    assert list(checks.check_gpu_health([make_report()])) == []
    (found,) = checks.check_gpu_health([make_report(gpu_health=(healthy, healthy)), make_report("b")])
    assert (found.state, found.value, found.advice) == ("ok", "2 without a fault", "")
    faults = [
        ({"is_beyond_repair": True, "waits_for_reset": True}, "problem", "memory that cannot be repaired"),
        ({"waits_for_reset": True, "uncorrectable": 3}, "warning", "a repair waits for a reset"),
        ({"action": "Reset"}, "warning", "a repair waits for a reset"),
        ({"uncorrectable": 3}, "warning", "memory errors that could not be corrected since the driver was loaded"),
        ({"compute_mode": "Prohibited"}, "problem", "compute mode Prohibited"),
        ({"compute_mode": "Exclusive_Process"}, "warning", "compute mode Exclusive_Process"),
    ]
    for changes, state, text in faults:
        gpu = GpuHealth(number=1, name="H200", **changes)
        (found,) = checks.check_gpu_health([make_report(gpu_health=(healthy, gpu)), make_report("b")])
        assert (found.state, found.value) == (state, f"{text}: GPU 1 of a")
        assert found.advice
