"""A resident Ray Train group: `workers` processes that run one distributed trial after another.

Starting a `TorchTrainer` costs tens of seconds, more than a small trial takes. So it is started once, its training
function serves commands until it is told to end, and all ranks obey the same command sequence: `start` a trial, `step`
one epoch, `close`. The commands travel through a small mailbox actor; rank 0 answers.
"""

from __future__ import annotations

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
from dirtune.training.distributed import Ranks
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution.reservations import own_reservation
from dirtune.tuning.execution.worker import ResidentWorker, StepResult, WorkerSettings

STEP, CLOSE = "step", "close"
Command = TrialJob | str


class _Mailbox:
    """Numbered commands to all ranks, and rank 0's answer to each."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._answers: dict[int, StepResult | None] = {}
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

    async def answer(self, number: int, result: StepResult | None) -> None:
        async with self._changed:
            self._answers[number] = result
            self._changed.notify_all()

    async def collect(self, number: int) -> StepResult | None:
        async with self._changed:
            await self._changed.wait_for(lambda: number in self._answers)
            return self._answers.pop(number)


class ResidentGroup:
    """Runs trials on `settings.workers` ranks; the interface of `ResidentWorker`."""

    def __init__(self, settings: WorkerSettings, blocks: Blocks) -> None:
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
            run_config=RunConfig(storage_path=self._logs.name, failure_config=FailureConfig(max_failures=0)),
        )
        self._thread = threading.Thread(target=self._fit, name="resident-group", daemon=True)
        self._thread.start()

    def start(self, job: TrialJob) -> None:
        """Begin a trial on all ranks."""
        self._do(job)

    def step(self) -> StepResult:
        """Run one epoch of the current trial on all ranks."""
        answer = self._do(STEP)
        assert answer is not None, "rank 0 answers every step"
        return answer

    def close(self) -> None:
        """Let the training function return, so that Train frees the group's resources."""
        if self._thread.is_alive():
            ray.get(self._mailbox.send.remote(CLOSE))
            self._thread.join(timeout=30)
        ray.kill(self._mailbox)
        self._logs.cleanup()

    def _do(self, command: Command) -> StepResult | None:
        number = ray.get(self._mailbox.send.remote(command))
        answer = self._mailbox.collect.remote(number)
        while True:
            ready, _ = ray.wait([answer], timeout=1.0)
            if ready:
                return ray.get(answer)  # type: ignore[no-any-return]
            if not self._thread.is_alive():
                raise self._failure or RuntimeError("the training group ended")

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._failure = error


def _serve(config: dict[str, Any]) -> None:
    """The training function of every rank: obey commands until told to close."""
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    mailbox, device = config["mailbox"], ray.train.torch.get_device()
    worker = ResidentWorker(config["settings"], config["blocks"], device, ranks)
    number = 0
    while (command := ray.get(mailbox.receive.remote(number))) != CLOSE:
        answer = None
        if command == STEP:
            answer = replace(worker.step(), reservation=own_reservation())
        else:
            worker.start(command)
        if ranks.is_first:
            ray.get(mailbox.answer.remote(number, answer))
        number += 1
