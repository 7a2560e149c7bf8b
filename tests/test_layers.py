"""Laws of the structure: imports point down, heavy libraries stay in their layer. Run with `pytest tests/test_layers.py`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.results.record_factory import record, write_study

ROOT = Path(__file__).resolve().parents[1]

# Floors from the bottom to the top: a module imports only from its own floor and those below it.
# A package whose subpackages are on several floors is listed by subpackage.
FLOORS = [
    "errors process randomness frozen nested registry plugins part_errors progress signatures wording",
    "io",
    "manifest label_transform reweighting synthesis sampling mixing recipe batch transfer metrics diagnostics",
    "losses models sharpness results",
    "config presets register testing nn trackers serve",
    "study",
    "data",
    "training",
    "tuning prediction",
    "cluster",
    "api cli",
]
LAYERS = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
WITHOUT_TORCH_AND_RAY = [
    "errors",
    "process",
    "randomness",
    "io",
    "frozen",
    "nested",
    "registry",
    "plugins",
    "part_errors",
    "progress",
    "wording",
    "manifest",
    "label_transform",
    "reweighting",
    "synthesis",
    "sampling",
    "mixing",
    "recipe",
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
        elif isinstance(node, ast.ImportFrom) and node.module == "dirtune":
            # `from dirtune import manifest` imports a module of another layer, too
            yield from (f"dirtune.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _nodes(node: ast.AST, type_checking: bool) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not type_checking:
            continue
        yield from _nodes(child, type_checking)


def test_every_module_belongs_to_a_layer_and_imports_point_down() -> None:
    offenders = []
    for path in modules():
        own = layer_of(path)
        if own == "__init__":
            continue
        if own not in LAYERS:
            offenders.append(f"{path} belongs to no layer")
            continue
        imported = {name.split(".")[1] for name in imports_of(path, type_checking=True) if name.startswith("dirtune.")}
        offenders += [f"{path} imports {name}" for name in imported if LAYERS[name] > LAYERS[own]]
    assert not offenders


def test_no_module_imports_itself_through_others() -> None:
    """A circle is a circle also if one of its imports is inside a function or for type checkers only."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()
    }
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                submodules = {f"{node.module}.{alias.name}" for alias in node.names} & names.keys()
                graph[name] |= submodules or ({node.module} & names.keys())
    # Raises CycleError, which names the circle
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("dirtune.errors") < order.index("dirtune.tuning.sweep")


@pytest.mark.slow
def test_the_library_never_imports_a_pipeline() -> None:
    names = {"dirtune.pipelines", "dirtune.search_spaces"}
    found = [path for path in modules() if any(name.startswith(tuple(names)) for name in imports_of(path))]
    assert not found


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


def run_script(*lines: str) -> list[str]:
    """Run Python lines in a fresh interpreter, and return what they print."""
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_modules_load_no_slow_package_that_they_do_not_use() -> None:
    statistics = ("influence", "joint", "margin", "paired", "power", "sequential", "verdict")
    lines = run_script(
        "import sys, dirtune",
        "print(sorted(name for name in sys.modules if name.startswith('dirtune.')))",
        "import dirtune.metrics",
        "print(sorted({'scipy'} & set(sys.modules)))",
        *(f"import dirtune.results.statistics.{name}" for name in statistics),
        "import dirtune.data.ingest, dirtune.data.inspection, dirtune.data.store",
        f"print(sorted({HEAVY | {'matplotlib', 'scipy.stats'}!r} & set(sys.modules)))",
    )
    assert lines == ["[]"] * 3


def test_the_calls_on_results_load_neither_torch_nor_ray() -> None:
    calls = ["table", "query", "status", "plot", "compact", "report", "stop"]
    lines = [f"getattr(dirtune, {call!r}); print({call!r}, sorted({HEAVY!r} & set(sys.modules)))" for call in calls]
    assert run_script("import sys, dirtune", *lines) == [f"{call} []" for call in calls]


def test_the_command_line_loads_nothing_heavy_before_a_command_needs_it() -> None:
    heavy = HEAVY | {"pandas", "pyarrow", "pydantic", "numpy"}
    assert run_script("import sys, dirtune.cli", f"print(sorted({heavy!r} & set(sys.modules)))") == ["[]"]


@pytest.mark.slow
def test_commands_that_train_nothing_load_neither_torch_nor_ray(tmp_path: Path) -> None:
    records = [record(arm, seed) for arm in ("a", "b") for seed in (0, 1)]
    write_study(tmp_path, records, arms=["a", "b"], reference="a")
    # One interpreter runs them all: the first command that loads one of them is in the output.
    commands = [
        "list",
        "list methods conr",
        "plan --help",
        "sweep --help",
        "status study --results .",
        "table study --results .",
        "query 'select arm from trials' --results .",
        "compact study --results .",
    ]
    heavy = HEAVY | {"scipy.stats", "matplotlib"}
    script = f"""
import shlex, sys
from dirtune import cli
for command in {commands!r}:
    sys.argv = ["dirtune", *shlex.split(command)]
    try:
        cli.main()
    except SystemExit as end:
        print(command, end.code or 0, sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.splitlines() == [f"{command} 0 []" for command in commands]
