"""Laws of the structure: imports point down, heavy libraries stay in their layer. Run with `pytest tests/test_layers.py`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Floors from the bottom to the top: a module imports only from its own floor and those below it.
# A package whose subpackages are on several floors is listed by subpackage.
FLOORS = [
    "errors process randomness frozen nested",
    "io",
    "manifest reweighting batch metrics diagnostics",
    "losses models results",
    "recipe config presets",
    "study",
    "data",
    "training",
    "tuning",
    "cluster",
    "cli",
]
LAYERS = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
WITHOUT_TORCH_AND_RAY = [
    "errors",
    "process",
    "randomness",
    "io",
    "frozen",
    "nested",
    "manifest",
    "reweighting",
    "metrics",
    "diagnostics",
    "results",
]
HEAVY = {"torch", "torchvision", "ray", "optuna"}
# Optuna, which brings in neither torch nor Ray, computes importances; it is imported when they are asked for.
MAY_ASK_OPTUNA = "results/statistics/importance.py"


def modules() -> list[Path]:
    return sorted((ROOT / "dirtune").rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT / "dirtune").parts[0].removesuffix(".py")


def imports_of(path: Path, *, type_checking: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, also inside functions; those for type checkers only if asked."""
    for node in _nodes(ast.parse(path.read_text()), type_checking):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _nodes(node: ast.AST, type_checking: bool) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not type_checking:
            continue
        yield from _nodes(child, type_checking)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = layer_of(path)
    if own == "__init__":
        return
    assert own in LAYERS, f"{path} belongs to no layer"
    for name in imports_of(path, type_checking=True):
        if name.startswith("dirtune."):
            assert LAYERS[name.split(".")[1]] <= LAYERS[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_never_imports_a_pipeline(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.split(".")[0] in {"pipelines", "search_spaces"}]


def test_the_lower_layers_and_the_results_know_neither_torch_nor_ray() -> None:
    for path in modules():
        if layer_of(path) in WITHOUT_TORCH_AND_RAY:
            found = {name.split(".")[0] for name in imports_of(path)} & HEAVY
            if path == ROOT / "dirtune" / MAY_ASK_OPTUNA:
                found -= {"optuna"}
            assert not found, f"{path} imports {found}"


def test_losses_models_and_the_loop_know_no_ray() -> None:
    for path in modules():
        if layer_of(path) in {"losses", "models", "training", "recipe", "config"}:
            assert "ray" not in {name.split(".")[0] for name in imports_of(path)}, path


@pytest.mark.parametrize("verb", ["table", "query", "status", "plot", "compact", "report", "stop"])
def test_reading_results_loads_neither_torch_nor_ray(verb: str) -> None:
    script = f"import sys, dirtune; dirtune.{verb}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_loads_nothing_heavy_before_a_verb_needs_it() -> None:
    script = f"import sys, dirtune.cli; print(sorted(({HEAVY!r} | {{'pandas', 'pyarrow'}}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
