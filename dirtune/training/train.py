"""`dirtune train`: one trial without Ray, by the same code that a sweep's workers run."""

import json
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dirtune import nested, presets
from dirtune.config import TrialConfig
from dirtune.data import label_units, memory_budget, store, subset
from dirtune.data.contract import VOCABULARY_FILE, list_tokens, read_contract
from dirtune.errors import Fault, InputError, OutOfMemory
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, Manifest
from dirtune.process import defer_first_signal, keep_freed_memory
from dirtune.results.records import parquetfile, schema
from dirtune.study import files
from dirtune.study.resolve import load_study, select_arm
from dirtune.study.schema import Study
from dirtune.training import numerics, passes, provenance, task
from dirtune.training.device import find_device
from dirtune.training.trial import TrialJob, TrialRun

# Study folder of single runs, below the results root
STUDY = "train"
_KEYS_OF_STUDIES = {"question", "arms", "axes", "parts", "derive", "base", "variants"}

MOST_THREADS = 1024
"""Torch would end this process for a much larger number."""

OnEpoch = Callable[[int, int, dict[str, float]], None]
"""Called after every epoch with its number, the planned number and its values."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Result of one finished run."""

    trial_id: str
    status: schema.Status
    best_epoch: int
    values: dict[str, float]
    """Values of the last epoch."""
    reused: bool
    """True if the run had been recorded before and was not run again."""
    error: str | None = None
    """Reason of a failure, else None."""


def train(
    config: TrialConfig | Study | Mapping[str, Any] | str | Path,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    arm: str | None = None,
    threads: int = 1,
    representations: int = 0,
    keep_model: bool = True,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    where: str = "configuration",
) -> TrainResult:
    """Run one trial to its record, in the study folder `train`; a recorded trial is not run again.

    Args:
        config: a configuration, as a value, as plain data with presets (`where` names its source in faults) or as a YAML file; or a
            study, in each of its forms, of which `arm` is trained.
        arm: of a study the arm, by default its reference; of a configuration the name in the record, by default "train".
        threads: torch threads on the CPU.
        representations: test samples whose representations are kept.
        keep_model: keep the trained model, for `dirtune.load`.
        on_epoch: called after every epoch.

    Raises:
        InputError: the configuration or the data are not usable.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint from which the same call continues; at once the second time.
    """
    place = find_device(device)
    for name, value, least in (("threads", threads, 1), ("representations", representations, 0)):
        if value < least:
            raise InputError(Fault(where="train", key=name, rule=f"must be at least {least}", got=value))
    if threads > MOST_THREADS:
        raise InputError(Fault(where="train", key="threads", rule=f"must be at most {MOST_THREADS:,}", got=threads))
    # Imports Ray Data, which takes seconds; the checks below are used without it.
    from dirtune.data.blocks import read_without_ray

    config, arm = _read_config(config, arm, where)
    storage = Storage.open(data)
    manifest = store.read_manifest(storage, config.data.name)
    check_data_settings(config, manifest, where=where)
    config = label_units.resolve_label_units(config, manifest)
    task.make_task(manifest).check(config)
    numerics.check_machine(config.recipe, device=place.type, workers=1, where=where)
    torch.set_num_threads(threads)
    study = Storage.open(results).get_folder(STUDY)
    job = TrialJob(
        study=STUDY,
        arm=arm,
        trial_id=config.compute_trial_id(manifest.fingerprint),
        config=config,
        code_version=provenance.get_code_version(),
    )
    if (earlier := _read_result(study, job.trial_id)) is not None:
        return earlier
    # As in a worker of a sweep, so that both have one speed.
    keep_freed_memory()
    resident = read_without_ray(storage, manifest, place, memory_budget.measure_memory_budget(place, threads=threads))
    values: dict[str, float] = {}
    with defer_first_signal(signal.SIGINT, signal.SIGTERM) as get_signal:
        trial = TrialRun(
            job,
            resident,
            study,
            vocabulary=read_vocabulary(manifest, storage),
            representations=representations,
            contract=read_contract(storage, manifest) if keep_model else None,
            is_stop_requested=lambda: get_signal() is not None,
        )
        while trial.status is None:
            try:
                values = trial.step()
            except OutOfMemory as error:
                # Not recorded: with more memory, or smaller micro-batches, the run resumes.
                return TrainResult(
                    trial_id=job.trial_id,
                    status="failed",
                    best_epoch=trial.training.best_epoch,
                    values=values,
                    error=str(error),
                    reused=False,
                )
            if trial.status is None and (number := get_signal()) is not None:
                trial.write_checkpoint()
                training = trial.training
                steps = training.unfinished.steps if training.unfinished else 0
                where_to = f"{training.epoch} epochs and {steps} steps"
                raise KeyboardInterrupt(f"{number.name} after {where_to}; the same run continues from there")
            if on_epoch is not None and trial.status != "failed":
                on_epoch(trial.training.epoch, config.epochs_planned, values)
    return TrainResult(
        trial_id=job.trial_id,
        status=trial.status,
        best_epoch=trial.training.best_epoch,
        values=values,
        error=trial.error,
        reused=False,
    )


def _read_config(source: Any, arm: str | None, where: str) -> tuple[TrialConfig, str]:
    """Return the configuration of a source, and the name of its arm."""
    if isinstance(source, TrialConfig):
        return source, arm or STUDY
    plain = source
    if not isinstance(source, Mapping):
        # Raises for what is no study either.
        file = files.find_study(source)
        plain, where = file.read_plain(), file.where
    if isinstance(plain, Mapping) and not plain.keys() & _KEYS_OF_STUDIES:
        plain = presets.expand_presets(plain, nested.get_leaf(plain, "data.name"), where=where)
        return read(TrialConfig, plain, where=where), arm or STUDY
    chosen = select_arm(load_study(source), arm, where=where)
    return chosen.config, chosen.name


def _read_result(study: Storage, trial_id: str) -> TrainResult | None:
    columns = ["status", "best_epoch", "error"]
    tables = parquetfile.read_files(study, [f"results/trials/{trial_id}.parquet"], columns)
    if not tables:
        return None
    (row,) = tables[0].to_pylist()
    epochs = parquetfile.read_files(study, [f"results/epochs/{trial_id}.parquet"], ["epoch", "name", "value"])
    lines = [line for table in epochs for line in table.to_pylist()]
    last = max((line["epoch"] for line in lines), default=0)
    return TrainResult(
        trial_id=trial_id,
        status=row["status"],
        best_epoch=row["best_epoch"] or 0,
        values={line["name"]: line["value"] for line in lines if line["epoch"] == last},
        error=row["error"],
        reused=True,
    )


def check_data_settings(config: TrialConfig, manifest: Manifest, *, where: str, key: str = "") -> None:
    """Raise an error if a configuration names splits, shot rules or augmentations that the data set does not have.

    Args:
        config: the configuration.
        manifest: the data set.
        where: source of the configuration, for errors.
        key: place of the configuration in its source, for errors.

    Raises:
        InputError: with every unknown name.
    """
    prefix, rule, faults = f"{key}." if key else "", config.data.shot_rule, []
    for split in (split for split in SPLITS if split not in manifest.splits):
        text = f"data set {manifest.name!r} lacks a split that training needs"
        faults.append(Fault(where=where, key=f"{prefix}data.name", rule=text, got=split))
    if rule is not None and rule not in manifest.shot_rules:
        known = tuple(manifest.shot_rules)
        place = f"{prefix}data.shot_rule"
        faults.append(Fault(where=where, key=place, rule="unknown shot rule", got=rule, known=known))
    if "train" in manifest.splits:
        rows = subset.count_rows(manifest.splits["train"].rows, config.data.fraction)
        faults += passes.find_batch_faults(config, rows, where=where, key=key)
    known = tuple(task.make_task(manifest).augmentations)
    for part, views in {"recipe": config.recipe.views, "scheme": getattr(config.scheme, "views", None)}.items():
        if views is not None and views.augmentation not in known:
            place, rule = f"{prefix}{part}.views.augmentation", "unknown augmentation"
            faults.append(Fault(where=where, key=place, rule=rule, got=views.augmentation, known=known))
    if faults:
        raise InputError(faults)


def read_vocabulary(manifest: Manifest, storage: Storage) -> list[str] | None:
    """Read the tokens of a text data set by id; return None for other data."""
    if all(spec.vocabulary is None for spec in manifest.inputs.values()):
        return None
    return list_tokens(json.loads(store.read_side_file(storage, manifest, VOCABULARY_FILE)))
