"""Pairs of texts as token ids and, with a sentence model, as vectors, for `sts_b` and `text_pairs`.

Each text becomes 40 token ids: 0 is padding, 1 a token outside the vocabulary, further ids are in the order of descending
frequency over all rows of the raw files, in all splits (30,000 tokens at most; case is kept). `vocabulary.json` holds the id
of each token. Rows that are left out count as well, so that every split of the same files has the same ids.

Tokens come from nltk's `NLTKWordTokenizer`, which its `word_tokenize` uses as well, but without splitting the text into
sentences first, which would need a download: a period inside a text of several sentences remains part of its word.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dirtune.manifest import SPLITS, InputSpec
from dirtune.pipelines.sentence_features import add_sentence_features, make_feature_inputs

if TYPE_CHECKING:
    from ray.data import Dataset

TEXTS = ("first", "second")
MAX_TOKENS = 40
MAX_VOCABULARY = 30_000
PADDING, UNKNOWN, FIRST_TOKEN = 0, 1, 2
# A set of a few megabytes needs no more tasks.
_BLOCKS = 2


@dataclass(frozen=True, kw_only=True)
class EncodedTexts:
    """Arguments of `write_dataset` for pairs of texts."""

    splits: "dict[str, Dataset]"
    inputs: dict[str, InputSpec]
    side_files: dict[str, bytes]
    cut: int
    """Texts with more tokens than are stored."""


def encode_texts(pairs: pa.Table, model: str | None) -> EncodedTexts:
    """Tokenize all pairs, count the vocabulary, and encode both texts as ids; needs a Ray session.

    Args:
        pairs: columns `sample_id`, `split`, `first`, `second`, `label` and, if there are groups, `group`; rows of other
            splits than train, val and test count for the vocabulary only.
        model: of the sentence features, as `sentence_features.find_model` returns it; None means no features.

    Raises:
        InputError: the model cannot be loaded.
    """
    features = make_feature_inputs(model, TEXTS) if model else {}
    prepared = _prepare(pairs, model)
    counts: Counter[str] = Counter()
    columns, cut = [f"{name}_tokens" for name in TEXTS], 0
    for batch in prepared.select_columns([*columns, *(f"{name}_cut" for name in TEXTS)]).iter_batches():
        counts.update(token for name in columns for text in batch[name] for token in text.split())
        cut += sum(int(np.count_nonzero(batch[f"{name}_cut"])) for name in TEXTS)
    # Tokens of equal frequency are sorted by name, so that the ids do not depend on the order of batches.
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    vocabulary = {token: FIRST_TOKEN + rank for rank, token in enumerate(ranked[:MAX_VOCABULARY])}
    tokens = InputSpec(kind="tokens", shape=(MAX_TOKENS,), vocabulary=FIRST_TOKEN + len(vocabulary))
    kept = [name for name in ("sample_id", "label", "group") if name in pairs.column_names]
    return EncodedTexts(
        splits={split: _encode_split(prepared, split, vocabulary, [*kept, *features]) for split in SPLITS},
        inputs=dict.fromkeys(TEXTS, tokens) | features,
        side_files={"vocabulary.json": json.dumps(vocabulary, indent=0).encode()},
        cut=cut,
    )


def encode_new_texts(
    texts: Mapping[str, np.typing.NDArray[Any]], vocabulary: Sequence[str]
) -> dict[str, np.typing.NDArray[np.int32]]:
    """Return the token ids of new texts.

    Args:
        texts: by input.
        vocabulary: tokens by id.
    """
    ids = {token: index for index, token in enumerate(vocabulary) if index >= FIRST_TOKEN}
    tokenized = _tokenize(dict(texts))
    return {name: _to_ids(tokenized[f"{name}_tokens"], ids) for name in TEXTS}


def _prepare(pairs: pa.Table, model: str | None) -> "Dataset":
    """Compute `<name>_tokens` (joined by spaces), `<name>_cut` and, with a model, `<name>_features` of all pairs."""
    import ray.data

    dataset = ray.data.from_arrow(pairs, override_num_blocks=_BLOCKS)
    dataset = dataset.map_batches(_tokenize, batch_format="numpy")
    if model is not None:
        dataset = dataset.map_batches(
            add_sentence_features,
            fn_kwargs={"model": model, "columns": TEXTS},
            # A task has one core, and a worker keeps the model for its next one.
            batch_size=1024,
        )
    return dataset.materialize()


def _tokenize(batch: dict[str, np.typing.NDArray[Any]]) -> dict[str, np.typing.NDArray[Any]]:
    # The import is slow, and only Ray's workers need it.
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    for name in TEXTS:
        tokens = [tokenizer.tokenize(text) for text in batch[name]]
        batch[f"{name}_tokens"] = np.array([" ".join(each[:MAX_TOKENS]) for each in tokens], dtype=object)
        batch[f"{name}_cut"] = np.array([len(each) > MAX_TOKENS for each in tokens])
    return batch


def _encode_split(prepared: "Dataset", split: str, vocabulary: Mapping[str, int], kept: Sequence[str]) -> "Dataset":
    def encode(batch: dict[str, np.typing.NDArray[Any]]) -> dict[str, np.typing.NDArray[Any]]:
        rows = batch["split"] == split
        tokens = {name: _to_ids(batch[f"{name}_tokens"][rows], vocabulary) for name in TEXTS}
        return {**{name: batch[name][rows] for name in kept}, **tokens}

    return prepared.map_batches(encode, batch_format="numpy")


def _to_ids(texts: np.typing.NDArray[Any], vocabulary: Mapping[str, int]) -> np.typing.NDArray[np.int32]:
    ids = np.full((len(texts), MAX_TOKENS), PADDING, dtype=np.int32)
    for row, text in enumerate(texts):
        tokens = text.split()
        ids[row, : len(tokens)] = [vocabulary.get(token, UNKNOWN) for token in tokens]
    return ids
