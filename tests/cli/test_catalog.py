"""Run with `pytest tests/cli/test_catalog.py`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dirtune.cli import catalog
from dirtune.cli.catalog import REGISTRIES, describe_entry, list_catalog
from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.data.dense_views import DENSE_AUGMENTATIONS
from dirtune.data.ingest import load_pipeline
from dirtune.diagnostics import DIAGNOSTICS
from dirtune.errors import InputError
from dirtune.losses import LOSSES, TERMS
from dirtune.metrics import EXTRA_METRICS, METRICS, spearman
from dirtune.mixing import MIXING
from dirtune.models.encoders import ENCODERS
from dirtune.pipelines import PIPELINES
from dirtune.presets import read_methods, read_recipes
from dirtune.results.figures import FIGURES, FigureKind
from dirtune.sampling import SAMPLING
from dirtune.sharpness import SHARPNESS
from dirtune.synthesis import SYNTHESIS

ROOT = Path(__file__).resolve().parents[2]


def test_every_registry_is_listed_by_its_kind() -> None:
    found = list_catalog()
    registries: dict[str, Mapping[str, Any]] = {
        "losses": LOSSES,
        "terms": TERMS,
        "encoders": ENCODERS,
        "synthesis": SYNTHESIS,
        "sampling": SAMPLING,
        "mixing": MIXING,
        "sharpness": SHARPNESS,
        "augmentations": {**AUGMENTATIONS, **DENSE_AUGMENTATIONS},
        "metrics": {**METRICS, **EXTRA_METRICS},
        "diagnostics": DIAGNOSTICS,
        "figures": FIGURES,
        "methods": read_methods(),
        "recipes": read_recipes(),
    }
    assert {kind: set(found[kind]) for kind in registries} == {
        kind: set(registry) for kind, registry in registries.items()
    }
    assert set(found) == {*registries, "data", "studies"}


def test_every_shipped_study_is_listed_with_its_question() -> None:
    found = list_catalog()["studies"]
    files = {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
    # A file for several data sets is listed by data set
    for stem in files - found.keys():
        assert f"digits_{stem}" in found
    assert found["quickstart"] == "Does a projection or a contrastive term help the rare angles?"


def test_every_listed_data_set_has_a_pipeline() -> None:
    found = list_catalog()["data"]
    assert {"digits", "sts_b"} <= set(found)
    for name in found:
        assert callable(load_pipeline(name).ingest)


def test_the_sentences_read_from_the_source_are_those_of_the_imported_registries() -> None:
    found = list_catalog()
    for kind, registries in REGISTRIES.items():
        things: dict[str, Any] = {}
        for registry in registries:
            module, _, variable = registry.partition(":")
            things |= getattr(importlib.import_module(module), variable)
        things |= {name: spearman for name, thing in things.items() if thing is None}
        things = {name: thing.build if isinstance(thing, FigureKind) else thing for name, thing in things.items()}
        documented = {name: (inspect.getdoc(thing) or "").split("\n\n")[0] for name, thing in things.items()}
        assert found[kind] == {name: text.replace("\n", " ") for name, text in documented.items()}


def test_every_name_has_a_sentence_of_one_line() -> None:
    for kind, entries in list_catalog().items():
        for name, sentence in entries.items():
            assert "\n" not in sentence
            assert kind in {"metrics", "diagnostics"} or len(sentence.split()) >= 3, f"{kind}: {name}"


@pytest.mark.parametrize(("kind", "registry"), [("losses", LOSSES), ("terms", TERMS), ("encoders", ENCODERS)])
def test_every_setting_is_explained_with_its_default(kind: str, registry: Mapping[str, Any]) -> None:
    for name, settings in registry.items():
        found = describe_entry(kind, name)
        assert [row[0] for row in found.rows] == [f for f in settings.model_fields if f != "name"]
        for setting, _, meaning in found.rows:
            assert len(meaning.split()) >= 2, f"{name}.{setting} is not documented"


def test_a_data_set_shows_the_options_of_its_ingest_the_required_ones_first() -> None:
    found = describe_entry("data", "table")
    assert found.columns == ("option", "type", "default", "meaning")
    rows = {row[0]: row for row in found.rows}
    assert [row[0] for row in found.rows[:5]] == ["name", "label", "features", "one_hot", "ignore"]
    assert rows["name"][1:3] == ("text", "required")
    assert rows["one_hot"][1:3] == ("list of texts", "[]")
    assert rows["features"][1:3] == ("list of texts", "null")
    assert rows["bands"][1:3] == ("list of [number, number]", "null")
    assert rows["split"][1:3] == ("published | made | natural | grouped", "published")
    assert rows["standardize"][1:3] == ("true | false", "true")
    for name in PIPELINES:
        for option, _, _, meaning in describe_entry("data", name).rows:
            assert len(meaning.split()) >= 2, f"{name}.{option} is not documented"


def test_a_method_shows_its_settings_and_their_source_by_data_set() -> None:
    found = describe_entry("methods", "conr")
    assert found.columns == ("data set", "settings", "source")
    settings = {data: text for data, text, _ in found.rows}
    assert "terms.conr.omega: 0.2" in settings["nyud2"].splitlines()
    assert all(len(source) > 5 for _, _, source in found.rows)


def test_a_preset_shows_how_the_published_variant_differs_in_one_line_each() -> None:
    rows = describe_entry("methods", "conr").rows
    text = "terms.conr.beta: 8 instead of 4"
    assert ("imdb_wiki: published", text, "imdb-wiki-dir/train.py adds beta times the term in two places") in rows
    rows = describe_entry("methods", "focal_r").rows
    assert ("sts_b: published, recipe accon", "loss.beta: 0.2 instead of 20") in {row[:2] for row in rows}
    rows = describe_entry("methods", "two_stage").rows
    assert {"agedb: recipe rnc", "imdb_wiki: recipe rnc"} <= {data for data, _, _ in rows}
    published = [
        row for name in read_recipes() for row in describe_entry("recipes", name).rows if "published" in row[0]
    ]
    assert len(published) >= 8
    assert not any("\n" in text for row in published for text in row)


def test_every_listed_name_can_be_shown_in_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    # Read once, not once per study
    monkeypatch.setattr(catalog, "list_shipped_studies", cache(catalog.list_shipped_studies))
    for kind, names in list_catalog().items():
        for name in names:
            entry = describe_entry(kind, name)
            assert entry.about, f"{kind}: {name}"
    assert "gain of 0.7 to 1" in describe_entry("augmentations", "shift").about
    rows = dict(describe_entry("studies", "quickstart").rows)
    assert rows["base.data"] == "name: digits"
    assert "arms.vanilla" in rows


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("terms", "comr", "did you mean 'conr'"),
        ("metrics", "spearmn", "did you mean 'spearman'"),
        ("metric", "mae", "unknown kind"),
    ],
)
def test_an_unknown_entry_is_an_error_that_lists_the_known_ones(kind: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_entry(kind, name)
