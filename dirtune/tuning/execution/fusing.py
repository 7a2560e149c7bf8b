"""How many trials a worker trains side by side where the study leaves it open (`fuse: auto`): what its device has room for.

    trials = SAFE_SHARE / (memory taken so far / trials that took it)

with the memory as a share of what the worker may take: its part of what was free on the GPU when it started. On a CPU nothing
is reported, and trials run alone, because there it gains nothing. The first trials run alone and tell. What all trials of a process share, data and libraries, counts for each of
them then, so that the number grows towards what fits. Trade-off: arms differ, and one that needs far more than those before it
may run out of memory; it then fails alone, or starts again with smaller micro-batches (`resources.memory_retries`).
"""

from __future__ import annotations

from typing import Literal

Fuse = int | Literal["auto"]
"""So many trials side by side, or as many as are found to fit."""

SAFE_SHARE = 0.7
"""Of its memory, what a worker's trials are meant to take: caches leave fragments, and arms differ."""

MOST = 8
"""More side by side gain little, and all of them lose what they have since their checkpoints if the worker dies."""


class Fusing:
    """How many trials one worker may have at once."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        # The largest share of memory, by trials that took it
        self._taken: dict[int, float] = {}

    @property
    def most(self) -> int:
        if self._fuse != "auto":
            return self._fuse
        if not self._taken:
            return 1
        # Their common part weighs least
        trials = max(self._taken)
        return max(1, min(MOST, int(SAFE_SHARE * trials / self._taken[trials])))

    def learn(self, trials: int, memory_share: float) -> None:
        """So many trials have trained an epoch side by side, and taken this share of their worker's memory."""
        self._taken[trials] = max(memory_share, self._taken.get(trials, 0.0))
