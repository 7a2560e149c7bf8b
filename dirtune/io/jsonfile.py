"""JSON files that a crash, a full disk or an editor may have damaged."""

import json
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage


def read_json_object(storage: Storage, name: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: it is not a JSON object.
    """
    try:
        raw = json.loads(storage.read(name))
    # ValueError: no JSON, or no UTF-8; RecursionError: nested too deeply
    except (ValueError, RecursionError) as error:
        raise InputError(Fault(where=storage.path(name), rule=f"not readable as JSON ({error})")) from None
    if not isinstance(raw, dict):
        raise InputError(Fault(where=storage.path(name), rule="must be a JSON object", got=raw))
    return raw
