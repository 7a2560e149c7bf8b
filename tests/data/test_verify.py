from __future__ import annotations

import hashlib
import math

import numpy as np
import pyarrow as pa
import pytest

from dirtune.data.verify import SplitRows, check_rows, hash_digests, raise_faults
from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec

LABEL = LabelSpec(name="age", unit="years", low=0, high=10, bin_width=1, num_bins=10)


def _rows(prefix: str, labels: list[float]) -> SplitRows:
    ids = [f"{prefix}{row}" for row in range(len(labels))]
    return SplitRows(files=(), ids=[pa.array(ids, pa.string())], labels=[np.array(labels)])


def test_rows_are_counted_by_label_bin() -> None:
    info = _rows("a", [0.0, 0.5, 3.0, 10.0]).make_split_info(LABEL)
    assert info.rows == 4
    assert info.bin_counts == (2, 0, 0, 1, 0, 0, 0, 0, 0, 1)


def test_valid_rows_pass_up_to_both_ends_of_the_range() -> None:
    check_rows({"train": _rows("a", [0.0, 10.0]), "val": _rows("b", [5.0])}, LABEL, where="ages")


def test_every_kind_of_fault_is_found_at_once() -> None:
    rows = {
        "train": _rows("a", [1.0, math.nan, 11.0, math.inf, -0.5]),
        # A0 again
        "val": _rows("a", [1.0]),
        "test": _rows("c", []),
    }
    with pytest.raises(InputError) as caught:
        check_rows(rows, LABEL, where="ages")
    assert [str(fault) for fault in caught.value.faults] == [
        "ages: train.a0: the sample id occurs more than once",
        "ages: train.a1: age must be within 0..10, got nan",
        "ages: train.a2: age must be within 0..10, got 11.0",
        "ages: train.a3: age must be within 0..10, got inf",
        "ages: train.a4: age must be within 0..10, got -0.5",
        "ages: val.a0: the sample id occurs more than once",
        "ages: test: the split has no samples",
    ]


def test_twenty_faults_are_listed_and_all_are_counted() -> None:
    raise_faults([], where="ages")
    faults = [Fault(where=f"row {row}", rule="is bad") for row in range(23)]
    with pytest.raises(InputError) as caught:
        raise_faults(faults[:20], where="ages")
    assert caught.value.faults == tuple(faults[:20])
    with pytest.raises(InputError) as caught:
        raise_faults(faults, where="ages")
    assert caught.value.faults[:20] == tuple(faults[:20])
    assert str(caught.value.faults[20]) == "ages: 23 faults in all, 3 of them not shown"


def test_the_hash_of_digests_does_not_depend_on_their_order() -> None:
    # Zeros at the end are part of a digest.
    a, b, c = (bytes([each]) * 31 + b"\0" for each in (1, 255, 3))
    by_hand = hashlib.sha256(a + c + b).hexdigest()
    assert hash_digests([a, b, c]) == hash_digests([c + a, b]) == by_hand != hash_digests([a, b])


WIDTH = LabelSpec(name="width", unit="m", low=0, high=2, bin_width=1, num_bins=2)
HEIGHT = LabelSpec(name="height", unit="m", low=0, high=3, bin_width=1, num_bins=3)
SIZE = LabelSpec.grid("size", "m", (WIDTH, HEIGHT))


def test_rows_are_counted_by_cell() -> None:
    rows = SplitRows(files=(), ids=[pa.array(["a", "b", "c"])], labels=[np.array([[0.5, 0.5], [1.5, 2.5], [1.2, 3.0]])])
    check_rows({"train": rows}, SIZE, where="sizes")
    assert rows.make_split_info(SIZE).bin_counts == (1, 0, 0, 0, 0, 2)


def test_every_component_is_checked_against_its_own_range() -> None:
    labels = [np.array([[2.5, 1.0], [1.0, math.nan], [1.0, 3.0], [2.1, -1.0]]), np.array([[1.0]]), np.array([1.0])]
    rows = SplitRows(files=(), ids=[pa.array(list("abcd")), pa.array(["e"]), pa.array(["f"])], labels=labels)
    with pytest.raises(InputError) as caught:
        check_rows({"train": rows}, SIZE, where="sizes")
    assert [str(fault) for fault in caught.value.faults] == [
        "sizes: train.a: width must be within 0..2, got 2.5",
        "sizes: train.b: height must be within 0..3, got nan",
        "sizes: train.d: width must be within 0..2, got 2.1",
        "sizes: train.d: height must be within 0..3, got -1.0",
        "sizes: train.e: size must be 2 numbers, got [1.0]",
        "sizes: train.f: size must be 2 numbers, got 1.0",
    ]
    with pytest.raises(InputError, match=r"age must be one number, got \[1.0, 2.0\]"):
        check_rows(
            {"train": SplitRows(files=(), ids=[pa.array(["a"])], labels=[np.array([[1.0, 2.0]])])}, LABEL, where="ages"
        )
