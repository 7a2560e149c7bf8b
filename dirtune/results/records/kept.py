"""Kept models of a study: their files below its folder, which trials have one, and the disk space that they use."""

from collections.abc import Iterable, Mapping

import pyarrow.fs as pafs

from dirtune.io.storage import Storage

MODELS = "models"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
INPUTS = "inputs.json"
"""Input contract; written last, so its existence commits a model."""
MODEL_FILES = (WEIGHTS, CONFIG, INPUTS)


def get_model_folder(trial_id: str) -> str:
    """Return the folder of a trial's model below its study's folder."""
    return f"{MODELS}/{trial_id}"


def measure_models(study: Storage) -> dict[str, int]:
    """Return the bytes of every kept model of a study, by trial id."""
    sizes: dict[str, dict[str, int]] = {}
    for info in study.list_entries(MODELS, recursive=True):
        if info.type == pafs.FileType.File:
            trial_id, name = info.path.split("/")[-2:]
            sizes.setdefault(trial_id, {})[name] = info.size
    return {trial_id: sum(files.values()) for trial_id, files in sizes.items() if INPUTS in files}


def remove_models(study: Storage, trial_ids: Iterable[str]) -> None:
    """Remove the models of trials; the file that commits a model first."""
    for trial_id in trial_ids:
        study.remove(f"{get_model_folder(trial_id)}/{INPUTS}")
        study.remove(get_model_folder(trial_id))


def find_missing_models(models: Mapping[str, int], evaluated: Iterable[str]) -> tuple[str, ...]:
    """Return the trials without a model, of a study that has models; () if it keeps none.

    Args:
        models: of `measure_models`.
        evaluated: complete trials whose models are kept.
    """
    return tuple(sorted(set(evaluated) - models.keys())) if models else ()
