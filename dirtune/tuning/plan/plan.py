"""Plan of a sweep: the study read, checked against data and nodes, and its trials counted; nothing is trained or written.

`plan` shows it to the user; a sweep starts from the same values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dirtune.data import blocks, cache, memory_budget
from dirtune.io.storage import Storage
from dirtune.results.analysis.sequential import list_due_seeds, make_sequential_rule, read_values
from dirtune.results.records.store import read_table
from dirtune.study import files, resolve
from dirtune.training.train import read_vocabulary
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.models import count_kept_models
from dirtune.tuning.folder.reconcile import Reuse, StudyFolder
from dirtune.tuning.plan import autoscaling, capacity, checks, gpu_memory, label_fit, runtime, runtime_probe
from dirtune.tuning.plan.inert_settings import SettingEffect, measure_setting_effects
from dirtune.wording import format_count

PREVIEW_MEMORY = memory_budget.MemoryBudget(device_bytes=2**28, host_bytes=2**28)
"""Memory for a data set of which only the first batches are needed; a larger one is read from disk, batch by batch."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """Trials, resources and run time of a study."""

    study: resolve.ResolvedStudy
    samples: dict[str, int]
    """Samples by split."""
    trials: dict[str, int]
    """Trials by arm."""
    recorded_trials: int
    """Trials that need not run."""
    orphaned_trials: int = 0
    """Recorded trials that the study no longer plans."""
    concurrency: int
    """Number of concurrent trials."""
    startable_nodes: tuple[autoscaling.NodeType, ...] = ()
    """Nodes that an autoscaler may start, which `concurrency` includes."""
    parameters: dict[str, int]
    """Trainable parameters by arm."""
    kept_models: int = 0
    """Number of trained models that the finished sweep keeps."""
    kept_bytes: int = 0
    """Their size on disk."""
    forecast: runtime.RuntimeForecast | None = None
    gpu_memory_warning: str | None = None
    """Set if trials that share a GPU need more memory than it has."""
    precision_note: str | None = None
    """Set if half precision would save GPU memory, or if the GPU emulates it."""
    packing_note: str | None = None
    """Set if trials would share GPUs while others are idle."""
    setting_effects: tuple[SettingEffect, ...] | None = None
    """Effects of the arms and tuned settings. None: not measured."""
    label_fits: tuple[label_fit.LabelFit, ...] = ()
    """Arms whose label units are far off the training labels, if that was measured."""

    label_period: float | None = None
    """Length after which labels repeat, which no loss and no metric knows; None if they do not, or cover less than half of it."""

    def __repr__(self) -> str:
        numbers = f"{format_count(self.total_trials, 'trial')} of {format_count(len(self.trials), 'arm')}, {self.recorded_trials} recorded"
        return f"Plan({self.study.name}: {numbers}, {self.concurrency} at once)"

    @property
    def inert_settings(self) -> tuple[SettingEffect, ...]:
        """Arms and tuned settings that change nothing, among the measured ones."""
        return tuple(effect for effect in self.setting_effects or () if effect.is_inert)

    @property
    def total_trials(self) -> int:
        return sum(self.trials.values())


def plan(
    study: files.StudySource,
    *,
    changes: Mapping[str, Any] | None = None,
    data: str | Path = "data",
    results: str | Path = "results",
    effects: bool = False,
    probe: bool = False,
    expect: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    allow_plugins: bool = False,
) -> Plan:
    """Return what `sweep` would run; trains nothing but the requested measurements.

    Args:
        study: a file, the name of a shipped study, the content of a file as a mapping, or a `dirtune.Study`.
        changes: values by dotted path of the study file, such as `base.recipe.epochs`.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; the time of a trial is estimated from the trials recorded there.
        effects: measure the effects of all arms and tuned settings on a batch (`dirtune.tuning.plan.inert_settings`).
        probe: estimate the time of a trial from some steps on this machine (`dirtune.tuning.plan.runtime_probe`), and find
            label units that a training cannot bridge (`dirtune.tuning.plan.label_fit`).
        expect: the cluster's file, whose startable nodes are included (`dirtune.tuning.plan.autoscaling`).
        plugins: as for `sweep`.
        allow_plugins: as for `sweep`.

    Raises:
        InputError: the study or the data are invalid, or the nodes cannot hold a trial.
    """
    types = autoscaling.read_node_types(expect)
    file = files.find_study(study, changes)
    files.load_plugins(file, plugins, allow=allow_plugins)
    folder = checks.open_study_folder(file.read_yaml(), file.where, data=data, results=results)
    reuse = folder.find_reuse()
    nodes = capacity.list_available_nodes()
    folder = replace(folder, study=capacity.resolve_cpus(folder.study, [*nodes, *autoscaling.list_nodes(types)]))
    made = make_plan(folder, reuse, nodes, types)
    vocabulary = read_vocabulary(folder.manifest, Storage.open(data)) if probe or effects else None

    def preview(device: torch.device) -> cache.ResidentData:
        return blocks.read_without_ray(Storage.open(data), folder.manifest, device, PREVIEW_MEMORY)

    estimates: Mapping[str, runtime.TimeEstimate | None]
    fits: list[label_fit.LabelFit] = []
    if probe:
        fits = label_fit.measure_label_fits(folder.study, preview(torch.device("cpu")), vocabulary)
        estimates = runtime_probe.estimate_from_probe(
            folder.study, preview(runtime_probe.get_probe_device(folder.study)), vocabulary
        )
    else:
        estimates = runtime.estimate_from_records(folder.study, results)
    rows = read_table(folder.storage, "trials", columns=["trial_id", "arm"])
    arms = dict(zip(rows["trial_id"].to_pylist(), rows["arm"].to_pylist(), strict=True))
    # A study can have a hundred thousand jobs, of which only restored ones are looked up.
    if not reuse.trial_ids <= arms.keys():
        maker = JobMaker(study=folder.study, fingerprint=folder.manifest.fingerprint)
        arms = maker.list_possible_trial_arms() | arms
    # A restored trial of an earlier selection has no arm here: it is planned only if the search selects it again.
    reused = [arms[trial] for trial in reuse.trial_ids if trial in arms]
    left = runtime.count_missing_trials(folder.study, reused)
    measured = measure_setting_effects(folder.study, preview(torch.device("cpu")), vocabulary) if effects else None
    return replace(
        made,
        forecast=runtime.forecast_runtime(folder.study, estimates, left=left, concurrent=made.concurrency),
        gpu_memory_warning=gpu_memory.get_gpu_memory_warning(folder.study, results)
        or gpu_memory.get_step_memory_warning(folder.study, folder.manifest, results),
        precision_note=gpu_memory.get_precision_note(folder.study, folder.manifest),
        setting_effects=None if measured is None else tuple(measured),
        label_fits=tuple(fit for fit in fits if fit.is_far_off),
    )


def make_plan(
    folder: StudyFolder, reuse: Reuse, nodes: Sequence[capacity.Node], types: Sequence[autoscaling.NodeType]
) -> Plan:
    """Return the plan for these nodes and those that an autoscaler may start.

    Args:
        types: node types of the autoscaler.

    Raises:
        InputError: the nodes cannot hold a trial.
    """
    study, manifest, startable = folder.study, folder.manifest, autoscaling.find_startable_nodes(types, nodes)
    trials, sizes = count_trials(folder), checks.measure_model_bytes(study, manifest)
    models = count_kept_models(study, trials)
    all_nodes = [*nodes, *autoscaling.list_nodes(startable)]
    left = sum(trials.values()) - len(reuse.trial_ids)
    return Plan(
        study=study,
        recorded_trials=len(reuse.trial_ids),
        orphaned_trials=len(reuse.orphaned),
        parameters=checks.count_parameters(study, manifest),
        samples={name: split.rows for name, split in manifest.splits.items()},
        trials=trials,
        kept_models=sum(models.values()),
        kept_bytes=sum(number * sizes[arm] for arm, number in models.items()),
        concurrency=capacity.compute_concurrency(study, all_nodes),
        packing_note=capacity.get_packing_note(study, all_nodes, trials=left),
        startable_nodes=startable,
        label_period=period if (period := manifest.label.period) and 2 * manifest.label.range > period else None,
    )


def count_trials(folder: StudyFolder) -> dict[str, int]:
    """Return the number of trials by arm, with the seeds that a sequential study needs by its records."""
    study = folder.study
    trials = {arm.name: study.count_trials(arm) for arm in study.arms}
    rule = make_sequential_rule(folder.to_info())
    if rule is not None:
        due = list_due_seeds(rule, read_values(folder.storage, rule))
        trials = {arm: len(due[arm]) for arm in trials}
    return trials
