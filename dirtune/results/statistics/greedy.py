"""Greedy ablation path from one arm to another through arms that were trained.

Source: Fawcett and Hoos, "Analyzing differences between algorithm configurations through ablation", Journal of Heuristics
2016, for the path; Biedenkapp et al., "Efficient Parameter Importance Analysis via Ablation with Surrogates", AAAI 2017.

Departures: (1) no surrogate replaces an arm that was not trained; such an arm is named instead. (2) A step is a part,
which may be several settings. (3) Where no arm is one part away, the nearest ones are compared.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dirtune.results.statistics.paired import compare_by_seed

State = frozenset[str]
"""Parts of an arm."""


@dataclass(frozen=True)
class Step:
    """Step from one trained arm to the next."""

    before: State
    after: State
    rivals: tuple[State, ...]
    """Trained arms at the same distance that are not as good."""
    untrained: tuple[State, ...]
    """Arms one part away on the way to the end that cannot be compared."""

    @property
    def parts(self) -> State:
        """Parts that this step changes."""
        return self.before ^ self.after


def find_greedy_path(losses: Mapping[State, Mapping[int, float]], start: State, end: State) -> tuple[Step, ...]:
    """Go at each step to the nearest arm on the way to the end; among equally near ones, to the smallest loss.

    Losses are compared by the mean of their differences, paired by seed, to the arm that the step leaves. An arm is on the
    way if all that changes from one arm to the other is what is still to change.

    Args:
        losses: by parts and seed, smaller being better.
        start: the parts of the first arm.
        end: the parts of the last arm; more parts than `start` to add them, fewer to remove them.

    Returns:
        The steps; they stop short of the end where no arm on the way has a seed in common with the last one reached.
    """
    steps: list[Step] = []
    here = start
    while here != end:
        own = losses.get(here, {})
        # A subset of what is still to change, so that no step takes back a part that an earlier one has changed.
        on_the_way = (state for state in losses if state != here and state ^ here <= here ^ end)
        differences = {state: compare_by_seed(losses[state], own).mean for state in on_the_way}
        # NaN: no seed in common.
        gains = {state: gain for state, gain in differences.items() if not math.isnan(gain)}
        if not gains:
            break
        # Only the nearest: a step of several parts at once would not show which of them made the difference.
        nearest = min(len(state ^ here) for state in gains)
        near = [state for state in gains if len(state ^ here) == nearest]
        best = min(near, key=lambda state: gains[state])
        neighbors = [here ^ {part} for part in sorted(here ^ end)]
        steps.append(
            Step(
                before=here,
                after=best,
                rivals=tuple(state for state in near if state != best),
                untrained=tuple(state for state in neighbors if state not in gains),
            )
        )
        here = best
    return tuple(steps)
