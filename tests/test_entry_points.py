"""Parts of every kind as entry points of an installed package: found, listed, used. Run with `pytest tests/test_entry_points.py`.

The package is files on `sys.path`, as an installer would lay them out; `tests/test_example_plugin.py` has one from a wheel.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import dirtune
from dirtune import plugins
from dirtune.errors import InputError
from dirtune.serve.app import make_app
from tests.plugin_sources import SPREAD, WORST, forgotten_plugins, write
from tests.results.record_factory import record, write_study
from tests.test_cli import Call, call
from tests.test_documentation import write_named_blocks
from tests.training.conftest import data_root, toy
from tests.tuning.sweeps import rows

__all__ = ["call", "data_root", "forgotten_plugins", "toy"]
ROOT = Path(__file__).resolve().parents[1]
PARTS = {
    "losses": {"log_cosh": "own_parts.my_parts:LogCosh"},
    "terms": {"spread": "own_parts.my_parts:Spread"},
    "encoders": {"gated": "own_parts.my_parts:Gated"},
    "metrics": {"tail_error": "own_parts.my_parts:tail_error"},
    "synthesis": {"copies": "own_parts.copies:Copies"},
    "sampling": {"of_rare_labels": "own_parts.of_rare_labels:OfRareLabels"},
    "mixing": {"neighbors": "own_parts.neighbors:Neighbors"},
    "sharpness": {"by_sign": "own_parts.by_sign:BySign"},
    "pipelines": {"waves": "own_parts.waves"},
    "methods": {"spread_apart": "own_parts.methods:SPREAD_APART"},
    "figures": {"arm_means": "own_parts.figures:ARM_MEANS"},
}
"""Entry points by group, without its `dirtune.`."""
WAVES = '''"""Waves: the label is a phase."""
import numpy as np
from dirtune.data.store import write_dataset
from dirtune.frozen import Frozen
from dirtune.manifest import InputSpec, LabelSpec, ShotRule

LABEL = LabelSpec(name="phase", unit="rad", low=0, high=6, bin_width=1, num_bins=6)


class Options(Frozen):
    rows: int = 60
    """Number of training rows."""


def ingest(storage, raw, options):
    splits = {name: iter([draw(name, count)]) for name, count in (("train", options.rows), ("val", 12), ("test", 12))}
    return write_dataset(
        storage,
        "waves",
        splits,
        inputs={"wave": InputSpec(kind="vector", shape=(4,))},
        label=LABEL,
        shot_rules={"waves": ShotRule(many_above=15, few_below=5)},
        default_shot_rule="waves",
        source={"request": f"waves of {options.rows}"},
    )


def draw(split, count):
    labels = 6 * (np.arange(count) + 0.5) / count
    waves = np.sin(labels[:, None] + np.arange(4)).astype(np.float32)
    return {"sample_id": np.array([f"{split}-{row}" for row in range(count)], dtype=object), "label": labels, "wave": waves}
'''
METHODS = """SPREAD_APART = {
    "paper": "Nobody, a test, 2026",
    "adds": "A term that spreads bins apart.",
    "data": {"any": {"source": "a guess", "set": {"terms": {"spread": {"weight": 0.25}}}}},
}
"""
FIGURES = '''from dirtune.results.figures import FigureKind
from matplotlib.figure import Figure


def build(request):
    """Read the mean of every arm."""
    return {row.arm: row.cells['all'].mean for row in request.build_table().rows}


def draw(means):
    figure = Figure()
    figure.subplots().bar([*means], [*means.values()])
    return figure


ARM_MEANS = FigureKind(build, draw)
'''

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten_plugins: None) -> Iterator[Install]:
    """Lay out a package with these entry points by group, its modules being those of the documentation and the ones above."""

    def lay_out(parts: dict[str, dict[str, str]], **sources: str) -> Path:
        site = tmp_path / "site"
        package, about = site / "own_parts", site / "own_parts-1.0.dist-info"
        package.mkdir(parents=True)
        about.mkdir()
        (package / "__init__.py").touch()
        for page in ("extending", "hooks"):
            write_named_blocks(ROOT / f"docs/{page}.md", package)
        for name, source in {"waves": WAVES, "methods": METHODS, "figures": FIGURES, **sources}.items():
            (package / f"{name}.py").write_text(source)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-parts\nVersion: 1.0\n")
        (about / "top_level.txt").write_text("own_parts\n")
        sections = [
            "\n".join([f"[dirtune.{group}]", *(f"{name} = {place}" for name, place in entries.items())])
            for group, entries in parts.items()
        ]
        (about / "entry_points.txt").write_text("\n\n".join(sections) + "\n")
        monkeypatch.syspath_prepend(site)
        plugins.load_entry_points.cache_clear()
        return site

    yield lay_out
    plugins.load_entry_points.cache_clear()
    plugins.hash_package.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "own_parts"]:
        del sys.modules[name]


def test_the_groups_are_those_of_the_plugins() -> None:
    assert {f"dirtune.{group}" for group in PARTS} == set(plugins.GROUPS.values())


def test_parts_of_every_group_are_listed_with_their_package_and_in_detail(install: Install, call: Call) -> None:
    install(PARTS)
    for group, entries in PARTS.items():
        kind = {"pipelines": "data"}.get(group, group)
        (name,) = entries
        listed = call("list", kind)
        assert (listed.code, listed.err) == (0, "")
        assert name in listed.out.split()
        if group != "methods":
            assert "Of the package own-parts 1.0." in listed.out
        shown = call("list", kind, name)
        assert (shown.code, shown.err) == (0, "")
        assert shown.out.startswith(name)
    assert "rows" in call("list", "data", "waves").out.split()
    assert "Read the mean of every arm." in call("list", "figures", "arm_means").out
    assert "95th percentile" in call("list", "metrics", "tail_error").out


def test_the_parts_of_a_file_are_listed_with_it(call: Call, tmp_path: Path, forgotten_plugins: None) -> None:
    file = write(tmp_path, SPREAD + WORST)
    listed = call("list", "terms", "--plugin", file)
    assert (listed.code, listed.err) == (0, "")
    assert "Of the file my_terms.py." in listed.out
    assert "Repel samples of different label bins." in call("list", "terms", "spread", "--plugin", file).out
    assert "Compute the largest absolute error." in call("list", "metrics", "worst", "--plugin", file).out


def test_parts_of_every_group_are_used(
    install: Install, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(PARTS)
    # A new process does so when it imports the configuration.
    plugins.load_installed()
    monkeypatch.chdir(tmp_path)
    done = call("ingest", "waves", "--option", "rows=48")
    assert done.code == 0, done.err
    # A file of the user's own does not hide the pipeline.
    Path("waves").mkdir()
    assert dirtune.ingest("waves", options={"rows": 48}).splits["train"].rows == 48
    shared: dict[str, Any] = {
        "data": {"name": "waves"},
        "recipe": {"epochs": 2, "batch_size": 16},
        "methods": ["spread_apart"],
        "metrics": ["tail_error"],
    }
    arms: dict[str, Any] = {
        "parts": {"model": {"encoder": {"name": "gated", "width": 8}}, "loss": {"name": "log_cosh"}},
        "rows": {"model": {"encoder": {"name": "mlp", "hidden": [8]}}, "synthesis": {"name": "copies"}},
        "order": {"model": {"encoder": {"name": "mlp", "hidden": [8]}}, "sampling": {"name": "of_rare_labels"}},
        "batches": {"model": {"encoder": {"name": "mlp", "hidden": [8]}}, "mixing": {"name": "neighbors"}},
        "steps": {"model": {"encoder": {"name": "mlp", "hidden": [8]}}, "sharpness": {"name": "by_sign"}},
    }
    for arm, settings in arms.items():
        trained = dirtune.train({**shared, **settings}, arm=arm)
        assert trained.status == "complete", trained.error
    found = rows("select distinct arm, plugins from trials", Path("results"))
    assert set(found["arm"]) == set(arms)
    assert all([*json.loads(used)] == ["own-parts 1.0"] for used in found["plugins"])
    curves = rows("select distinct arm from curves where name = 'train/spread'", Path("results"))
    assert set(curves["arm"]) == set(arms)
    assert len(rows("select distinct trial_id from metrics where metric = 'tail_error'", Path("results"))) == len(arms)


def test_a_figure_is_drawn_by_its_name(install: Install, call: Call, tmp_path: Path) -> None:
    install(PARTS)
    write_study(tmp_path, [record(arm, seed, value) for arm, value in (("a", 4.0), ("b", 5.0)) for seed in (0, 1)])
    done = call("plot", "study", "arm_means", "--results", tmp_path, "--output", tmp_path / "f.png")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("group", "name", "source", "message"),
    [
        ("methods", "conr", "PART = {}", "the name belongs to dirtune already"),
        ("methods", "mine", "PART = {'paper': 'x'}", r"method 'mine': adds: "),
        ("methods", "mine", "PART = 3", "method 'mine'"),
        ("pipelines", "digits", "class PART: pass", "the name belongs to dirtune already"),
        ("pipelines", "mine", "class PART: pass", "must be a module with a class `Options`"),
        ("figures", "mine", "PART = print", r"must be a dirtune\.results\.figures\.FigureKind"),
        (
            "figures",
            "regions",
            "from own_parts.figures import ARM_MEANS as PART",
            "the figure 'regions' belongs to dirtune",
        ),
        (
            "figures",
            "mine",
            "import nowhere",
            r"package own-parts 1.0: the figure 'mine' cannot be imported \(ModuleNotFound",
        ),
        (
            "metrics",
            "mine",
            "def PART(labels, predictions): ...",
            "must be a function with an attribute higher_is_better",
        ),
        ("terms", "mine", "x = 1", r"the term 'mine' cannot be imported \(AttributeError"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_a_sentence(
    install: Install, group: str, name: str, source: str, message: str
) -> None:
    install({group: {name: "own_parts.wrong:PART"}}, wrong=source)
    kind = next(kind for kind, each in plugins.GROUPS.items() if each == f"dirtune.{group}")
    with pytest.raises(InputError, match=message):
        plugins.load_entry_points(kind)
    registry = plugins.get_registry(kind)
    assert name not in registry.get_added()
    assert importlib.import_module("dirtune.presets").read_shipped_methods()["conr"]


def test_the_figures_of_packages_are_offered_before_any_is_drawn(install: Install, tmp_path: Path) -> None:
    install({"figures": PARTS["figures"]})
    write_study(tmp_path / "results", [record("vanilla", 0, 5.0)], reference="vanilla", arms=["vanilla"])
    with TestClient(make_app(str(tmp_path / "results"), "token")) as client:
        client.get("/?token=token")
        assert ">arm_means</option>" in client.get("/study/study/figures").text
