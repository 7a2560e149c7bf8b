"""Program that adds up tensors over the processes of a group, as trials of several workers add up their gradients.

A process of its own (`dirtune.cluster.collectives`): a group whose members do not reach each other may never return. Printed by the
first member: the rate in GB/s. It needs torch alone.

    collective_test.py BACKEND HOST PORT RANK WORLD
"""

import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

ELEMENTS = {"nccl": 2**24, "gloo": 2**18}
"""Elements of the tensor, about as many as a large model has parameters."""
ROUNDS = 5
TIMEOUT = 60.0
"""Seconds for the members to meet."""


def reduce(backend: str, host: str, port: int, rank: int, world: int) -> float:
    """Return the bytes per second of an `all_reduce`.

    Raises:
        RuntimeError: the sum is wrong; or from torch, the members do not reach each other.
    """
    device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
    dist.init_process_group(
        backend,
        init_method=f"tcp://{host}:{port}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=TIMEOUT),
        device_id=device if backend == "nccl" else None,
    )
    values = torch.full((ELEMENTS[backend],), float(rank + 1), device=device)
    # A warm-up, which connects the members
    dist.all_reduce(values)
    expected = world * (world + 1) / 2
    if not bool((values == expected).all()):
        raise RuntimeError(f"the sum over {world} processes is wrong")
    started = time.perf_counter()
    for _ in range(ROUNDS):
        dist.all_reduce(values)
    if backend == "nccl":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    dist.destroy_process_group()
    return ROUNDS * values.numel() * values.element_size() / seconds


def main() -> None:
    """Run a member of the group."""
    backend, host, port, rank, world = sys.argv[1:]
    rate = reduce(backend, host, int(port), int(rank), int(world))
    if rank == "0":
        print(f"{rate / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
