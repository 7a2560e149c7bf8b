"""Run with `pytest tests/cli/test_catalog.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dirtune.cli.catalog import catalog, entry
from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.data.dense_views import MAP_AUGMENTATIONS
from dirtune.data.ingest import pipeline
from dirtune.diagnostics import DIAGNOSTICS
from dirtune.errors import InputError
from dirtune.losses import LOSSES, TERMS
from dirtune.metrics import METRICS, OWN_METRICS
from dirtune.models.encoders import ENCODERS
from dirtune.presets import methods, recipes

ROOT = Path(__file__).resolve().parents[2]


def test_every_registry_is_listed_by_its_kind() -> None:
    found = catalog()
    registries: dict[str, Mapping[str, Any]] = {
        "losses": LOSSES,
        "terms": TERMS,
        "encoders": ENCODERS,
        "augmentations": AUGMENTATIONS | MAP_AUGMENTATIONS,
        "metrics": {**METRICS, **OWN_METRICS},
        "diagnostics": DIAGNOSTICS,
        "methods": methods(),
        "recipes": recipes(),
    }
    assert {kind: set(found[kind]) for kind in registries} == {
        kind: set(registry) for kind, registry in registries.items()
    }
    assert set(found) == {*registries, "data", "studies"}


def test_every_shipped_study_is_listed_with_its_question() -> None:
    found = catalog()["studies"]
    files = {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
    # A file for several data sets is listed by data set
    for stem in files - found.keys():
        assert f"digits_{stem}" in found
    assert found["quickstart"] == "Does a projection or a contrastive term help the rare angles?"


def test_every_listed_data_set_has_a_pipeline() -> None:
    found = catalog()["data"]
    assert {"digits", "sts_b"} <= set(found)
    for name in found:
        assert callable(pipeline(name).ingest)


def test_every_name_comes_with_one_line_that_says_what_it_is() -> None:
    for kind, entries in catalog().items():
        for name, sentence in entries.items():
            assert "\n" not in sentence
            assert kind in {"metrics", "diagnostics"} or len(sentence.split()) >= 3, f"{kind}: {name}"


@pytest.mark.parametrize(("kind", "registry"), [("losses", LOSSES), ("terms", TERMS), ("encoders", ENCODERS)])
def test_every_setting_is_explained_with_its_default(kind: str, registry: Mapping[str, Any]) -> None:
    for name, settings in registry.items():
        found = entry(kind, name)
        assert [row[0] for row in found.rows] == [f for f in settings.model_fields if f != "name"]
        for setting, _, meaning in found.rows:
            assert len(meaning.split()) >= 2, f"{name}.{setting} is not documented"


def test_a_method_shows_its_settings_and_their_source_by_data_set() -> None:
    found = entry("methods", "conr")
    assert found.columns == ("data set", "settings", "source")
    settings = {data: text for data, text, _ in found.rows}
    assert "terms.conr.omega: 0.2" in settings["nyud2"].splitlines()
    assert all(len(source) > 5 for _, _, source in found.rows)


@pytest.mark.parametrize(
    ("kind", "name", "told"), [("terms", "comr", "did you mean 'conr'"), ("metrics", "mae", "no details on this kind")]
)
def test_an_unknown_entry_is_refused_with_the_known_ones(kind: str, name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        entry(kind, name)
