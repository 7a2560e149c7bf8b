"""Target of a log: the name of a tracker and, behind a colon, where it stores its runs."""

from importlib.util import find_spec
from typing import NamedTuple

from dirtune.errors import Fault, InputError

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""Package of each tracker."""


class Target(NamedTuple):
    """A tracker, and where it stores its runs."""

    tracker: str
    """A name of `PACKAGES`."""
    place: str = ""
    """mlflow: tracking URI; wandb: PROJECT or ENTITY/PROJECT; tensorboard: folder. Empty: the default of each."""

    def __str__(self) -> str:
        """Return the text that `parse_target` reads, without keys."""
        # Imported here: it brings in pyarrow, which reading a study does without.
        from dirtune.io.credentials import remove_credentials

        return f"{self.tracker}:{remove_credentials(self.place)}" if self.place else self.tracker


def parse_target(text: str, where: str) -> Target:
    """Return the target that a text such as `mlflow:http://host:5000` names.

    Args:
        text: the name of a tracker, or NAME:PLACE.
        where: source of the text, for error messages.

    Raises:
        InputError: there is no such tracker.
    """
    name, _, place = text.partition(":")
    if name not in PACKAGES:
        raise InputError(Fault(where=where, rule="unknown tracker", got=name, known=tuple(PACKAGES)))
    return Target(name, place)


def has_keys(text: str) -> bool:
    """Return True if the place of a target is a URL with a password or a token."""
    if "://" not in text:
        return False
    from dirtune.io.credentials import remove_credentials

    return remove_credentials(text) != text


def check_installed(target: Target, where: str) -> None:
    """Raise if the package of a tracker is missing.

    Raises:
        InputError: with the command that installs it.
    """
    package = PACKAGES[target.tracker]
    if find_spec(package) is None:
        rule = f"needs the package {package}: `pip install 'dirtune[{target.tracker}]'`"
        raise InputError(Fault(where=where, key=target.tracker, rule=rule))
