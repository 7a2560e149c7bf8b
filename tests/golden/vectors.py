"""Golden vectors: outputs of official implementations, one `.npz` file each; the README of each folder names the sources."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent
INDEX = json.loads((FOLDER / "regularizers" / "index.json").read_text(encoding="utf-8"))
"""By the name of a regularizer's vector: its source, and if the reference is not finite or breaks ties by chance."""
NEWEST = json.loads((FOLDER / "newest" / "index.json").read_text(encoding="utf-8"))
"""By the name of a vector of a newest method: its kind, and if the reference is not finite or breaks ties by chance."""


@dataclass(frozen=True)
class Vector:
    """Inputs of a regularizer term, and the loss and the gradient that the reference returned."""

    arrays: dict[str, torch.Tensor]
    hyperparameters: dict[str, object]
    meta: dict[str, object]
    loss: float


@dataclass(frozen=True)
class MethodVector:
    """All arrays and scalars of a vector of a newest method by key, such as `loss`, `grad` and `out_mu_min`."""

    values: dict[str, torch.Tensor]
    hyperparameters: dict[str, object]

    def __getitem__(self, key):
        return self.values[key]


def list_vectors(folder):
    """Return the names of the vectors in a folder, sorted."""
    return sorted(path.stem for path in (FOLDER / folder).glob("*.npz"))


def read_regularizer(name, dtype):
    """Read a vector of a regularizer term; its arrays are converted to `dtype`, indices are not."""
    with np.load(FOLDER / "regularizers" / f"{name}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file.files if file[key].ndim}
        hyperparameters, meta = (json.loads(str(file[key])) for key in ("hparams", "meta"))
        loss = float(file["loss"])
    arrays = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    return Vector(arrays, hyperparameters, meta, loss)


def load_reweighting(name):
    """Load a vector of re-weighting, losses, feature smoothing or metrics, by key."""
    return np.load(FOLDER / "reweighting" / f"{name}.npz")


def list_newest(prefix):
    """Return the names of the vectors of a newest method, such as those of `srl_agedb`, sorted."""
    return sorted(name for name in NEWEST if name.startswith(f"{prefix}_"))


def read_newest(name, dtype=torch.float64):
    """Read a vector of a newest method; its arrays are converted to `dtype`, indices are not."""
    with np.load(FOLDER / "newest" / f"{name}.npz") as file:
        hyperparameters = json.loads(str(file["hparams"]))
        tensors = {key: torch.tensor(file[key]) for key in file.files if file[key].dtype.kind in "fiub"}
    values = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    return MethodVector(values, hyperparameters)
