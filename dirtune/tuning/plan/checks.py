"""Checks of a study against its data set and the machine, before a sweep runs anything."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from dirtune.config import Objective
from dirtune.data import label_units, resplit, store
from dirtune.errors import Fault, InputError
from dirtune.frozen import to_canonical_json
from dirtune.io.storage import Storage
from dirtune.io.yamlfile import parse_yaml
from dirtune.manifest import Manifest
from dirtune.metrics import DEVIATION_METRICS, EXTRA_METRICS
from dirtune.models.regressor import Regressor
from dirtune.nested import get_leaf
from dirtune.plugins import find_obstacle
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.study.schema import Arm
from dirtune.training import numerics, task, train
from dirtune.tuning.folder.reconcile import StudyFolder
from dirtune.tuning.search.warm_start import find_first_settings


def open_study_folder(text: str, where: str, *, data: str | Path, results: str | Path) -> StudyFolder:
    """Resolve and check a study, and return it with its folder.

    Args:
        text: the study as YAML.
        where: name of the study in faults.
        data: root of the ingested data sets.
        results: root of the results.

    Raises:
        InputError: the study is invalid, does not fit the data, or starts from results that do not exist.
    """
    study = resolve(parse_yaml(text, where=where), where=where)
    root = Storage.open(data)
    manifest = store.read_manifest(root, get_data_set(study))
    study = resolve_from_data(study, manifest)
    if obstacles := [fault for plugin in study.plugins if (fault := find_obstacle(plugin)) is not None]:
        raise InputError(obstacles)
    check_study(study, manifest)
    find_first_settings(study, Storage.open(results))
    return StudyFolder(Storage.open(results).get_folder(study.name), study, manifest, text, root)


def resolve_from_data(study: ResolvedStudy, manifest: Manifest) -> ResolvedStudy:
    """Return a study whose configurations have numbers for what is taken from the data.

    Raises:
        InputError: a search would try `auto`, of which nothing but a number can be recorded.
    """
    faults = [
        Fault(
            where=study.name, key=f"space.{path}", rule="a search tries numbers; auto is for configurations", got="auto"
        )
        for path in ("model.label_scale", "model.label_offset")
        if any("auto" in getattr(arm.space.get(path), "values", ()) for arm in study.arms)
    ]
    # Units that are taken from the data are those of one transform.
    faults += [
        Fault(where=study.name, key="space.model.label_transform", rule="is compared by axes or arms, not searched")
        for _ in range(any("model.label_transform" in arm.space for arm in study.arms))
    ]
    if faults:
        raise InputError(faults)
    if "train" not in manifest.splits:
        return study
    arms = []
    for arm in study.arms:
        # Arms of presets leave nothing open, and a study may have thousands.
        open_settings = label_units.find_open_settings(arm.config)
        pixels = label_units.choose_pixel_units(arm.config, manifest)
        if open_settings or pixels:
            config = label_units.resolve_label_units(arm.config, manifest)
            plain = config.to_plain()
            taken = {path: get_leaf(plain, path) for path in (*open_settings, *pixels) if path not in arm.space}
            arm = replace(arm, config=config, from_data=taken)
        arms.append(arm)
    return replace(study, arms=tuple(arms))


def get_data_set(study: ResolvedStudy) -> str:
    """Return the name of a study's data set.

    Raises:
        InputError: the arms use several.
    """
    names = sorted({arm.config.data.name for arm in study.arms})
    if len(names) > 1:
        raise InputError(Fault(where=study.name, rule="all arms of a study share one data set", got=names))
    return names[0]


def check_study(study: ResolvedStudy, manifest: Manifest) -> None:
    """Raise if an arm does not fit the data set or the machine, or the data set lacks the metric of an objective.

    Raises:
        InputError: every fault of every arm, or of the secondary and compared objectives if the arms have none. A fault
            that several arms share is reported for the first of them.
    """
    faults: dict[tuple[str, str, str], Fault] = {}
    regressors: dict[str, Regressor] = {}
    for arm in study.arms:
        # Most faults come from `base`, and a study with a hundred arms would report each a hundred times.
        for fault in _find_arm_faults(study, arm, manifest, regressors):
            faults.setdefault((fault.key.removeprefix(f"arms.{arm.name}."), fault.rule, repr(fault.got)), fault)
    if faults:
        raise InputError(faults.values())
    unsplittable = resplit.find_resplit_fault(manifest) if study.splits > 1 else None
    if unsplittable is not None:
        raise InputError(replace(unsplittable, where=f"study {study.name!r}"))
    objectives = {f"secondary.{index}": each for index, each in enumerate(study.secondary)}
    objectives["claim"] = study.compared_objective
    if unrecorded := [*_find_unrecorded_metrics(study, objectives, manifest)]:
        raise InputError(unrecorded)
    del objectives["claim"]
    if study.sequential is not None:
        objectives["sequential.compare"] = study.compared_objective
    further = []
    for key, objective in objectives.items():
        try:
            # Any arm: the metrics of a data set do not depend on the configuration.
            task.make_task(manifest).check(study.arms[0].config.model_copy(update={"objective": objective}))
        except InputError as error:
            further += [replace(fault, where=study.name, key=f"{key}.metric") for fault in error.faults]
    if further:
        raise InputError(further)


def _find_unrecorded_metrics(
    study: ResolvedStudy, objectives: Mapping[str, Objective], manifest: Manifest
) -> Iterator[Fault]:
    """Find metrics that the study needs of all trials, and that an arm does not record: of plug-ins, and of deviations."""
    for key, objective in objectives.items():
        metric = objective.metric
        if metric in EXTRA_METRICS.get_added() and any(metric not in arm.config.plugin_metrics for arm in study.arms):
            rule = f"is a metric of a plug-in, which is recorded if `base` has `metrics: [{metric}]`"
            yield Fault(where=study.name, key=f"{key}.metric", rule=rule, got=metric)
        without = [
            arm
            for arm in study.arms
            if metric in DEVIATION_METRICS and not task.predicts_deviation(arm.config, manifest)
        ]
        if without:
            rule = f"{task.NEEDS_DEVIATION}; the arm {without[0].name!r} has none"
            yield Fault(where=study.name, key=f"{key}.metric", rule=rule, got=metric)


def count_parameters(study: ResolvedStudy, manifest: Manifest) -> dict[str, int]:
    """Return the number of trainable parameters of every arm's regressor."""
    regressors: dict[str, Regressor] = {}
    return {
        arm.name: sum(each.numel() for each in _build_meta_regressor(arm, manifest, regressors).parameters())
        for arm in study.arms
    }


def measure_model_bytes(study: ResolvedStudy, manifest: Manifest) -> dict[str, int]:
    """Return the bytes of the weights of every arm's regressor."""
    regressors: dict[str, Regressor] = {}
    return {
        arm.name: sum(
            each.numel() * each.element_size()
            for each in _build_meta_regressor(arm, manifest, regressors).state_dict().values()
        )
        for arm in study.arms
    }


def _find_arm_faults(
    study: ResolvedStudy, arm: Arm, manifest: Manifest, regressors: dict[str, Regressor]
) -> Iterator[Fault]:
    where, key, need = f"study {study.name!r}", f"arms.{arm.name}", study.resources
    device = "cuda" if need.gpus else "cpu"
    checks: tuple[Callable[[], object], ...] = (
        lambda: train.check_data_settings(arm.config, manifest, where=where, key=key),
        lambda: task.make_task(manifest).check(arm.config),
        lambda: numerics.check_machine(arm.config.recipe, device=device, workers=need.workers, where=where, key=key),
        lambda: numerics.check_layers(arm.config.recipe, _build_meta_regressor(arm, manifest, regressors)),
    )
    for check in checks:
        try:
            check()
        except InputError as error:
            # Some checks know neither the study nor the arm; their `where` is the setting.
            yield from (replace(fault, where=where, key=fault.key or f"{key}.{fault.where}") for fault in error.faults)
    scheduler, epochs = study.search.scheduler, arm.config.epochs_planned
    if arm.space and scheduler is not None and scheduler.grace_epochs > epochs:
        rule = f"must be at most the {epochs} epochs of a trial"
        yield Fault(where=where, key="search.scheduler.grace_epochs", rule=rule, got=scheduler.grace_epochs)


def _build_meta_regressor(arm: Arm, manifest: Manifest, regressors: dict[str, Regressor]) -> Regressor:
    """Return an arm's regressor on the meta device, with shapes but no memory.

    Args:
        regressors: those of earlier arms, to which it is added: most arms of a study share one, and a large one takes
            half a second.
    """
    config, smoothing = arm.config, arm.config.reweighting.fds
    key = to_canonical_json([each and each.model_dump(mode="json") for each in (config.model, smoothing)])
    if key not in regressors:
        with torch.device("meta"):
            regressors[key] = task.make_task(manifest).build_regressor(config)
    return regressors[key]
