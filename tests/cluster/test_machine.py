"""Run with `pytest tests/cluster/test_machine.py`."""

from __future__ import annotations

import platform
import re
import resource
import shutil
import sysconfig
from pathlib import Path

import pytest
import ray
import torch

from dirtune.cluster import machine
from dirtune.cluster.machine import (
    Machine,
    Space,
    count_amd_gpus,
    count_nvidia_gpus,
    find_compiler,
    get_lowest_driver,
    measure_machine,
    measure_space,
    read_driver_version,
    run_gpu_test,
)


def test_a_machine_has_the_properties_of_its_system_and_libraries(tmp_path: Path) -> None:
    found = measure_machine(tmp_path)
    assert isinstance(found, Machine)
    assert found.versions["Python"] == platform.python_version()
    assert found.versions["Ray"] == ray.__version__
    assert torch.__version__.startswith(found.versions["torch"])
    assert found.versions["dirtune"][0].isdigit()
    assert found.cuda == torch.version.cuda
    assert set(found.collectives) <= {"gloo", "nccl"}
    assert found.disk.total == shutil.disk_usage(tmp_path).total
    assert found.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_gpus_are_counted_by_the_folder_of_the_nvidia_driver(tmp_path: Path) -> None:
    assert count_nvidia_gpus(tmp_path / "none") == 0
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / address).mkdir()
    assert count_nvidia_gpus(tmp_path) == 2


def test_gpus_of_amd_are_the_nodes_with_an_id_of_its_driver(tmp_path: Path) -> None:
    assert count_amd_gpus(tmp_path / "none") == 0
    for node, gpu_id in enumerate(("0", "35824", "51140")):
        (tmp_path / str(node)).mkdir()
        (tmp_path / str(node) / "gpu_id").write_text(f"{gpu_id}\n")
    assert count_amd_gpus(tmp_path) == 2


@pytest.mark.parametrize("hip", [None, "6.4.43484"])
def test_a_build_with_rocm_is_recognized_and_its_gpus_are_those_of_the_amd_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hip: str | None
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(machine, "count_nvidia_gpus", lambda: 0)
    monkeypatch.setattr(machine, "count_amd_gpus", lambda: 2)
    monkeypatch.setattr(machine, "run_gpu_test", lambda: ("AMD Instinct MI300X", None))
    found = measure_machine(tmp_path)
    assert (found.rocm, found.gpus, found.gpu_test) == ((hip, 2, "AMD Instinct MI300X") if hip else (None, 0, None))


def test_a_missing_folder_has_no_space(tmp_path: Path) -> None:
    assert measure_space(tmp_path / "none") is None
    found = measure_space(tmp_path)
    assert isinstance(found, Space)
    assert 0 < found.free <= found.total


def test_the_version_of_the_driver_is_that_of_its_kernel_module(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert read_driver_version(file) is None
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 13.3\n"
    )
    assert read_driver_version(file) == "580.65.06"
    assert [get_lowest_driver(cuda) for cuda in ("12.4", "13.2", "")] == [525, 580, None]


def test_the_compiler_is_the_one_that_triton_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda _: {"include": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "Python.h").touch()
    assert find_compiler() is None
    for name in ("clang", "gcc"):
        (tmp_path / name).touch(mode=0o755)
        assert find_compiler() == str(tmp_path / name)
    monkeypatch.setenv("CC", "missing")
    assert find_compiler() is None
    monkeypatch.delenv("CC")
    (tmp_path / "Python.h").unlink()
    assert find_compiler() is None


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a GPU")
def test_the_test_of_the_gpus_says_why_there_is_none() -> None:
    found, fault = run_gpu_test()
    assert found is None
    assert re.match(r"(RuntimeError|AssertionError): .*(NVIDIA|CUDA)", str(fault))
