"""New rows of a table, of texts or of images, as the inputs of a data set of the same form that a model was trained on.

The columns are those of the raw file that the data set was made from (`dirtune.data.contract`). Label, id, group and split
columns may be missing, and a column that the raw file did not have is an error, because a renamed feature would otherwise be
reported as missing alone.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dirtune.data.columns import Columns
from dirtune.data.contract import InputContract
from dirtune.data.images import decode_images
from dirtune.data.new_samples import NewSamples, UnknownCategories
from dirtune.data.sources import SUFFIXES, Source, iter_images, open_source
from dirtune.data.verify import raise_faults
from dirtune.errors import Fault, InputError
from dirtune.pipelines import sheets

_GIVEN = "new rows"


def read_new_rows(
    data: Path | str | pa.Table | Sequence[Any], contract: InputContract, *, unknown_categories: UnknownCategories
) -> NewSamples:
    """Return new samples from a table, a file or folder, or a list of image files or of pairs of texts.

    Raises:
        InputError: the rows do not fit the contract; up to 20 faults are listed.
    """
    specs = contract.manifest.features
    kinds = sorted(spec.kind for spec in specs.values())
    options = dict(contract.source.options) if contract.source else {}
    if contract.features:
        return _read_table(_open_sheet(data, options), contract, options, unknown_categories)
    if kinds == ["image"]:
        return _read_images(data, contract, options)
    if {"first", "second"} <= specs.keys() and contract.vocabulary:
        return _read_texts(data, contract, options)
    rule = "this data set was not made from raw rows; give a mapping from input to array"
    raise InputError(Fault(where=contract.manifest.name, rule=rule, known=list(specs)))


def _open_sheet(data: Path | str | pa.Table, options: Mapping[str, Any]) -> sheets.Sheet:
    """Return a table, or read the file in the format of the data set's raw file."""
    form = sheets.TextFormat(**{name: options[name] for name in sheets.TextFormat.model_fields if name in options})
    if isinstance(data, pa.Table):
        return sheets.read_sheet(Source(where=_GIVEN, path=Path(), table=data), form)
    if not isinstance(data, Path | str):
        rule = "must be a table, a file, or arrays by input"
        raise InputError(Fault(where=_GIVEN, rule=rule, got=type(data).__name__))
    with open_source(data) as source:
        try:
            return sheets.read_sheet(source, form)
        except InputError as error:
            faults = [replace(each, rule=_name_delimiter(each.rule, form, source.path)) for each in error.faults]
            raise InputError(faults) from None


def _name_delimiter(rule: str, form: sheets.TextFormat, path: Path) -> str:
    """Return a rule with the delimiter of the ingest instead of the option for another, which new rows do not have."""
    ingested = f"the data set was ingested with {form.get_delimiter(path)!r}"
    return re.sub("`--option delimiter=[^`]*`", lambda _: ingested, rule)


def _check_columns(
    sheet: sheets.Sheet, needed: Sequence[str], contract: InputContract, options: Mapping[str, Any]
) -> None:
    """Raise if a needed column is missing, or a column is none of the raw file's."""
    where, present = sheet.where, sheet.table.column_names
    known = {*needed, contract.manifest.label.name, *(contract.source.columns if contract.source else ())}
    # Names of columns by role, which a file may have that was written from other sources
    known |= {options[role] for role in ("label", "id", "group", "split_column") if options.get(role)}
    known = {sheets.normalize_name(name) for name in known}
    if len(present) == 1 and not known.intersection(present) and (hint := sheet.suggest_header(needed[0])):
        rule = f"none of its columns is one that the model reads{_name_delimiter(hint, sheet.form, sheet.path)}"
        raise InputError(Fault(where=where, rule=rule))
    faults = [
        Fault(where=where, key=name, rule="missing column, which the model reads", known=present)
        for name in needed
        if name not in present
    ]
    faults += [
        Fault(
            where=where, key=name, rule="unknown column, which the model's data did not have; remove it", known=needed
        )
        for name in present
        if name not in known and name not in sheet.index_columns
    ]
    raise_faults(faults, where=where)


def _read_ids(sheet: sheets.Sheet, options: Mapping[str, Any]) -> tuple[str, ...]:
    column = options.get("id")
    if column in sheet.table.column_names:
        return tuple(sheet.read_names(str(column)).tolist())
    return tuple(f"row-{number:07d}" for number in sheet.row_numbers)


def _read_table(
    sheet: sheets.Sheet, contract: InputContract, options: Mapping[str, Any], unknown_categories: UnknownCategories
) -> NewSamples:
    """Return rows of numbers and categories, standardized as the training rows were."""
    present = sheet.table.column_names
    # Sets of earlier versions have names as their files had them.
    features = [each.model_copy(update={"name": sheets.normalize_name(each.name)}) for each in contract.features]
    # The numbers of a column of lists are features of its own name with their position.
    lists = {
        base for each in features if each.name not in present and (base := each.name.rpartition(".")[0]) in present
    }
    columns = [base if (base := each.name.rpartition(".")[0]) in lists else each.name for each in features]
    _check_columns(sheet, list(dict.fromkeys(columns)), contract, options)
    sheet.expand_lists(sorted(lists))
    ids, width = _read_ids(sheet, options), len(features)
    vectors = np.empty((len(ids), width), dtype=np.float32)
    texts = {
        name: sheet.read_names(name) for name in dict.fromkeys(each.name for each in features if each.text is not None)
    }
    for place, each in enumerate(features):
        if each.text is not None:
            vectors[:, place] = texts[each.name] == each.text
        elif each.name in sheet.table.column_names:
            # As in `pipelines.table.make_vectors`
            vectors[:, place] = (sheet.read_numbers(each.name) - (each.mean or 0.0)) / (each.sd or 1.0)
        else:
            rule = "the lists of this column have fewer numbers than in training"
            sheet.column_faults.append(Fault(where=sheet.where, key=each.name, rule=rule))
    if unknown_categories == "error":
        for name, column in texts.items():
            known = [str(each.text) for each in features if each.name == name]
            for row in np.flatnonzero(~np.isin(column.astype(str), known)).tolist():
                # An empty cell is a fault already.
                if column[row].strip():
                    rule = f"unknown category; training had {', '.join(map(repr, known))}"
                    sheet.add_fault(row, name, rule, column[row])
    raise_faults([*sheet.column_faults, *sheet.faults], where=sheet.where)
    (name,) = contract.manifest.features
    return NewSamples(sample_ids=ids, read=lambda rows: {name: vectors[rows]})


def _read_texts(data: Any, contract: InputContract, options: Mapping[str, Any]) -> NewSamples:
    """Return pairs of texts as token ids and, if the data set has them, as sentence features."""
    from dirtune.pipelines import sentence_features, tokens

    if not isinstance(data, Path | str | pa.Table):
        pairs = [each for each in data if isinstance(each, Sequence) and not isinstance(each, str) and len(each) == 2]
        if len(pairs) != len(data):
            raise InputError(Fault(where=_GIVEN, rule="must be pairs of texts, a table or a file"))
        data = pa.table({name: [str(pair[place]) for pair in pairs] for place, name in enumerate(tokens.TEXTS)})
        options = {**options, **{name: name for name in tokens.TEXTS}}
    sheet = _open_sheet(data, options)
    columns = {name: str(options.get(name) or name) for name in tokens.TEXTS}
    _check_columns(sheet, list(columns.values()), contract, options)
    ids = _read_ids(sheet, options)
    texts = {name: sheet.read_texts(column) for name, column in columns.items()}
    raise_faults([*sheet.column_faults, *sheet.faults], where=sheet.where)
    inputs = tokens.encode_new_texts(texts, contract.vocabulary)
    model = options.get("sentence_model")
    if any(spec.kind == "vector" for spec in contract.manifest.features.values()):
        if not model:
            rule = "the sentence model of this data set is not known; give its features as arrays"
            raise InputError(Fault(where=contract.manifest.name, rule=rule))
        found = sentence_features.add_sentence_features(dict(texts), sentence_features.find_model(model), tokens.TEXTS)
        inputs |= {name: found[name] for name in contract.manifest.features if name.endswith("_features")}
    return NewSamples(sample_ids=ids, read=lambda rows: {name: values[rows] for name, values in inputs.items()})


def _read_images(data: Any, contract: InputContract, options: Mapping[str, Any]) -> NewSamples:
    """Return images, opened, resized and encoded as at the ingest when they are needed."""
    from dirtune.pipelines.image_files import describe_missing, encode_file

    (name,) = contract.manifest.features
    spec = contract.manifest.inputs[name]
    folder, paths = _list_images(data, contract, options)
    faults = [
        Fault(where=str(folder / path), rule=describe_missing(folder, path))
        for path in dict.fromkeys(paths)
        if not os.path.isfile(folder / path)
    ]
    raise_faults(faults, where=str(folder))
    # Only the pipeline of one's own images turns them as their EXIF data say.
    upright = contract.source is not None

    def read(rows: np.typing.NDArray[np.int64]) -> Columns:
        encoded, faults = list[bytes](), list[Fault]()
        for row in rows.tolist():
            content, rule, _ = encode_file(folder / paths[row], spec, upright=upright, white=options.get("white"))
            encoded.append(content)
            if rule is not None:
                faults.append(Fault(where=str(folder / paths[row]), rule=rule))
        raise_faults(faults, where=str(folder))
        if spec.encoding == "raw":
            return {name: np.frombuffer(bytearray().join(encoded), spec.element).reshape(-1, *spec.shape)}
        return {name: decode_images(encoded, spec, name=name)}

    return NewSamples(sample_ids=tuple(paths), read=read)


def _list_images(data: Any, contract: InputContract, options: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Return the folder and the relative paths of images: one file, all of a folder, those of a list, or of a column."""
    if isinstance(data, Path) and data.is_dir():
        files = sorted(map(str, iter_images(data)))
        if not files:
            raise InputError(Fault(where=str(data), rule="the folder has no images"))
        return data, files
    if isinstance(data, Path) and data.suffix.lower() not in SUFFIXES:
        return data.parent, [data.name]
    if not isinstance(data, Path | str | pa.Table):
        paths = list(data) if isinstance(data, Sequence) else [data]
        if wrong := [each for each in paths if not isinstance(each, str | os.PathLike)]:
            rule = "must be images by their paths, a table, an array or a mapping of inputs"
            raise InputError(Fault(where="new samples", rule=f"{rule}, got a {type(wrong[0]).__name__}"))
        return Path(), [os.fspath(each) for each in paths]
    sheet = _open_sheet(data, options)
    column = str(options.get("image") or "path")
    _check_columns(sheet, [column], contract, options)
    paths = sheet.read_texts(column).tolist()
    raise_faults([*sheet.column_faults, *sheet.faults], where=sheet.where)
    return sheet.folder, paths
