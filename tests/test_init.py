"""The verbs as Python calls. Run with `pytest tests/test_init.py`."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import typer

import dirtune
from dirtune.cli import app

# The parameter of the call that says what the verb's `--data` or `--results` says.
CALLS = {
    "ingest": "root",
    "inspect": "root",
    "train": "results",
    "plan": "results",
    "sweep": "results",
    "resume": "results",
    "status": "results",
    "query": "root",
    "table": "root",
    "plot": "root",
    "compact": "results",
    "report": "root",
    "tensorboard": "results",
    "stop": "results",
    "doctor": "results",
    "submit": "results",
}


def test_every_verb_of_the_command_line_is_a_call_of_the_same_name() -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert verbs == {*CALLS, "list"}
    assert set(dirtune.__all__) == {*CALLS, "catalogue", "compare", "recompute"}


@pytest.mark.parametrize(("name", "root"), CALLS.items())
def test_a_call_is_a_function_that_takes_its_root_and_says_what_it_does(name: str, root: str) -> None:
    call = getattr(dirtune, name)
    assert inspect.isfunction(call)
    assert root in inspect.signature(call).parameters
    assert inspect.getdoc(call)


def test_what_the_command_line_lists_is_the_call_catalogue_as_often_as_it_is_called() -> None:
    first = dirtune.catalogue()
    assert first["losses"]
    assert dirtune.catalogue() == first


def test_every_call_stays_a_function_after_its_module_has_been_imported() -> None:
    for home in dirtune._HOMES.values():
        importlib.import_module(home.split(":")[0])
    assert [name for name in dirtune.__all__ if not callable(getattr(dirtune, name))] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dirtune' has no attribute 'swep'"):
        _ = dirtune.swep


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    script = "import sys, dirtune; print(sorted(n for n in sys.modules if n.startswith('dirtune.')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
