"""Run with `pytest tests/pipelines/test_tokens.py`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from nltk.tokenize import NLTKWordTokenizer

from dirtune.pipelines import tokens
from dirtune.pipelines.tokens import EncodedTexts, encode_texts

ROWS = [
    ("a", "train", "A cat sat.", 'He said "no" and left.', 0.0),
    ("b", "train", "A cat sat. It slept.", "a dog\x85ran", 4.999),
    ("c", "val", "word " * 50, "A dog.", 2.5),
    ("d", "test", "A cat.", "Rare!", 1.0),
    ("e", "left_out", "Not used", "but counted", 1.0),
]
COLUMNS = ["sample_id", "split", "first", "second", "label"]
PAIRS = pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in ROWS])
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def encoded(ray_session: None) -> EncodedTexts:
    return encode_texts(PAIRS, None)


def _column(encoded: EncodedTexts, split: str, name: str) -> list[Any]:
    batches = encoded.splits[split].iter_batches(batch_format="numpy", batch_size=None)
    return [row for batch in batches if len(batch["sample_id"]) for row in batch[name].tolist()]


def test_every_row_is_in_its_split_with_its_label(encoded: EncodedTexts) -> None:
    assert _column(encoded, "train", "sample_id") == ["a", "b"]
    assert _column(encoded, "train", "label") == [0.0, 4.999]
    assert _column(encoded, "test", "sample_id") == ["d"]


def test_the_vocabulary_counts_down_in_frequency_over_all_rows(encoded: EncodedTexts) -> None:
    vocabulary = json.loads(encoded.side_files["vocabulary.json"])
    counts: Counter[str] = Counter()
    for _, _, *sentences, _ in ROWS:
        for sentence in sentences:
            counts.update(NLTKWordTokenizer().tokenize(sentence)[:40])
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert list(vocabulary.items()) == [(token, 2 + rank) for rank, (token, _) in enumerate(ranked)]
    assert encoded.inputs["first"].vocabulary == len(counts) + 2


def test_long_texts_are_cut_after_forty_tokens_and_short_ones_padded(encoded: EncodedTexts) -> None:
    vocabulary = json.loads(encoded.side_files["vocabulary.json"])
    assert _column(encoded, "val", "first") == [[vocabulary["word"]] * 40]
    dog = [vocabulary[token] for token in ("A", "dog", ".")]
    assert _column(encoded, "val", "second") == [dog + [0] * 37]
    assert encoded.inputs["second"].shape == (40,)


def test_tokens_beyond_the_largest_vocabulary_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    # "word" stands 40 times
    monkeypatch.setattr(tokens, "MAX_VOCABULARY", 1)
    found = encode_texts(PAIRS, None)
    assert json.loads(found.side_files["vocabulary.json"]) == {"word": 2}
    np.testing.assert_array_equal(np.array(_column(found, "test", "second"))[0, :3], [1, 1, 0])
