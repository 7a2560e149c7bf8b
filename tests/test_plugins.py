"""Plug-ins: parts from outside of the package. Run with `pytest tests/test_plugins.py`."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dirtune
from dirtune import plugins
from dirtune.config import TrialConfig
from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.data.dense_views import DENSE_AUGMENTATIONS
from dirtune.diagnostics import DIAGNOSTICS
from dirtune.errors import InputError
from dirtune.frozen import read, read_field_docstrings
from dirtune.io.storage import Storage
from dirtune.losses import LOSSES, TERMS
from dirtune.metrics import EXTRA_METRICS, HIGHER_IS_BETTER, METRICS, compute_metrics
from dirtune.pipelines import PIPELINES
from tests.plugin_sources import CUBE, SPREAD, WORST, forgotten_plugins, write

__all__ = ["forgotten_plugins"]
pytestmark = pytest.mark.usefixtures("forgotten_plugins")
BASE: dict[str, Any] = {"data": {"name": "toy"}, "model": {"encoder": {"name": "mlp"}}}


def make_config(**changes: Any) -> TrialConfig:
    return read(TrialConfig, {**BASE, **changes}, where="test")


def load(path: Path) -> plugins.FilePlugin:
    return plugins.load_files([path])[0]


@pytest.mark.parametrize(
    "registry",
    [
        *(plugins.get_registry(kind) for kind in plugins.REGISTRIES),
        METRICS,
        PIPELINES,
        AUGMENTATIONS,
        DENSE_AUGMENTATIONS,
        DIAGNOSTICS,
    ],
    ids=lambda registry: registry.kind,
)
def test_writing_into_a_registry_raises_with_the_right_way(registry: Any) -> None:
    before = dict(registry)
    way = rf"@dirtune\.register\.{registry.kind}\(" if registry.is_open else "there are no plug-ins of this kind"
    assert hasattr(dirtune.register, registry.kind) == registry.is_open
    for act in (
        lambda: registry.__setitem__("spread", object()),
        lambda: registry.update(spread=object()),
        lambda: registry.setdefault("spread", object()),
        lambda: registry.pop("mae", None),
        registry.clear,
    ):
        with pytest.raises(TypeError, match=f"would not reach the workers.*{way}"):
            act()
    assert dict(registry) == before


def test_a_term_of_a_file_is_a_term(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"terms\.spread: unknown key"):
        make_config(terms={"spread": {}})
    plugin = load(write(tmp_path, SPREAD))
    config = make_config(terms={"spread": {"weight": 0.5}})
    assert config.terms.get_active()["spread"].weight == 0.5
    assert config.list_plugins() == [plugin]
    with pytest.raises(InputError, match=r"terms\.spread\.wegiht: unknown key.*did you mean 'weight'"):
        make_config(terms={"spread": {"wegiht": 1}})
    # From the source, as those of the package
    assert read_field_docstrings(type(config.terms.get_active()["spread"]))["weight"].startswith("Weight of")


def test_a_loss_is_one_of_both_stages_and_a_metric_is_recorded_where_it_is_named(tmp_path: Path) -> None:
    load(write(tmp_path, CUBE + WORST))
    config = make_config(scheme={"name": "rrt", "loss": {"name": "cube"}}, metrics=["worst"])
    assert config.scheme.loss.name == "cube"
    assert len(config.list_plugins()) == 1
    assert make_config(objective={"metric": "worst"}).plugin_metrics == ("worst",)
    assert make_config().plugin_metrics == ()
    with pytest.raises(
        InputError, match=r"metrics: must be metrics of plug-ins \(worst\), got \('mae',\)|got \['mae'\]"
    ):
        make_config(metrics=["mae"])
    labels, predictions = np.array([1.0, 2.0, 5.0]), np.array([1.5, 2.0, 3.0])
    assert compute_metrics(["worst"], labels, predictions) == {"worst": 2.0}
    assert "worst" not in HIGHER_IS_BETTER


def test_the_source_is_part_of_the_identity_of_the_trials_that_use_it(tmp_path: Path) -> None:
    without = make_config().compute_trial_id("data")
    load(write(tmp_path, SPREAD + WORST))
    assert make_config().compute_trial_id("data") == without
    changes: tuple[dict[str, Any], ...] = (
        {"terms": {"spread": {}}},
        {"metrics": ["worst"]},
        {"objective": {"metric": "worst"}},
    )
    first = [make_config(**each).compute_trial_id("data") for each in changes]
    assert first == [make_config(**each).make_trial_ids("data")(0) for each in changes]
    load(write(tmp_path, (SPREAD + WORST).replace("cosines * differ", "cosines.square() * differ")))
    changed = [make_config(**each).compute_trial_id("data") for each in changes]
    assert not set(first) & set(changed)
    assert make_config().compute_trial_id("data") == without


def test_a_changed_file_replaces_the_one_before(tmp_path: Path) -> None:
    load(write(tmp_path, SPREAD))
    old = TERMS["spread"]
    load(write(tmp_path, SPREAD.replace("default=1.0", "default=3.0")))
    assert TERMS["spread"] is not old
    assert make_config(terms={"spread": {}}).terms.get_active()["spread"].weight == 3.0


@pytest.mark.slow
def test_a_configuration_takes_its_plugins_to_another_process(tmp_path: Path) -> None:
    load(write(tmp_path, SPREAD))
    config = make_config(terms={"spread": {"weight": 0.25}}, seed=3)
    (tmp_path / "config").write_bytes(pickle.dumps(config))
    script = (
        "import pickle, sys; c = pickle.loads(open(sys.argv[1], 'rb').read());"
        "print(c.compute_trial_id('data'), c.terms.get_active()['spread'].weight, c.seed)"
    )
    (tmp_path / "my_terms.py").unlink()
    command = [sys.executable, "-c", script, str(tmp_path / "config")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.split() == [config.compute_trial_id("data"), "0.25", "3"]
    assert pickle.loads(pickle.dumps(make_config(seed=3))) == make_config(seed=3)


def test_an_imported_module_is_shipped_as_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, SPREAD, "imported_terms.py")
    module = importlib.import_module("imported_terms")
    monkeypatch.delitem(sys.modules, "imported_terms")
    assert TERMS["spread"] is module.Spread
    (used,) = make_config(terms={"spread": {}}).list_plugins()
    assert used == plugins.FilePlugin("imported_terms.py", path.read_text())
    # It was not executed twice.
    load(path)
    assert TERMS["spread"] is module.Spread


def test_a_part_without_a_file_is_refused() -> None:
    namespace: dict[str, Any] = {"__name__": "a_notebook"}
    with pytest.raises(InputError, match=r"term 'spread': is defined where there is no file .*plugins:"):
        exec(SPREAD, namespace)
    assert "spread" not in TERMS


@pytest.mark.slow
def test_a_part_of_the_script_itself_is_for_this_process_alone(tmp_path: Path) -> None:
    checks = """
from dirtune import plugins
plugin, = plugins.list_registered()
print(plugins.find_obstacle(plugin))
"""
    script = write(tmp_path, SPREAD + checks, "script.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout.startswith("script.py: is the script of this process, which workers cannot run")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "my_terms.py: registers nothing"),
        ("x = \n", r"my_terms.py:1: is not Python \(invalid syntax\)"),
        (
            "import os\n\n1 / 0\n",
            r"my_terms.py:3: cannot be loaded as a plug-in \(ZeroDivisionError: division by zero\)",
        ),
        ("import neighbor\n", "my_terms.py:1: imports a file beside it.*'neighbor'"),
        ("from . import x\n", "my_terms.py:1: imports a file beside it"),
        (SPREAD.replace('term("spread")', 'term("conr")'), "my_terms.py: the term 'conr' belongs to dirtune already"),
        (SPREAD.replace('term("spread")', 'term("Spread")'), "term 'Spread': a name has small letters"),
        (SPREAD.replace("(Frozen)", ""), r"term 'spread': must be a class derived from dirtune\.frozen\.Frozen"),
        (SPREAD.replace("weight:", "factor:"), "term 'spread': needs a field `weight` and a method `__call__`"),
        (CUBE.replace('"cube"] = "cube"', '"c"] = "c"'), "loss 'cube': needs the field"),
        (WORST.replace('"worst"', '"mae"'), "metric 'mae': the name belongs to a metric of every data set"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_a_sentence(source: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, "x = 1\n", "neighbor.py")
    before = [*TERMS, *LOSSES, *EXTRA_METRICS]
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, source))
    assert [*TERMS, *LOSSES, *EXTRA_METRICS] == before


def test_two_files_cannot_have_one_name(tmp_path: Path) -> None:
    load(write(tmp_path, SPREAD))
    with pytest.raises(InputError, match=r"other.py: the term 'spread' belongs to my_terms.py already"):
        load(write(tmp_path, SPREAD, "other.py"))


def test_a_study_from_elsewhere_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
        write(folder, SPREAD)
    monkeypatch.chdir(home)
    with pytest.raises(InputError, match=r"study: plugins: runs the code of my_terms\.py, .*--allow-plugins"):
        plugins.load_study_files(["my_terms.py"], elsewhere, where="study", allow=False)
    with pytest.raises(InputError, match=r"--allow-plugins"):
        plugins.load_study_files(["my_terms.py"], home / "../elsewhere", where="study", allow=False)
    assert "spread" not in TERMS
    plugins.load_study_files(["my_terms.py"], elsewhere, where="study", allow=True)
    assert "spread" in TERMS
    plugins.load_study_files(["my_terms.py"], home, where="study", allow=False)


def test_the_code_of_a_sweep_runs_if_it_is_allowed_or_known(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    write(tmp_path / "plugins", SPREAD)
    folder = Storage.open(tmp_path)
    with pytest.raises(InputError, match=r"the sweep uses the code of my_terms\.py.*--allow-plugins"):
        plugins.load_recorded_files(folder, "plugins", allow=False)
    own = plugins.load_files([write(tmp_path, SPREAD)])
    plugins.load_recorded_files(folder, "plugins", allow=False)
    plugins.unload(own[0])
    plugins.load_recorded_files(folder, "plugins", allow=True)
    assert "spread" in TERMS


def test_a_new_term_trains(tmp_path: Path) -> None:
    load(write(tmp_path, SPREAD))
    z = torch.nn.functional.normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    bins = torch.tensor([0, 0, 1, 1, 2, 2])
    inputs = dirtune.batch.TermInputs(
        representations=z,
        labels=bins.float(),
        label_bins=bins,
        predictions=bins.float(),
        weights=torch.ones(6),
        samples=torch.arange(6),
        num_views=1,
        label_range=2.0,
    )
    pairs = [(i, j) for i in range(6) for j in range(6) if bins[i] != bins[j]]
    expected = sum(float(z[i] @ z[j]) for i, j in pairs) / len(pairs)
    assert float(TERMS["spread"]()(inputs)) == pytest.approx(expected, abs=1e-6)
