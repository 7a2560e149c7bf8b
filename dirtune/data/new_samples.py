"""New samples, without labels, as the inputs that a data set stores: from arrays, a table or files, by its input contract.

Raw rows become inputs in `pipelines.new_rows`, as the data set's own rows did at its ingest.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from dirtune.data.columns import Columns
from dirtune.data.contract import InputContract
from dirtune.errors import Fault, InputError
from dirtune.manifest import InputSpec
from dirtune.signatures import describe_value

NewData = Any
"""Table of raw columns (pandas, Arrow), file, folder or URL, list of image files or of pairs of texts, array of raw numbers or images
(NumPy, torch), or a mapping from input to array."""
UnknownCategories = Literal["error", "zeros"]
"""zeros: a text that is no category of the training rows is none of them, as in the data set's own val and test rows."""


@dataclass(frozen=True, kw_only=True)
class NewSamples:
    """Samples whose inputs are read when they are needed."""

    sample_ids: tuple[str, ...]
    read: Callable[[np.typing.NDArray[np.int64]], Columns]
    """Returns the inputs of the samples at these positions, as stored, decoded."""

    def __len__(self) -> int:
        return len(self.sample_ids)


def read_new_samples(
    data: NewData, contract: InputContract, *, unknown_categories: UnknownCategories = "error"
) -> NewSamples:
    """Return new samples of any of the supported forms.

    Args:
        data: the samples.
        contract: of the data set that the model was trained on.
        unknown_categories: treatment of texts that are no category of the training rows.

    Raises:
        InputError: the samples do not fit the contract.
    """
    specs = contract.manifest.features
    if unknown_categories not in get_args(UnknownCategories):
        known = get_args(UnknownCategories)
        raise InputError(
            Fault(where="unknown_categories", rule="unknown treatment", got=unknown_categories, known=known)
        )
    is_form = isinstance(data, str | os.PathLike | Sequence | Mapping | pa.Table) or hasattr(data, "__array__")
    if not is_form and not hasattr(data, "columns"):
        rule = "must be a path, a table, a list, an array or a mapping from input to array"
        raise InputError(Fault(where="new samples", rule=f"{rule}, got {describe_value(data)}"))
    if isinstance(data, str) and not data:
        # As a path it would be the current directory
        raise InputError(Fault(where="new samples", rule="must not be empty"))
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        # A pandas frame; its index is no column, as at an ingest.
        try:
            data = pa.Table.from_pandas(data, preserve_index=False)
        except (ValueError, TypeError, pa.ArrowException) as error:
            rule = f"the data frame cannot be read ({str(error).splitlines()[0]})"
            raise InputError(Fault(where="new samples", rule=rule)) from None
    if hasattr(data, "__array__") and not hasattr(data, "columns"):
        data = _to_array(data)
    if isinstance(data, np.ndarray):
        if len(specs) > 1:
            rule = "an array is for models with one input; give a mapping from input to array"
            raise InputError(Fault(where="new samples", rule=rule, known=list(specs)))
        if not contract.features:
            return from_arrays(dict.fromkeys(specs, data), specs)
        names = list(dict.fromkeys(each.name for each in contract.features))
        if data.ndim != 2 or data.shape[1] != len(names):
            rule = f"an array must have the {len(names)} columns {', '.join(names)}; its shape"
            raise InputError(Fault(where="new samples", rule=rule, got=data.shape))
        if data.dtype.kind not in "biufOUS":
            raise InputError(Fault(where="new samples", rule="must be numbers or texts", got=data.dtype.name))
        data = pa.table({each: pa.array(data[:, place].tolist()) for place, each in enumerate(names)})
    elif isinstance(data, Mapping):
        return from_arrays({name: _to_array(values, name) for name, values in data.items()}, specs)
    # Imported by name, as the pipelines of ingests are.
    read: Any = importlib.import_module("dirtune.pipelines.new_rows").read_new_rows
    is_path = isinstance(data, str | os.PathLike) and "://" not in str(data)
    source: Any = Path(os.path.expanduser(data)) if is_path else data
    samples: NewSamples = read(source, contract, unknown_categories=unknown_categories)
    return samples


def _to_array(values: Any, key: str = "") -> np.typing.NDArray[Any]:
    """Return values as an array.

    Raises:
        InputError: they have rows of different lengths, or a type that NumPy does not have, such as bfloat16.
    """
    try:
        return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
    except (ValueError, TypeError, RuntimeError) as error:
        rule = f"cannot be read as an array ({str(error).splitlines()[0]})"
        raise InputError(Fault(where="new samples", key=key, rule=rule)) from None


def from_arrays(arrays: Mapping[str, np.typing.NDArray[Any]], specs: Mapping[str, InputSpec]) -> NewSamples:
    """Return samples whose inputs are given, as stored: standardized vectors, token ids, images of bytes.

    Raises:
        InputError: an input is missing or unknown, or an array has another shape, type or number of rows.
    """
    where, faults = "new samples", []
    for name in specs.keys() - arrays.keys():
        faults.append(Fault(where=where, key=name, rule="missing input"))
    for name, array in arrays.items():
        if name not in specs:
            faults.append(Fault(where=where, rule="unknown input", got=name, known=list(specs)))
            continue
        spec = specs[name]
        if array.shape[1:] != spec.shape:
            rule = f"must have the shape (samples, {', '.join(map(str, spec.shape))})"
            faults.append(Fault(where=where, key=name, rule=rule, got=array.shape))
        # A silent cast would make black images of floats in [0, 1].
        elif not np.can_cast(array.dtype, spec.element, "same_kind"):
            rule = f"must be of type {spec.element}"
            faults.append(Fault(where=where, key=name, rule=rule, got=array.dtype.name))
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            faults.append(Fault(where=where, key=name, rule="must be finite numbers"))
    if faults:
        raise InputError(faults)
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1:
        raise InputError(Fault(where=where, rule="every input must have the same number of rows", got=sorted(lengths)))
    (rows,) = lengths
    if not rows:
        raise InputError(Fault(where=where, rule="must have a row"))
    typed = {name: array.astype(specs[name].element, copy=False) for name, array in arrays.items()}
    ids = tuple(f"row-{number:07d}" for number in range(1, rows + 1))
    return NewSamples(sample_ids=ids, read=lambda chosen: {name: array[chosen] for name, array in typed.items()})
