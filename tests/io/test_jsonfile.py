"""Run with `pytest tests/io/test_jsonfile.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.io.jsonfile import encode_json_object, parse_json_object, read_json_object
from dirtune.io.storage import Storage

VALUE = {"seeds": [0, 1], "name": "β", "rate": 0.1, "empty": {}, "none": None}


def test_an_object_is_read_as_it_was_written() -> None:
    assert parse_json_object(encode_json_object(VALUE)) == VALUE
    assert parse_json_object(encode_json_object({})) == {}
    # Of earlier releases, or written by hand
    assert parse_json_object(json.dumps(VALUE).encode()) == VALUE


def test_every_flipped_bit_is_found_or_changes_nothing() -> None:
    content, outcomes = encode_json_object(VALUE), {"found": 0, "equal": 0}
    for at in range(8 * len(content)):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        try:
            assert parse_json_object(bytes(changed)) == VALUE
        except ValueError:
            outcomes["found"] += 1
        else:
            outcomes["equal"] += 1
    assert outcomes["found"] > 4 * outcomes["equal"] > 0


def test_a_changed_file_is_one_sentence_with_its_name(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    storage.write("study.json", encode_json_object(VALUE).replace(b"0.1", b"0.2"))
    with pytest.raises(
        InputError, match=r"study\.json: not readable as JSON \(its content was changed after it was written"
    ):
        read_json_object(storage, "study.json")
    # As the sentence says
    without = {key: value for key, value in json.loads(storage.read("study.json")).items() if key != "checksum"}
    storage.write("study.json", json.dumps(without).encode())
    assert read_json_object(storage, "study.json") == {**VALUE, "rate": 0.2}
