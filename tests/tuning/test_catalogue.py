"""Run with `pytest tests/tuning/test_catalogue.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dirtune.data.ingest import pipeline
from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.losses import LOSSES, TERMS
from dirtune.metrics import METRICS
from dirtune.models.encoders import ENCODERS
from dirtune.tuning.catalogue import catalogue

ROOT = Path(__file__).resolve().parents[2]


def test_every_registry_is_listed_by_its_kind() -> None:
    found = catalogue()
    registries: dict[str, Mapping[str, Any]] = {
        "losses": LOSSES, "terms": TERMS, "encoders": ENCODERS, "augmentations": AUGMENTATIONS,
        "metrics": METRICS,
    }  # fmt: skip
    assert {kind: set(found[kind]) for kind in registries} == {
        kind: set(registry) for kind, registry in registries.items()
    }
    assert set(found) == {*registries, "data", "studies"}


def test_every_shipped_study_is_listed_with_its_question() -> None:
    found = catalogue()["studies"]
    assert set(found) == {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert found["quickstart"] == "Does a projection or a contrastive term help the rare angles?"


def test_every_listed_data_set_has_a_pipeline() -> None:
    found = catalogue()["data"]
    assert {"digits", "sts_b"} <= set(found)
    for name in found:
        assert callable(pipeline(name).ingest)


def test_every_name_comes_with_one_line_that_says_what_it_is() -> None:
    for kind, entries in catalogue().items():
        for name, sentence in entries.items():
            assert "\n" not in sentence
            assert kind == "metrics" or len(sentence.split()) >= 3, f"{kind}: {name}"
