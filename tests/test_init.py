"""The commands as Python calls. Run with `pytest tests/test_init.py`."""

from __future__ import annotations

import importlib
import inspect

import pytest
import typer

import dirtune
from dirtune.cli import app

# Commands whose call has the root of the data sets instead of that of the results, or neither
ROOTS = {
    "ingest": "root",
    "init": "data",
    "inspect": "root",
    "predict": None,
    "serve": None,
    "schema": None,
    "list": None,
}
VERBS = sorted(set(typer.main.get_command(app).commands))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [verb for verb in VERBS if ROOTS.get(verb, "results")])
def test_every_command_is_a_documented_call_of_the_same_name_with_its_root(name: str) -> None:
    call = getattr(dirtune, name)
    assert inspect.isfunction(call)
    assert ROOTS.get(name, "results") in inspect.signature(call).parameters
    assert inspect.getdoc(call)


def test_the_catalog_is_equal_on_every_call() -> None:
    first = dirtune.catalog()
    assert first["losses"]
    assert dirtune.catalog() == first


def test_a_call_remains_a_function_after_its_module_is_imported() -> None:
    for home in dirtune._HOMES.values():
        importlib.import_module(home.split(":")[0])
    assert [name for name in dirtune.__all__ if not callable(getattr(dirtune, name))] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dirtune' has no attribute 'swep'"):
        _ = dirtune.swep
