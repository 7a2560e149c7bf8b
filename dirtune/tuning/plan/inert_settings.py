"""Does every arm, and every tuned setting, change the training? One batch of each says so before a sweep spends hours.

An arm is compared with the reference, and with other arms that begin as it does; a setting with itself: the same arm with
the two ends of its space. What changes the gradient of the first step is alive, and so is what changes the updates of the
first steps of some stage, such as a weight decay. The rest is looked at for what can legitimately act later (epochs,
learning rates, clipping, shot regions, feature smoothing), and is said as that; what is left is dead: it is read from the
file, written into the results, and enters nothing.

A gradient that is only scaled is dead where the optimizer undoes it, as Adam does. Limit: what acts on rare batches only can
seem dead; the sentence says what was looked at.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from dirtune.config import Recipe, TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.manifest import Manifest
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm
from dirtune.study.space import Choice, Distribution, Scalar
from dirtune.training.stages import stages
from dirtune.tuning.plan.first_steps import Beginning, beginnings, change, first_step, misalignment, smoothed_updates

STEPS = 3
ROUNDING = 1e-6
"""A relative change up to this is the rounding of float32."""
SAME_UPDATES = 1e-2
"""Updates of a scaled gradient that differ by less are the same: what is left of a scale in Adam is its epsilon."""

Kind = Literal["gradient", "updates", "later", "nothing", "constant", "rounding", "scale"]
_DEAD = {
    "nothing": "changes neither loss nor gradient",
    "constant": "changes the loss, but not its gradient",
    "rounding": "changes the gradient by rounding only",
    "scale": "only scales the gradient, which the optimizer undoes",
}


@dataclass(frozen=True, kw_only=True)
class TrainingChange:
    """What one difference between two configurations changes."""

    kind: Kind
    size: float = 0.0
    """Relative change of the gradient or of the updates."""
    later: tuple[str, ...] = ()
    """What acts after the first steps."""

    @property
    def is_dead(self) -> bool:
        return self.kind in _DEAD


@dataclass(frozen=True, kw_only=True)
class SettingEffect:
    """What an arm changes against another one, or a setting inside its arm."""

    arm: str
    knob: str = ""
    """Dotted path; empty: the arm itself."""
    compared: str
    """With what, or between which values."""
    effect: TrainingChange

    @property
    def is_dead(self) -> bool:
        return self.effect.is_dead

    @property
    def does(self) -> str:
        """What it changes, without a subject."""
        if self.effect.kind == "later":
            return f"changes nothing at first, but later: {', '.join(self.effect.later)}"
        return _DEAD.get(self.effect.kind, f"changes the {self.effect.kind}")

    def __str__(self) -> str:
        """One sentence."""
        knob = f": knob {self.knob}" if self.knob else ""
        return f"arm {self.arm}{knob} {self.does} ({self.compared})"


def measure_setting_effects(
    study: ResolvedStudy, data: ResidentData, vocabulary: list[str] | None = None
) -> Iterator[SettingEffect]:
    """What every arm but the reference, and every tuned setting, changes; each when it is known.

    Args:
        study: resolved, and checked against the data.
        data: in the hands of this process; only the first batches are read.
        vocabulary: of a text data set.
    """
    look = _Look(data, vocabulary)
    yield from _of_arms(study, look)
    for arm in study.searched_arms:
        for path in arm.space:
            yield _of_knob(study, arm, path, look)


def get_ends(knob: Distribution) -> tuple[Scalar, Scalar]:
    """The two values of a space that are compared: its bounds, or the first and the last of a list."""
    return (knob.values[0], knob.values[-1]) if isinstance(knob, Choice) else (knob.low, knob.high)


def _of_arms(study: ResolvedStudy, look: _Look) -> Iterator[SettingEffect]:
    # It comes first
    arms = sorted(study.arms, key=lambda arm: arm.name != study.reference)
    seen: dict[str, _Begun] = {}
    for arm in arms:
        begun = look.at(arm.config)
        # Of the others only those are looked at whose loss is the same; what trains as they do has it.
        found = {
            name: look.effect(other, begun)
            for name, other in seen.items()
            if name == study.reference or other.first.loss == begun.first.loss
        }
        seen[arm.name] = begun
        if found:
            against = next((name for name in found if found[name].is_dead), next(iter(found)))
            compared = f"against {against}"
            yield SettingEffect(arm=arm.name, compared=compared, effect=found[against])


def _of_knob(study: ResolvedStudy, arm: Arm, path: str, look: _Look) -> SettingEffect:
    """Beside the arm's own values of the other settings, and if it does nothing there, beside their upper ends."""
    first, last = get_ends(arm.space[path])
    others = {name: get_ends(knob)[1] for name, knob in arm.space.items() if name != path}
    effect = TrainingChange(kind="nothing")
    for beside in ({}, others):
        # The ends of several settings may not go together.
        with contextlib.suppress(ValidationError):
            one, other = (
                look.at(arm.with_settings({**beside, path: value}, study.seeds[0])) for value in (first, last)
            )
            effect = look.effect(one, other)
        if not effect.is_dead:
            break
    return SettingEffect(arm=arm.name, knob=path, compared=f"{first!r} against {last!r}", effect=effect)


class _Begun(NamedTuple):
    """A configuration and its first step."""

    config: TrialConfig
    first: Beginning


@dataclass(frozen=True)
class _Look:
    """Compares two configurations, as cheaply as the answer allows."""

    data: ResidentData
    vocabulary: list[str] | None

    def at(self, config: TrialConfig) -> _Begun:
        return _Begun(config, first_step(config, self.data, self.vocabulary))

    def effect(self, one: _Begun, other: _Begun) -> TrainingChange:
        """What the difference between two configurations changes."""
        found = self._of_steps(one, other)
        clips = one.config.recipe.gradient_clip is not None
        if found.is_dead and clips and one.first.loss != other.first.loss:
            # Gradients of two lengths were cut to one.
            return TrainingChange(kind="later", later=("gradient clipping",))
        return found

    def _of_steps(self, one: _Begun, other: _Begun) -> TrainingChange:
        size = change(one.first.gradient, other.first.gradient)
        # NaN is a change
        if not size <= ROUNDING:
            return self._of_other_gradients(one, other, size)
        if size > 0:
            return TrainingChange(kind="rounding", size=size)
        if (size := self._updates_change(one, other)) > 0:
            return TrainingChange(kind="updates", size=size)
        if later := self._later(one.config, other.config):
            return TrainingChange(kind="later", later=later)
        return TrainingChange(kind="nothing" if one.first.loss == other.first.loss else "constant")

    def _of_other_gradients(self, one: _Begun, other: _Begun, size: float) -> TrainingChange:
        is_scaled = misalignment(one.first.gradient, other.first.gradient) <= ROUNDING
        may_be_undone = is_scaled and _undoes_scales(other.config.recipe)
        if not may_be_undone or self._updates_change(one, other) > SAME_UPDATES:
            return TrainingChange(kind="gradient", size=size)
        later = self._later(one.config, other.config)
        return TrainingChange(kind="later" if later else "scale", size=size, later=later)

    def _updates_change(self, one: _Begun, other: _Begun) -> float:
        """The largest change of the updates in any stage that both have; infinite where they are not numbers."""
        pairs = zip(self._stages(one.config), self._stages(other.config), strict=False)
        sizes = [change(first.updates, second.updates) for first, second in pairs]
        return max(math.inf if math.isnan(size) else size for size in sizes)

    def _stages(self, config: TrialConfig) -> Iterator[Beginning]:
        return beginnings(config, self.data, self.vocabulary, steps=STEPS)

    def _later(self, one: TrialConfig, other: TrialConfig) -> tuple[str, ...]:
        """What differs after the first steps, by what to call it."""
        of_one, of_other = (_acts_later(config, self.data.manifest) for config in (one, other))
        found = tuple(name for name in of_one if of_one[name] != of_other[name])
        return found or (("feature smoothing",) if self._smooths_otherwise(one, other) else ())

    def _smooths_otherwise(self, one: TrialConfig, other: TrialConfig) -> bool:
        both = [config.reweighting.fds for config in (one, other)]
        if both[0] == both[1]:
            return False
        begins = max(max(fds.start_smooth, fds.start_update + 1) for fds in both if fds is not None)
        # Three epochs more: statistics that have been taken twice differ by how they are carried on.
        epochs = min(begins + 3, *(stages(config)[0].epochs for config in (one, other)))
        ended = [smoothed_updates(config, self.data, self.vocabulary, epochs=epochs) for config in (one, other)]
        return change(*ended) != 0


def _undoes_scales(recipe: Recipe) -> bool:
    """Adam divides a gradient by its size; but a weight decay that is added to the gradient weighs less beside a larger one."""
    return recipe.optimizer == "adamw" or (recipe.optimizer == "adam" and recipe.weight_decay == 0)


def _acts_later(config: TrialConfig, manifest: Manifest) -> dict[str, Any]:
    plan = stages(config)
    return {
        "epochs": [stage.epochs for stage in plan],
        "learning rate": [stage.rate(epoch) for stage in plan for epoch in range(stage.start + 1, stage.end + 1)],
        "gradient clipping": config.recipe.gradient_clip,
        "shot regions": manifest.shot_rules[config.data.shot_rule or manifest.default_shot_rule],
    }
