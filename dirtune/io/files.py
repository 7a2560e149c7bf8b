"""Files that commands write for users, such as figures and reports."""

import os
from pathlib import Path

from dirtune.errors import Fault, InputError


def make_parent(output: Path) -> None:
    """Create the folder of a file that is to be written.

    Raises:
        InputError: the path is a folder, or its folder cannot be created.
    """
    # As `Storage.open` reads a path
    output = Path(os.path.expanduser(output))
    if output.is_dir():
        raise InputError(Fault(where=str(output), rule="must be a file, but is a folder"))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (
            "a part of its path is a file"
            if isinstance(error, FileExistsError | NotADirectoryError)
            else error.strerror
        )
        raise InputError(Fault(where=str(output), rule=f"cannot be written ({reason})")) from None
