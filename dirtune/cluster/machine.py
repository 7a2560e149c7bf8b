"""Measurement of one machine: versions, GPUs, collectives, memory, disk, limits. `dirtune.cluster.checks` rates it."""

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed

from dirtune.cluster.gpu_health import GpuHealth, read_gpu_health

SHARED_MEMORY = Path("/dev/shm")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")
AMD_DRIVER = Path("/sys/class/kfd/kfd/topology/nodes")
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
GPU_TIMEOUT = 60.0
"""Seconds for the test of a machine's GPUs, most of which go into loading CUDA's libraries."""

# The first driver of a major version of CUDA, whose minor versions all run on it (NVIDIA, "CUDA Compatibility").
_LOWEST_DRIVERS = {"11": 450, "12": 525, "13": 580}

_GPU_TEST = Path(__file__).with_name("device_test.py")
# Ray and others hide GPUs by them; the last two are those of ROCm.
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
# Of an exception, and of a GPU that failed, in the output of a program
_FAULT = re.compile(r"(GPU \d+: )?[\w.]+(Error|Exception)?: ")


class Space(NamedTuple):
    """Bytes of a file system."""

    free: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Properties of one machine, as plain values that travel between Ray processes."""

    versions: dict[str, str]
    """Versions of dirtune, Python, Ray and torch, or "not installed"."""
    cuda: str | None
    """CUDA version that torch is built with, or None."""
    rocm: str | None = None
    """ROCm version that torch is built with for GPUs of AMD, or None; without both, torch computes on CPUs only."""
    gpus: int
    """GPUs that the driver has, whether Ray schedules them or not."""
    driver: str | None = None
    """Version of the NVIDIA driver, or None if there is none."""
    gpu_test: str | None = None
    """The GPUs that have computed a convolution and a matrix product; None if there are none, or one failed."""
    gpu_fault: str | None = None
    """Why a GPU failed."""
    gpu_health: tuple[GpuHealth, ...] = ()
    """Empty if it is not known."""
    compiler: str | None = None
    """C compiler that Triton finds, which `recipe.compile` needs on a GPU; None if there is none, or no Python.h."""
    collectives: tuple[str, ...]
    """Backends of torch.distributed, of gloo and nccl."""
    shared_memory: Space | None
    """None if there is no /dev/shm."""
    disk: Space
    """File system of Ray's session folder."""
    open_files: int
    """Maximum number of open files of a process."""


def measure_machine(session: str | Path) -> Machine:
    """Measure this machine.

    Args:
        session: a folder on the disk that Ray writes to.
    """
    versions = {"Python": platform.python_version()}
    for name, package in {"dirtune": "dirtune", "Ray": "ray", "torch": "torch"}.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            versions[name] = "not installed"
    backends = {}
    if torch.distributed.is_available():
        backends = {"gloo": torch.distributed.is_gloo_available(), "nccl": torch.distributed.is_nccl_available()}
    # Of AMD's, graphics for a screen are among them, which a torch without ROCm need not use.
    gpus = count_nvidia_gpus() if torch.version.hip is None else count_amd_gpus()
    gpu_test, gpu_fault = run_gpu_test() if gpus else (None, None)
    return Machine(
        versions=versions,
        cuda=torch.version.cuda,
        rocm=torch.version.hip,
        gpus=gpus,
        driver=read_driver_version(),
        gpu_test=gpu_test,
        gpu_fault=gpu_fault,
        gpu_health=read_gpu_health() if gpus else (),
        compiler=find_compiler(),
        collectives=tuple(name for name, is_available in backends.items() if is_available),
        shared_memory=measure_space(SHARED_MEMORY),
        # Ray creates the session folder before it runs tasks.
        disk=measure_space(Path(session)) or Space(0, 0),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def count_nvidia_gpus(folder: Path = NVIDIA_DRIVER) -> int:
    """Return the number of GPUs of the NVIDIA driver."""
    # Not by CUDA: Ray hides the GPUs from a task that has not requested any, by CUDA_VISIBLE_DEVICES.
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def count_amd_gpus(folder: Path = AMD_DRIVER) -> int:
    """Return the number of GPUs of the AMD driver, whose nodes are CPUs, with an id of zero, and GPUs."""
    return sum(file.read_text().strip() != "0" for file in folder.glob("*/gpu_id"))


def read_driver_version(file: Path = DRIVER_VERSION) -> str | None:
    """Return the version of the NVIDIA driver, or None if there is none."""
    found = re.search(r"\s(\d+\.\d+[\d.]*)\s", file.read_text()) if file.exists() else None
    return found[1] if found else None


def find_compiler() -> str | None:
    """Return the C compiler that Triton uses, or None if there is none or Python's headers are missing."""
    # As in triton/runtime/build.py
    command = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    has_headers = (Path(sysconfig.get_paths(scheme)["include"]) / "Python.h").exists()
    return command if command and shutil.which(command) and has_headers else None


def get_lowest_driver(cuda: str) -> int | None:
    """Return the major version of the first NVIDIA driver for a version of CUDA, or None if it is not known."""
    return _LOWEST_DRIVERS.get(cuda.split(".")[0])


def run_gpu_test(timeout: float = GPU_TIMEOUT) -> tuple[str | None, str | None]:
    """Compute on every GPU of this machine; return the GPUs, or None and the reason why one failed."""
    # Ray may hide the GPUs from this task.
    environment = {name: value for name, value in os.environ.items() if name not in _HIDING}
    command = [sys.executable, "-P", str(_GPU_TEST)]
    try:
        ended = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return None, f"no result within {timeout:.0f} s"
    if ended.returncode:
        lines = [line.strip() for line in ended.stderr.splitlines() if _FAULT.match(line)]
        of_gpus = "; ".join(line for line in lines if line.startswith("GPU "))
        return None, of_gpus or (lines[-1] if lines else f"the process ended with code {ended.returncode}")
    return "; ".join(dict.fromkeys(ended.stdout.split("\n")[:-1])), None


def measure_space(folder: Path) -> Space | None:
    """Return free and total bytes of the file system of a folder, or None if the folder does not exist."""
    if not folder.exists():
        return None
    usage = shutil.disk_usage(folder)
    return Space(usage.free, usage.total)
