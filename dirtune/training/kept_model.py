"""Kept model of a trial: weights, configuration and input contract, which together predict without the data set.

    models/TRIAL/model.safetensors   weights of the epoch whose predictions are recorded, with their checksum
    models/TRIAL/config.json         configuration of the trial
    models/TRIAL/inputs.json         input contract (`dirtune.data.contract`); written last, so its existence commits

A worker writes the model before the trial's record: a trial that is killed in between resumes from its checkpoint and writes
it again. Weights are data: reading them runs no code.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from dirtune.config import TrialConfig
from dirtune.data.contract import InputContract
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, FrozenT
from dirtune.io.jsonfile import encode_json_object, read_json_object
from dirtune.io.storage import Storage
from dirtune.models.regressor import Regressor
from dirtune.results.records.kept import CONFIG, INPUTS, WEIGHTS, get_model_folder
from dirtune.training import distributed, numerics
from dirtune.training.task import Task, make_task

if TYPE_CHECKING:
    from dirtune.training.state import Training, Weights

_CHECKSUM = "checksum"


@dataclass(frozen=True, kw_only=True)
class KeptModel:
    """Model of a trial, ready to predict."""

    trial_id: str
    config: TrialConfig
    contract: InputContract
    regressor: Regressor
    """In evaluation mode."""
    workers: int
    """Ranks that evaluated the trial, each its share of the rows."""

    @property
    def task(self) -> Task:
        """Task of the data set."""
        return make_task(self.contract.manifest, self.config.model.label_transform)


def write_model(study: Storage, trial_id: str, training: "Training", contract: InputContract) -> None:
    """Write the current model of a run below its study's folder."""
    folder = study.get_folder(get_model_folder(trial_id))
    # Views of one storage, and layouts other than the default one, cannot be saved.
    weights = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in training.model.state_dict().items()
    }
    about = {"workers": str(training.ranks.world), "epoch": str(training.best_epoch)}
    folder.write(WEIGHTS, save(weights, about | {_CHECKSUM: _hash_weights(weights, about)}))
    folder.write(CONFIG, encode_json_object(training.config.to_plain()))
    folder.write(INPUTS, encode_json_object(contract.model_dump(mode="json")))


def read_model(study: Storage, trial_id: str, device: torch.device | None = None) -> KeptModel:
    """Return the kept model of a trial.

    Args:
        study: the study's folder.
        trial_id: id of the trial.
        device: device of the model; None means the CPU.

    Raises:
        InputError: the model is missing or damaged, or another version of this library wrote it.
    """
    folder = study.get_folder(get_model_folder(trial_id))
    if not folder.exists(INPUTS):
        raise InputError(Fault(where=folder.path(), rule="no model of this trial was kept", got=trial_id))
    config, contract = _read_value(folder, CONFIG, TrialConfig), _read_value(folder, INPUTS, InputContract)
    content = folder.read(WEIGHTS) if folder.exists(WEIGHTS) else b""
    try:
        weights, about = load(content), _read_metadata(content)
        workers, checksum = int(about["workers"]), about.pop(_CHECKSUM, None)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise InputError(Fault(where=folder.path(WEIGHTS), rule=f"damaged weights ({error})")) from None
    # Models of earlier versions have none.
    if checksum is not None and checksum != _hash_weights(weights, about):
        rule = "damaged weights (their content was changed after they were written)"
        raise InputError(Fault(where=folder.path(WEIGHTS), rule=rule))
    regressor = build_trained_regressor(config, contract, weights, where=folder.path(WEIGHTS))
    return KeptModel(
        trial_id=trial_id,
        config=config,
        contract=contract,
        regressor=regressor.to(device or torch.device("cpu")),
        workers=workers,
    )


def build_trained_regressor(
    config: TrialConfig, contract: InputContract, weights: "Weights", *, where: str
) -> Regressor:
    """Return the regressor of a configuration with trained weights, in evaluation mode, on the CPU.

    Raises:
        InputError: the weights are those of another regressor.
    """
    # The files of pretrained weights may be gone, and the trained ones replace them.
    spec = config.model.model_copy(update={"encoder": forget_weight_files(config.model.encoder)})
    task, built = make_task(contract.manifest), config.model_copy(update={"model": spec})
    # In the recipe's memory layout, of which the last digits of a convolution depend
    regressor = numerics.prepare_model(
        task.build_regressor(built, contract.vocabulary or None),
        config.recipe,
        torch.device("cpu"),
        distributed.Ranks(),
    )
    try:
        regressor.load_state_dict(weights)
    except RuntimeError as error:
        rule = f"not the weights of this configuration ({str(error).splitlines()[-1].strip()})"
        raise InputError(Fault(where=where, rule=rule)) from None
    return regressor.eval()


def forget_weight_files(encoder: Frozen) -> Frozen:
    """Return an encoder's spec without the files from which its weights start."""
    files: Sequence[str] = [name for name in ("weights_file", "vectors_file") if getattr(encoder, name, None)]
    of_hub = {"pretrained": False} if getattr(encoder, "pretrained", False) else {}
    return encoder.model_copy(update={**dict.fromkeys(files), **of_hub})


def _hash_weights(weights: "Weights", about: Mapping[str, str]) -> str:
    """Return the SHA-256 of weights and of their metadata."""
    state = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        state.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        state.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _read_metadata(content: bytes) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file: 8 bytes with its length, then JSON."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header["__metadata__"])


def _read_value(folder: Storage, name: str, kind: type[FrozenT]) -> FrozenT:
    try:
        return kind.model_validate_json(json.dumps(read_json_object(folder, name)))
    except FileNotFoundError:
        raise InputError(Fault(where=folder.path(name), rule="missing file of a kept model")) from None
    except ValidationError as error:
        rule = f"not readable by this version ({error.errors()[0]['msg']})"
        raise InputError(Fault(where=folder.path(name), rule=rule)) from None
