"""Schema of a study file (`Study` and its sections), and `Arm`, one configuration under comparison."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dirtune.config import Objective, TrialConfig
from dirtune.frozen import Frozen, to_canonical_json
from dirtune.metrics import REGIONS, check_directed
from dirtune.nested import merge, nest
from dirtune.presets import PresetUse
from dirtune.randomness import SEED_LIMIT
from dirtune.study.search_settings import Search, Sequential
from dirtune.study.space import Distribution
from dirtune.trackers.target import PACKAGES, has_keys

KeepModels = Literal["best", "all", "none"]


class Derive(Frozen):
    """Arms derived from the study's parts and from its reference arm."""

    add_one_in: tuple[str, ...] = ()
    """The base, and the base with each of these parts alone."""
    leave_one_out: tuple[str, ...] = ()
    """All of these parts together, and all but each one."""
    ladder: tuple[str, ...] = ()
    """The base, then these parts added one after another."""
    pairs: tuple[str, ...] = ()
    """The base, each of these parts alone, and every two of them: the arms from which interactions are computed."""
    one_factor: dict[str, tuple[Any, ...]] = {}
    """Settings by dotted path, and the values that each takes alone, the others being those of the reference arm."""


class Claim(Frozen):
    """The one column of the results that words such as helps are about, fixed before they are seen."""

    metric: str | None = None
    """None: that of the objective."""
    region: str | None = None
    """None: few if it has at least 100 test samples, else all; in a sequential study that of the objective."""
    margin: str | None = None
    """Largest difference that counts as none: 2% of the reference's mean, or 0.5 in the metric's unit. None: no difference is
    called the same."""

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metric: str | None) -> str | None:
        return metric if metric is None else check_directed(metric)

    @field_validator("region")
    @classmethod
    def _check_region(cls, region: str | None) -> str | None:
        if region is not None and region not in REGIONS:
            raise ValueError(f"must be one of {', '.join(REGIONS)}")
        return region

    @field_validator("margin", mode="before")
    @classmethod
    def _format_number(cls, margin: Any) -> Any:
        # A number needs no quotes in YAML.
        is_number = isinstance(margin, int | float) and not isinstance(margin, bool)
        return str(margin) if is_number else margin


class Resources(Frozen):
    """Resources of one trial while it runs."""

    cpus: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """CPU cores, and torch threads, of each worker. auto: a worker on a GPU has its share of the node's cores, which decode the
    images of the next batches; others have one."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of each worker, at most 1; a fraction lets trials of one worker share a GPU."""
    workers: int = Field(default=1, ge=1)
    """1: the trial runs inside its Tune actor; 2 or more: a resident Ray Train group."""
    concurrent: int | None = Field(default=None, ge=1)
    """Largest number of concurrent trials. None: as many as fit on the cluster."""
    checkpoint_seconds: float = Field(default=10.0, ge=0)
    """Smallest time between two checkpoints of a trial, in seconds; 0: each epoch has one, and is reported on its own."""

    @property
    def cores(self) -> int:
        """CPU cores of each worker; for auto, one until the nodes are known (`dirtune.tuning.plan.capacity.resolve_cpus`)."""
        return 1 if self.cpus == "auto" else self.cpus

    @field_validator("gpus")
    @classmethod
    def _check_share(cls, gpus: float) -> float:
        if gpus > 1:
            raise ValueError("a worker trains on one GPU at most; for more of them give the trial several workers")
        return gpus

    @model_validator(mode="after")
    def _check_group(self) -> "Resources":
        if self.workers > 1 and 0 < self.gpus < 1:
            # NCCL refuses two ranks on one GPU, and where Ray places them is known only when they start.
            raise ValueError("a trial of several workers needs whole GPUs: set gpus to 1, or to 0 for CPUs")
        return self


class Study(Frozen):
    """A study file as written."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=200)
    """Name of the study, and of its folder below the results root."""
    question: str
    """What the comparison is to answer; shown with the results."""
    base: dict[str, Any]
    """Settings of all arms: a `TrialConfig` without seed and objective."""
    arms: dict[str, dict[str, Any]] = {"base": {}}
    """Named arms, as overlays of `base`."""
    parts: dict[str, dict[str, Any]] = {}
    """Named overlays of `base` from which `derive` composes arms; null, for parts and arms, is an empty overlay."""
    derive: Derive = Derive()
    """Arms composed of the parts, or varied from the reference."""
    axes: dict[str, tuple[Any, ...]] = {}
    """Compared values of settings, by dotted path; every arm is crossed with every combination."""
    reference: str
    """The arm that the others are compared with."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=SEED_LIMIT)], ...] = Field(min_length=1)
    """Seeds of every arm: arms with the same seed have the same samples, order and initial weights."""
    splits: int = Field(default=1, ge=1, le=100)
    """Number of train, val and test splits of the data set that every arm is trained on with all seeds. 1: the ingested one;
    further ones are drawn from all its rows (`dirtune.data.resplit`)."""
    space: dict[str, Distribution] = {}
    """Tuned settings, by dotted path."""
    search: Search = Search()
    """Number of trials, sampler and scheduler of the search in every arm that has tuned settings."""
    objective: Objective = Objective()
    """Metric and region on validation data that select the epoch and the configuration. None given: that of the reference arm's recipe, or the mean absolute error."""
    claim: Claim = Claim()
    """Metric, region and margin that the study's words are about."""
    secondary: tuple[Objective, ...] = ()
    """Validation metrics that a search optimizes together with the objective; the objective alone selects."""
    sequential: Sequential | None = None
    """Seeds added while a comparison is open. None: every arm has the seeds above."""
    representations: int = Field(default=0, ge=0)
    """Test samples of every trial whose representations are stored, for figures; not part of a trial's id."""
    keep_models: KeepModels = "best"
    """Trained models that are kept, for `dirtune predict` and `dirtune export`; not part of a trial's id. best: for every arm those
    of its selected configuration, one per seed; all: those of every complete trial, also of searches."""
    log: tuple[str, ...] = ()
    """Trackers that a sweep's trials are written to (`dirtune.trackers`), such as `mlflow` or `wandb:PROJECT`; not part of a trial's
    id."""
    resources: Resources = Resources()
    plugins: tuple[str, ...] = ()
    """Python files with losses, terms, encoders or metrics of your own, relative to the study's file (`dirtune.plugins`)."""

    @field_validator("arms", "parts", mode="before")
    @classmethod
    def _read_empty_overlays(cls, overlays: Any) -> Any:
        # `vanilla:` with nothing behind it is how YAML names an arm without settings of its own.
        if not isinstance(overlays, dict):
            return overlays
        return {name: {} if overlay is None else overlay for name, overlay in overlays.items()}

    @field_validator("log")
    @classmethod
    def _check_trackers(cls, log: tuple[str, ...]) -> tuple[str, ...]:
        for text in log:
            if text.partition(":")[0] not in PACKAGES:
                raise ValueError(f"{text!r} must begin with one of {', '.join(PACKAGES)}")
            # The study is copied into the results.
            if has_keys(text):
                raise ValueError("must have no keys: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return log


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration under comparison; `config` has the study's first seed."""

    name: str
    axis_values: Mapping[str, Any]
    """Values of the study's axes, by dotted path."""
    config: TrialConfig
    space: Mapping[str, Distribution]
    """Tuned settings, by dotted path."""
    is_derived: bool = False
    transferred_settings: tuple[str, ...] = ()
    """Settings, by dotted path, that take the values selected in the reference arm."""
    presets: PresetUse = field(default_factory=PresetUse)
    from_data: Mapping[str, float | list[float]] = field(default_factory=dict)
    """Settings that the study does not give, by dotted path, with their numbers from the data (`dirtune.data.label_units`)."""

    @cached_property
    def axis_values_json(self) -> str:
        return to_canonical_json(self.axis_values)

    def with_seed(self, seed: int) -> TrialConfig:
        """Return the configuration with another seed."""
        return self.config.model_copy(update={"seed": seed})

    def with_settings(self, settings: Mapping[str, Any], seed: int) -> TrialConfig:
        """Return the configuration with tuned settings and a seed.

        Args:
            settings: values by dotted path.

        Raises:
            ValidationError: the settings do not fit together.
        """
        # Through JSON, since strict validation of Python values refuses lists for tuples.
        plain = self.config.to_plain() | {"seed": seed}
        for path, value in settings.items():
            plain = merge(plain, nest(path, value))
        return TrialConfig.model_validate_json(json.dumps(plain))
