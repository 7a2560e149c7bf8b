"""JSON files that a crash, a full disk, an editor or a failing disk may have damaged.

Files of dirtune have a checksum of their content as their last key, so that a changed bit is a damaged file and no other
value. Files without one, of earlier releases or written by hand, are read as they are.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage

CHECKSUM = "checksum"


def encode_json_object(value: Mapping[str, Any]) -> bytes:
    """Return the content of a JSON file, with its checksum."""
    plain = json.loads(json.dumps(value))
    return json.dumps({**plain, CHECKSUM: _compute_checksum(plain)}, indent=1).encode()


def parse_json_object(content: bytes) -> dict[str, Any]:
    """Return the object in the content of a JSON file, without its checksum.

    Raises:
        ValueError: it is not a JSON object, or it was changed after it was written.
    """
    try:
        raw = json.loads(content)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(raw, dict):
        raise ValueError(f"must be a JSON object, got {str(raw)[:100]!r}")
    plain = {key: raw[key] for key in [*raw][:-1]}
    # Whatever its key is, which may be what was changed
    if raw and [*raw.values()][-1] == _compute_checksum(plain):
        return plain
    if CHECKSUM in raw:
        raise ValueError(
            f"its content was changed after it was written; remove the key {CHECKSUM!r} to use it as it is"
        )
    return raw


def format_json(value: Any) -> str:
    """Return JSON for users. It has no NaN and no infinity: an undefined number is null, an infinite one a text."""
    return json.dumps(_to_strict(value), indent=1, default=str, allow_nan=False)


def _to_strict(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_to_strict(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _to_strict(each) for name, each in value.items()}
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def read_json_object(storage: Storage, name: str) -> dict[str, Any]:
    """Return the object in a JSON file, without its checksum.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: it is not a JSON object, or it was changed after it was written.
    """
    content = storage.read(name)
    try:
        return parse_json_object(content)
    # Also no UTF-8
    except ValueError as error:
        raise InputError(Fault(where=storage.path(name), rule=f"not readable as JSON ({error})")) from None


def _compute_checksum(plain: Mapping[str, Any]) -> str:
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
