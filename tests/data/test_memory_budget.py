"""Run with `pytest tests/data/test_memory_budget.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from dirtune.data import memory_budget
from dirtune.data.memory_budget import (
    FREE_SHARE,
    MemoryBudget,
    count_sharers,
    get_free_memory,
    get_peak_memory,
    measure_memory_budget,
)

CPU = torch.device("cpu")

# One process for all numbers, because the import of torch takes seconds.
SCRIPT = """
import resource
from pathlib import Path
import torch
from dirtune.data.memory_budget import return_freed_memory
from dirtune.process import keep_freed_memory

def count_faults():
    for _ in range(16):
        torch.ones(16, 3, 512, 512)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16, 3, 512, 512)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def count_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

torch.set_num_threads(1)
freed = count_faults()
keep_freed_memory()
kept = count_faults()
return_freed_memory()
start = count_pages()
tensors = [torch.ones(2**20) for _ in range(50)]
del tensors
held = count_pages() - start
return_freed_memory()
print(freed, kept, held, count_pages() - start)
"""


@pytest.fixture(scope="module")
def numbers() -> list[int]:
    """Page faults without and with kept memory, and resident pages of freed memory before and after its return."""
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc is part of Linux")
    return list(map(int, subprocess.check_output([sys.executable, "-c", SCRIPT]).split()))


def test_workers_that_start_together_share_the_free_memory() -> None:
    alone, one_of_four = (measure_memory_budget(torch.device("cpu"), sharers=sharers) for sharers in (1, 4))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < alone.device_bytes <= FREE_SHARE * total
    assert alone.host_bytes == alone.device_bytes
    # Other processes come and go between the two measurements.
    assert one_of_four.device_bytes == pytest.approx(alone.device_bytes / 4, rel=0.3)
    assert measure_memory_budget(torch.device("cpu"), threads=3).threads == 3


def test_the_share_of_a_gpu_does_not_depend_on_the_workers_before(monkeypatch: pytest.MonkeyPatch) -> None:
    free, cuda = [40, 26, 12, 2], torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 40))
    shares = []
    while free:
        shares.append(measure_memory_budget(cuda, sharers=4).device_bytes)
        free.pop(0)
    # What is not free cannot be taken.
    assert shares == [4, 4, 4, 2]


def test_the_peak_memory_of_the_process_never_decreases() -> None:
    before = get_peak_memory(CPU)
    # 1 GiB
    held = torch.ones(2**28)
    with_it = get_peak_memory(CPU)
    del held
    assert with_it >= max(before, 2**30)
    assert get_peak_memory(CPU) >= with_it


def test_workers_share_a_gpu_by_fractions_and_a_node_by_cores() -> None:
    assert [count_sharers(cpus=1, gpus=gpus) for gpus in (0.2, 0.5, 1.0, 4.0)] == [5, 2, 1, 1]
    cores = os.cpu_count() or 1
    assert count_sharers(cpus=1, gpus=0.0) == cores
    assert count_sharers(cpus=2 * cores, gpus=0.0) == 1


def test_the_memory_limit_of_a_container_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, group = tmp_path / "meminfo", tmp_path / "cgroup"
    memory.write_text("MemTotal:  2000 kB\nMemAvailable:  1000 kB\n")
    monkeypatch.setattr(memory_budget, "_MEMORY_INFO", memory)
    monkeypatch.setattr(memory_budget, "_CGROUP", group)
    assert get_free_memory(CPU) == 1000 * 1024
    group.mkdir()
    (group / "memory.current").write_text("300000\n")
    for limit, expected in (("max", 1_024_000), ("500000", 200_000), ("9000000", 1_024_000), ("9", 0)):
        (group / "memory.max").write_text(f"{limit}\n")
        assert get_free_memory(CPU) == expected


def test_budgets_are_not_negative_and_have_a_thread() -> None:
    with pytest.raises(ValidationError):
        MemoryBudget(device_bytes=-1, host_bytes=0)
    with pytest.raises(ValidationError):
        MemoryBudget(device_bytes=0, host_bytes=0, threads=0)


@pytest.mark.slow
def test_kept_memory_is_reused_without_page_faults(numbers: list[int]) -> None:
    """Minor page faults of four batches of 50 MB, after others of that size."""
    freed, kept, _, _ = numbers
    assert kept < 0.5 * freed


@pytest.mark.slow
def test_kept_memory_is_returned_to_the_kernel(numbers: list[int]) -> None:
    """Pages of 200 MB that were freed."""
    _, _, held, after = numbers
    assert held > 40_000
    assert after < 0.2 * held
