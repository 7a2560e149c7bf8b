"""Input contract of a data set: how a raw row becomes the inputs of a model, and which labels the model has seen.

A kept model has a copy, so that it predicts without the data set that it was trained on: shapes and kinds of the inputs, their
transforms, standardization and categories of table columns, the vocabulary of texts, the label's unit and bins, and the
number of training labels in each bin.
"""

import json
from typing import Any, Literal

import numpy as np

from dirtune.data import store
from dirtune.frozen import Frozen
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.reweighting.density import label_bins, shot_regions

SOURCE_FILE = "raw.json"
"""Side file of a data set of one's own: its pipeline, that pipeline's options, and the columns of the raw file."""
FEATURES_FILE = "features.json"
VOCABULARY_FILE = "vocabulary.json"


class RawSource(Frozen):
    """Raw file that a data set was made from."""

    pipeline: str
    """Name of the pipeline."""
    options: dict[str, Any]
    """Its settings, as plain data."""
    columns: tuple[str, ...]
    """Columns of the raw file."""


class Feature(Frozen):
    """One number of a vector that was made from a table."""

    name: str
    """Column of the raw file."""
    mean: float | None = None
    """Mean of the training rows. None: the number is a category's."""
    sd: float | None = None
    """Standard deviation of the training rows; 0 for a column that is constant in training."""
    text: str | None = None
    """Category for which the number is 1."""


class InputContract(Frozen):
    """Input contract of a data set."""

    format_version: Literal[1] = 1
    manifest: Manifest
    """Inputs, label, shot rules, and training labels per bin."""
    source: RawSource | None = None
    """None if the data set was not made from a file of the user's own, or before this was kept."""
    features: tuple[Feature, ...] = ()
    """Numbers of the vector of a table, in their order."""
    vocabulary: tuple[str, ...] = ()
    """Tokens of texts by id."""

    def find_regions(self, labels: np.typing.ArrayLike, shot_rule: str | None = None) -> np.typing.NDArray[np.str_]:
        """Return the shot region of each label.

        Args:
            labels: in the label's unit.
            shot_rule: a rule of the manifest; None means its default.
        """
        rule = self.manifest.shot_rules[shot_rule or self.manifest.default_shot_rule]
        regions = shot_regions(np.asarray(self.manifest.train_counts), rule)
        return np.asarray(regions[label_bins(labels, self.manifest.label)])


def read_contract(storage: Storage, manifest: Manifest) -> InputContract:
    """Return the input contract of an ingested data set.

    Args:
        storage: the data root.
        manifest: of the data set.

    Raises:
        InputError: a side file is damaged.
    """
    plain: dict[str, Any] = {"manifest": manifest.model_dump(mode="json")}
    version = manifest.splits["train"].files[0].partition("/")[0] if "train" in manifest.splits else ""
    present = storage.list_files(f"{manifest.name}/{version}")
    for key, name in {"source": SOURCE_FILE, "features": FEATURES_FILE, "vocabulary": VOCABULARY_FILE}.items():
        if name in present:
            plain[key] = json.loads(store.read_side_file(storage, manifest, name))
    if "vocabulary" in plain:
        plain["vocabulary"] = list_tokens(plain["vocabulary"])
    return InputContract.model_validate_json(json.dumps(plain))


def list_tokens(vocabulary: dict[str, int]) -> list[str]:
    """Return the tokens of a `vocabulary.json` by id."""
    # Padding and the unknown token have no text.
    tokens = [""] * (max(vocabulary.values(), default=1) + 1)
    for token, index in vocabulary.items():
        tokens[index] = token
    return tokens
