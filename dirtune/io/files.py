"""Files that commands write for users, such as figures and reports."""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from dirtune.errors import Fault, InputError

# Bytes; file systems have 255, and a study's folder may be encrypted, which takes more.
_LONGEST_NAME = 140
_UNSAFE = '/\\%:*?"<>|'


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


def format_file_name(name: str) -> str:
    """Return the name of a file or folder for a text such as an arm: one level, another for each text, not too long for a disk."""
    # As in URLs; names of dots alone would lead out of the folder.
    safe = "".join(
        character if character.isprintable() and character not in _UNSAFE else quote(character, safe="")
        for character in name
    )
    safe = safe.replace(".", "%2E") if not safe.strip(".") else safe
    if len(safe.encode()) <= _LONGEST_NAME:
        return safe or "%"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{safe.encode()[: _LONGEST_NAME - 20].decode(errors='ignore')}...{digest}"
