"""Inert settings: arms and tuned settings that change nothing in training, found on one batch each before a sweep.

An arm is compared with the reference and with the arms that have the same first loss; a setting is compared at both
ends of its space, in the same arm. A change of the first step's gradient is an effect, and so is a change of the
updates of the first steps of some stage, as by a weight decay. Otherwise the settings that can act later are compared
(epochs, learning rates, clipping, shot regions, feature smoothing). If they are equal too, the arm or setting is inert:
it is read from the file and recorded in the results, and changes nothing.

A gradient that is only scaled is inert where the optimizer undoes the scale, as Adam does. Limitation: a setting that
acts on rare batches only can look inert; the message names what was compared.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from dirtune.config import TrialConfig
from dirtune.data import cache, subset
from dirtune.manifest import Manifest
from dirtune.study import resolve, schema, space
from dirtune.training import passes, stages
from dirtune.tuning.plan import first_steps

COMPARED_STEPS = 3
ROUNDING = 1e-6
"""Relative changes up to this are rounding of float32."""
SAME_UPDATES = 1e-2
"""Relative changes of the updates under a scaled gradient up to this are due to Adam's epsilon."""

Kind = Literal["gradient", "updates", "later", "nothing", "constant", "rounding", "scale"]
_INERT = {
    "nothing": "changes neither loss nor gradient",
    "constant": "changes the loss, but not its gradient",
    "rounding": "changes the gradient by rounding only",
    "scale": "only scales the gradient, which the optimizer undoes",
}


@dataclass(frozen=True, kw_only=True)
class TrainingChange:
    """Difference between the trainings of two configurations."""

    kind: Kind
    size: float = 0.0
    """Relative change of the gradient or of the updates."""
    later: tuple[str, ...] = ()
    """Differences that act after the first steps."""

    @property
    def is_inert(self) -> bool:
        return self.kind in _INERT


@dataclass(frozen=True, kw_only=True)
class SettingEffect:
    """Effect of an arm compared with another one, or of a tuned setting in its arm."""

    arm: str
    setting: str = ""
    """Dotted path; empty for the arm itself."""
    compared: str
    """The other arm, or the two values."""
    change: TrainingChange

    @property
    def is_inert(self) -> bool:
        return self.change.is_inert

    @property
    def description(self) -> str:
        """Verb phrase, such as "changes the updates"."""
        if self.change.kind == "later":
            return f"changes nothing at first, but later: {', '.join(self.change.later)}"
        return _INERT.get(self.change.kind, f"changes the {self.change.kind}")

    def __str__(self) -> str:
        setting = f": setting {self.setting}" if self.setting else ""
        return f"arm {self.arm}{setting} {self.description} ({self.compared})"


def measure_setting_effects(
    study: resolve.ResolvedStudy, data: cache.ResidentData, vocabulary: list[str] | None = None
) -> Iterator[SettingEffect]:
    """Yield the effect of every arm except the reference, and of every tuned setting.

    Args:
        study: a study that was checked against the data.
        data: the data set; only its first batches are read.
        vocabulary: words of a text data set.
    """
    comparison = _TrainingComparison(data, vocabulary)
    seen: dict[str, _FirstStep] = {}
    # The reference comes first, since the others are compared with it.
    for arm in sorted(study.arms, key=lambda arm: arm.name != study.reference):
        own = comparison.train(arm.config)
        # An arm that trains identically has the same first loss, so that the other arms need no comparison.
        changes = {
            name: comparison.compare(other, own)
            for name, other in seen.items()
            if name == study.reference or other.steps.loss == own.steps.loss
        }
        seen[arm.name] = own
        if changes:
            against = next((name for name in changes if changes[name].is_inert), next(iter(changes)))
            yield SettingEffect(arm=arm.name, compared=f"against {against}", change=changes[against])
    for arm in study.searched_arms:
        for path in arm.space:
            yield _measure_setting(study, arm, path, comparison)


def get_ends(distribution: space.Distribution) -> tuple[space.Scalar, space.Scalar]:
    """Return the two compared values of a distribution: its bounds, or the first and last value of a list."""
    if isinstance(distribution, space.Choice):
        return distribution.values[0], distribution.values[-1]
    return distribution.low, distribution.high


def _measure_setting(
    study: resolve.ResolvedStudy, arm: schema.Arm, path: str, comparison: "_TrainingComparison"
) -> SettingEffect:
    """Compare the ends of a setting with the arm's own other settings, and if that is inert, with their upper ends."""
    first, last = get_ends(arm.space[path])
    upper_ends = {name: get_ends(distribution)[1] for name, distribution in arm.space.items() if name != path}
    change = TrainingChange(kind="nothing")
    # A setting can depend on another one: a temperature has no effect while the weight of its term is zero.
    for others in ({}, upper_ends):
        # The ends of several settings may not be valid together.
        with contextlib.suppress(ValidationError):
            one, other = (
                comparison.train(arm.with_settings({**others, path: value}, study.seeds[0])) for value in (first, last)
            )
            change = comparison.compare(one, other)
        if not change.is_inert:
            break
    return SettingEffect(arm=arm.name, setting=path, compared=f"{first!r} against {last!r}", change=change)


class _FirstStep(NamedTuple):
    """A configuration and its first step."""

    config: TrialConfig
    steps: first_steps.FirstSteps


@dataclass(frozen=True)
class _TrainingComparison:
    """Comparison of two configurations, with the costly measurements only if the cheap ones find no difference."""

    data: cache.ResidentData
    vocabulary: list[str] | None

    def train(self, config: TrialConfig) -> _FirstStep:
        return _FirstStep(config, first_steps.record_first_step(config, self.data, self.vocabulary))

    def compare(self, one: _FirstStep, other: _FirstStep) -> TrainingChange:
        """Return the difference between the trainings of two configurations."""
        found = self._compare_steps(one, other)
        clips = one.config.recipe.gradient_clip is not None
        if found.is_inert and clips and one.steps.loss != other.steps.loss:
            # Gradients of different lengths were clipped to one.
            return TrainingChange(kind="later", later=("gradient clipping",))
        return found

    def _compare_steps(self, one: _FirstStep, other: _FirstStep) -> TrainingChange:
        size = first_steps.compute_change(one.steps.gradient, other.steps.gradient)
        # Negated, since NaN is a change.
        if not size <= ROUNDING:
            return self._compare_scales(one, other, size)
        # A setting with an effect changes more than the last bits; one without changes none on a CPU.
        if size > 0:
            return TrainingChange(kind="rounding", size=size)
        if (size := self._compare_updates(one, other)) > 0:
            return TrainingChange(kind="updates", size=size)
        if later := self._find_later_differences(one.config, other.config):
            return TrainingChange(kind="later", later=later)
        return TrainingChange(kind="nothing" if one.steps.loss == other.steps.loss else "constant")

    def _compare_scales(self, one: _FirstStep, other: _FirstStep, size: float) -> TrainingChange:
        """Return the difference of two configurations with different gradients."""
        is_scaled = first_steps.compute_direction_change(one.steps.gradient, other.steps.gradient) <= ROUNDING
        recipe = other.config.recipe
        # Adam divides a gradient by its size. A weight decay that is added to the gradient breaks that: it counts less
        # with a larger gradient.
        undoes_scales = recipe.optimizer == "adamw" or (recipe.optimizer == "adam" and recipe.weight_decay == 0)
        if not (is_scaled and undoes_scales) or self._compare_updates(one, other) > SAME_UPDATES:
            return TrainingChange(kind="gradient", size=size)
        later = self._find_later_differences(one.config, other.config)
        return TrainingChange(kind="later" if later else "scale", size=size, later=later)

    def _compare_updates(self, one: _FirstStep, other: _FirstStep) -> float:
        """Return the largest change of the updates in any stage that both have; infinity for NaN."""
        one_stages, other_stages = (
            first_steps.record_first_steps(each.config, self.data, self.vocabulary, steps=COMPARED_STEPS)
            for each in (one, other)
        )
        sizes = [
            first_steps.compute_change(a.updates, b.updates) for a, b in zip(one_stages, other_stages, strict=False)
        ]
        return max(math.inf if math.isnan(size) else size for size in sizes)

    def _find_later_differences(self, one: TrialConfig, other: TrialConfig) -> tuple[str, ...]:
        """Return the names of the differences that act after the first steps."""
        of_one, of_other = (_get_later_settings(config, self.data.manifest) for config in (one, other))
        found = tuple(name for name in of_one if of_one[name] != of_other[name])
        return found or (("feature smoothing",) if self._has_other_smoothing(one, other) else ())

    def _has_other_smoothing(self, one: TrialConfig, other: TrialConfig) -> bool:
        both = [config.reweighting.fds for config in (one, other)]
        if both[0] == both[1]:
            return False
        begins = max(max(fds.start_smooth, fds.start_update + 1) for fds in both if fds is not None)
        # Three epochs more: how the statistics are updated matters from their second update on.
        epochs = min(begins + 3, *(stages.list_stages(config)[0].recipe.epochs for config in (one, other)))
        updates = [
            first_steps.record_smoothed_updates(config, self.data, self.vocabulary, epochs=epochs)
            for config in (one, other)
        ]
        return first_steps.compute_change(*updates) != 0


def _get_later_settings(config: TrialConfig, manifest: Manifest) -> dict[str, Any]:
    plan, rows = stages.list_stages(config), subset.count_rows(manifest.splits["train"].rows, config.data.fraction)
    return {
        "epochs": [stage.recipe.epochs for stage in plan],
        "learning rate": [
            stage.compute_learning_rate(epoch) for stage in plan for epoch in range(stage.start + 1, stage.end + 1)
        ],
        "steps per epoch": config.recipe.steps_per_epoch,
        "early stopping": config.recipe.early_stopping,
        "last batch": passes.Passes(plan[0], rows).used_rows,
        "gradient clipping": config.recipe.gradient_clip,
        "shot regions": manifest.shot_rules[config.data.shot_rule or manifest.default_shot_rule],
    }
