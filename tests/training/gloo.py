"""Run a function on several ranks on this machine, which communicate by gloo; the processes are started once and kept for the session."""

from __future__ import annotations

import pickle
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Started at most once each: importing torch and the library takes a process seconds.
_workers: list[tuple[Any, Connection]] = []


def on_ranks(
    world: int, function: Callable[..., Any], *arguments: Any, fresh: bool = False, backend: str = "gloo"
) -> list[Any]:
    """Return what `function(rank, world, *arguments)` returns on every rank; results are tensors and plain data.

    Args:
        world: number of ranks.
        function: a function at the top of its module.
        arguments: picklable.
        fresh: start new processes, for functions that change the state of their process, and end them.
        backend: of torch.distributed.
    """
    workers = [_start_worker() for _ in range(world)] if fresh else _get_workers(world)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for rank, (_, connection) in enumerate(workers):
                connection.send_bytes(pickle.dumps((rank, world, folder, backend, function, arguments)))
            answers = _receive(workers)
    except BaseException:
        # The others may wait for the failed rank forever.
        _stop(workers)
        if not fresh:
            _workers.clear()
        raise
    if fresh:
        _stop(workers)
    return answers


def _receive(workers: list[tuple[Any, Connection]]) -> list[Any]:
    """Return the answers in the order of the ranks, or raise the first error in time."""
    answers: dict[int, Any] = {}
    ranks = {connection: rank for rank, (_, connection) in enumerate(workers)}
    while len(answers) < len(workers):
        waiting = [connection for connection, rank in ranks.items() if rank not in answers]
        for connection in wait(waiting):
            is_error, answer = pickle.loads(connection.recv_bytes())
            if is_error:
                raise RuntimeError(f"rank {ranks[connection]} failed:\n{answer}")
            answers[ranks[connection]] = answer
    return [answers[rank] for rank in range(len(workers))]


def _get_workers(world: int) -> list[tuple[Any, Connection]]:
    while len(_workers) < world:
        _workers.append(_start_worker())
    return _workers[:world]


def _start_worker() -> tuple[Any, Connection]:
    # All ranks are forked from one process that has imported what takes seconds, and has run nothing.
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "dirtune.training.trial"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _stop(workers: list[tuple[Any, Connection]]) -> None:
    for process, connection in workers:
        connection.close()
        process.kill()
        process.join()


def _serve(connection: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            rank, world, folder, backend, function, arguments = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=world)
            try:
                # Through torch's own format, which loads tensors and plain data only.
                path = Path(folder) / f"{rank}.pt"
                torch.save(function(rank, world, *arguments), path)
                answer = False, torch.load(path)
            finally:
                dist.destroy_process_group()
        except Exception:
            answer = True, traceback.format_exc()
        connection.send_bytes(pickle.dumps(answer))
