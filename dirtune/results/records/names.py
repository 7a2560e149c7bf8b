"""Vocabulary of the results: files of a study folder that readers need, and allowed values of the tables' columns."""

from collections.abc import Sequence

from dirtune.errors import Fault, InputError

RESOLVED_STUDY = "study.json"
"""Every arm as a full configuration; written last, so its existence commits."""
PROVENANCE = "provenance.json"
"""Versions of code and libraries, and the machine."""
SELECTED = "selected.json"
"""The configuration that each search selected, and the trials that evaluate it."""
GROUPS = "groups.parquet"
"""Groups of the evaluated samples, if the data set has groups: columns `split`, `sample_id` and `group`."""

PLUGINS = "plugins"
"""Folder of the plug-ins that a study's arms use, a file each."""
FLOORS = "floors"
"""Folder of a study's floors (`dirtune.training.floors`), with the layout of a study's folder: `results/TABLE/ID.parquet`."""
CONSTANT_FLOORS = ("median", "mean")
LEARNED_FLOORS = ("ridge", "ridge_weighted", "boosting", "boosting_weighted")

EVALUATED_SPLITS = ("val", "test")
"""Column `split` of the table `metrics`."""
EVALUATED_EPOCHS = ("best_val", "last")
"""Column `selection` of the table `metrics`: the epochs of a trial that are evaluated."""
PREDICTED_EPOCH = EVALUATED_EPOCHS[0]
"""The only epoch whose predictions are stored."""

GRADIENT = "gradient/"
"""Prefix, in the table `epochs`, of the share of a part of the loss in the gradient (`dirtune.training.gradient_shares`)."""


def check_known(what: str, name: str, known: Sequence[str]) -> None:
    """Raise if a name is unknown.

    Args:
        what: the kind of name, such as `region`.
        name: the name to look up.
        known: all allowed names.

    Raises:
        InputError: the name is not in `known`, which the error lists.
    """
    if name not in known:
        raise InputError(Fault(where=what, rule=f"unknown {what}", got=name, known=known))
