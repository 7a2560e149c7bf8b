"""`pytest tests/golden/test_vectors.py`: every golden vector is read by a test."""

import re
from pathlib import Path

from tests.golden.vectors import NEWEST, list_vectors, read_newest


def test_every_vector_of_reweighting_is_named_by_a_test():
    tests = Path(__file__).resolve().parents[1]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in tests.rglob("test_*.py"))
    names = list_vectors("reweighting")
    assert len(names) == 13
    assert [name for name in names if not re.search(rf'"{re.escape(name)}"', sources)] == []


def test_the_vectors_of_the_newest_methods_are_listed_and_readable():
    assert list_vectors("newest") == sorted(NEWEST)
    assert len(NEWEST) == 118
    assert [name for name in NEWEST if not read_newest(name).values] == []
