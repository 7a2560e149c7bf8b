"""Resident Ray Train group: `workers` processes that run one distributed trial after another.

Starting a `TorchTrainer` takes tens of seconds, more than a small trial does. So it is started once, and its training
function executes commands until it receives `CLOSE`; all ranks execute the same sequence: start a trial, step one epoch,
close. The commands travel through a small mailbox actor; rank 0 replies.
"""

import asyncio
import tempfile
import threading
from dataclasses import replace
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from dirtune.data.blocks import Blocks
from dirtune.training import distributed, trial
from dirtune.tuning.execution.ray_workarounds import get_reservation
from dirtune.tuning.execution.worker import ResidentWorker, StepResult, WorkerSettings

STEP, CLOSE = "step", "close"
Command = trial.TrialJob | str
"""A trial to start, `STEP` or `CLOSE`."""


class _Mailbox:
    """Numbered commands for all ranks, and the reply of rank 0 to each."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._replies: dict[int, StepResult | None] = {}
        self._changed = asyncio.Condition()

    async def send(self, command: Command) -> int:
        async with self._changed:
            self._commands.append(command)
            self._changed.notify_all()
            return len(self._commands) - 1

    async def receive(self, number: int) -> Command:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._commands) > number)
            return self._commands[number]

    async def reply(self, number: int, result: StepResult | None) -> None:
        async with self._changed:
            self._replies[number] = result
            self._changed.notify_all()

    async def collect(self, number: int) -> StepResult | None:
        async with self._changed:
            await self._changed.wait_for(lambda: number in self._replies)
            return self._replies.pop(number)


class ResidentGroup:
    """Training group that runs trials on `settings.workers` ranks, with the interface of `ResidentWorker`."""

    def __init__(self, settings: WorkerSettings, blocks: Blocks) -> None:
        # No CPU for the mailbox, or the ranks would not fit on a machine that they fill
        self._mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
        self._failure: BaseException | None = None
        self._logs = tempfile.TemporaryDirectory(prefix="dirtune-group-")
        self._trainer = TorchTrainer(
            _serve,
            train_loop_config={"mailbox": self._mailbox, "settings": settings, "blocks": blocks},
            torch_config=TorchConfig(backend="nccl" if settings.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=settings.workers, use_gpu=bool(settings.gpus), resources_per_worker=settings.resources
            ),
            # Ray Train must not restart the group by itself: Tune does, with the trial that it has lost.
            run_config=RunConfig(storage_path=self._logs.name, failure_config=FailureConfig(max_failures=0)),
        )
        self._thread = threading.Thread(target=self._fit, name="resident-group", daemon=True)
        self._thread.start()

    def start(self, job: trial.TrialJob) -> None:
        """Begin a trial on all ranks."""
        self._execute(job)

    def step(self) -> StepResult:
        """Run one epoch of the current trial on all ranks."""
        result = self._execute(STEP)
        assert result is not None, "rank 0 replies to every step"
        return result

    def close(self) -> None:
        """Let the training function return, so that Train frees the group's resources."""
        if self._thread.is_alive():
            ray.get(self._mailbox.send.remote(CLOSE))
            self._thread.join(timeout=30)
        ray.kill(self._mailbox)
        self._logs.cleanup()

    def _execute(self, command: Command) -> StepResult | None:
        number = ray.get(self._mailbox.send.remote(command))
        reply = self._mailbox.collect.remote(number)
        while True:
            ready, _ = ray.wait([reply], timeout=1.0)
            if ready:
                return ray.get(reply)  # type: ignore[no-any-return]
            # Ranks that have died send no reply.
            if not self._thread.is_alive():
                raise self._failure or RuntimeError("the training group ended")

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            # Kept for the thread that waits for a reply: what a thread raises is lost
            self._failure = error


def _serve(config: dict[str, Any]) -> None:
    """Execute commands until `CLOSE`; the training function of every rank."""
    context = ray.train.get_context()
    ranks = distributed.Ranks(context.get_world_rank(), context.get_world_size())
    mailbox, device = config["mailbox"], ray.train.torch.get_device()
    worker = ResidentWorker(config["settings"], config["blocks"], device, ranks)
    number = 0
    while (command := ray.get(mailbox.receive.remote(number))) != CLOSE:
        result = None
        if command == STEP:
            result = replace(worker.step(), reservation=get_reservation())
        else:
            worker.start(command)
        if ranks.is_first:
            ray.get(mailbox.reply.remote(number, result))
        number += 1
