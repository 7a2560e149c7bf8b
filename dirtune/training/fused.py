"""Trainings side by side in one process: batches are read, decoded, augmented and copied to the device once for all.

They go in lockstep, a step each, so that few batches are kept; and each finds torch's generators as it left them, so that
it comes to what it would come to alone. Which trainings see the same batches follows from their configurations alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dirtune.batch import Batch
from dirtune.config import TrialConfig
from dirtune.frozen import canonical_json


def batches_key(config: TrialConfig) -> str:
    """What decides about the batches of a training: two with the same key see the same ones in every epoch."""
    plain = config.plain()
    of_recipe = {name: plain["recipe"][name] for name in _OF_RECIPE}
    return canonical_json([of_recipe, *(plain[name] for name in ("data", "seed", "scheme"))])


def in_lockstep(members: Sequence[Iterator[None]], device: torch.device) -> None:
    """Let iterators make a step each, in turns, until all have ended."""
    waiting = deque((member, _random_state(device)) for member in members)
    while waiting:
        member, state = waiting.popleft()
        _restore(state, device)
        if next(member, _END) is None:
            waiting.append((member, _random_state(device)))


# For the type checks of the tests
@runtime_checkable
class Taker(Protocol):
    """A training, as far as its batches are concerned."""

    config: TrialConfig
    feed: Feed | None

    @property
    def epoch(self) -> int: ...


def share_batches(takers: Sequence[Taker]) -> None:
    """Let trainings that go in lockstep share the batches of their next epochs, as far as they see the same ones."""
    alike: dict[str, list[Taker]] = {}
    for taker in takers:
        alike.setdefault(batches_key(taker.config), []).append(taker)
    for group in alike.values():
        feed = Feed(Counter(taker.epoch + 1 for taker in group))
        for taker in group:
            taker.feed = feed


class Feed:
    """The batches of one epoch of each of some trainings with the same `batches_key`, which go in lockstep.

    Args:
        takers: how many of them train each epoch; they stand at different ones when some go on from older checkpoints.
    """

    def __init__(self, takers: Mapping[int, int]) -> None:
        self._takers = takers
        self._sources: dict[int, _Source] = {}

    def shared(self, batches: Iterator[Batch], epoch: int, weights: Float[Tensor, " rows"]) -> Iterator[Batch]:
        """The batches of an epoch for one of its takers.

        Args:
            batches: what it would take if it were alone; the first taker's are read, the others' are not.
            weights: its re-weighting of every row of the split.
        """
        source = self._sources.setdefault(epoch, _Source(batches, self._takers[epoch]))
        for batch in source.take():
            yield replace(batch, weights=weights[batch.rows])


class _Source:
    """Keeps a batch until all takers have had it."""

    def __init__(self, batches: Iterator[Batch], takers: int) -> None:
        self._batches, self._to_come = batches, takers
        # For takers that are still to come
        self._so_far: list[Batch] = []
        self._waiting: list[deque[Batch]] = []

    def take(self) -> Iterator[Batch]:
        own = deque(self._so_far)
        self._waiting.append(own)
        self._to_come -= 1
        if self._to_come == 0:
            self._so_far.clear()
        try:
            while own or self._read():
                yield own.popleft()
        finally:  # also of one that leaves early
            self._waiting = [each for each in self._waiting if each is not own]

    def _read(self) -> bool:
        """Read the next batch for everybody, if there is one."""
        batch = next(self._batches, None)
        if batch is None:
            return False
        if self._to_come:
            self._so_far.append(batch)
        for each in self._waiting:
            each.append(batch)
        return True


_OF_RECIPE = ("epochs", "batch_size", "accumulation", "views")
_END = object()


def _random_state(device: torch.device) -> tuple[Tensor, ...]:
    own = torch.get_rng_state()
    return (own, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (own,)


def _restore(state: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
