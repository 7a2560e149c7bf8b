"""What stands in two splits that should be apart: equal ids, equal contents, and groups that cross.

A leak makes errors too small: a test sample that was trained on, or a test image of a person who was. The published lists
have them (STS-B-DIR: 15 pairs are in train and test; AgeDB-DIR: every test image shows a person of training) and are kept
as they are, but said: each finding is a sentence for the manifest's notes, and the rows, so that copies can be dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.rows import LEFT_OUT, Ids, SplitNames
from dirtune.manifest import SPLITS

Kind = Literal["id", "content", "group"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing that stands in two splits, or twice in one."""

    kind: Kind
    splits: tuple[str, str]
    """The earlier and the later of train, val, test; or one of them, twice."""
    values: int
    """Distinct ids, contents or groups found."""
    earlier: NDArray[np.int64]
    """Rows of the earlier split that could go; inside one split, all but the first of each value."""
    later: NDArray[np.int64]
    """Rows of the later split that have a counterpart; inside one split, the first of each value."""
    of_later: int
    """All rows of the later split."""

    @property
    def sentence(self) -> str:
        """For the manifest's notes."""
        one, other = self.splits
        what = f"{self.values:,} {self.kind}{'' if self.values == 1 else 's'}"
        if one == other:
            return f"{what} more than once in {one}: {len(self.earlier):,} rows repeat another"
        return (
            f"{what} in both {one} and {other}: {len(self.later):,} of {self.of_later:,} {other} rows, "
            f"{len(self.earlier):,} {one} rows"
        )


def leaks(
    splits: SplitNames,
    *,
    ids: Ids,
    contents: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[Finding]:
    """Ids and contents that stand in two splits or twice in one, and groups that stand in two splits.

    Rows that are left out do not count. The order of the findings: ids, contents, groups; train-val, train-test,
    val-test, then inside each split.

    Args:
        splits: shape `(rows,)`.
        contents: what makes two rows the same sample, such as a digest of the image, or both sentences and the score.
        groups: such as the person in the image.
    """
    keys: dict[Kind, Sequence[Hashable] | None] = {"id": ids.tolist(), "content": contents, "group": groups}
    found = []
    for kind, values in keys.items():
        if values is not None:
            rows = {split: _rows_by_value(values, splits, split, ids) for split in SPLITS}
            found += [_between(kind, rows, one, other) for one, other in combinations(SPLITS, 2)]
            found += [_inside(kind, rows, split) for split in SPLITS if kind != "group"]
    return [finding for finding in found if finding.values]


_RowsByValue = dict[Hashable, list[int]]


def _rows_by_value(values: Sequence[Hashable], splits: SplitNames, split: str, ids: Ids) -> _RowsByValue:
    rows: _RowsByValue = {}
    members = np.flatnonzero(splits == split)
    # Sorted, so that which of several copies is the first depends on the ids alone.
    for row in members[np.argsort(ids[members], kind="stable")].tolist():
        rows.setdefault(values[row], []).append(row)
    return rows


def _between(kind: Kind, rows: dict[str, _RowsByValue], one: str, other: str) -> Finding:
    shared = rows[one].keys() & rows[other].keys()
    return Finding(
        kind=kind,
        splits=(one, other),
        values=len(shared),
        earlier=_positions(row for value in shared for row in rows[one][value]),
        later=_positions(row for value in shared for row in rows[other][value]),
        of_later=sum(map(len, rows[other].values())),
    )


def _inside(kind: Kind, rows: dict[str, _RowsByValue], split: str) -> Finding:
    repeated = [each for each in rows[split].values() if len(each) > 1]
    return Finding(
        kind=kind,
        splits=(split, split),
        values=len(repeated),
        earlier=_positions(row for each in repeated for row in each[1:]),
        later=_positions(each[0] for each in repeated),
        of_later=sum(map(len, rows[split].values())),
    )


def _positions(rows: Iterator[int]) -> NDArray[np.int64]:
    return np.array(sorted(rows), dtype=np.int64)


def without_leaks(splits: SplitNames, findings: Sequence[Finding]) -> SplitNames:
    """The splits without the earlier copies of ids and contents: train gives way to val and test, val to test.

    Copies inside train or val go too; inside test nothing does, so that published test sets stay whole. Groups that cross
    are not dropped (in AgeDB-DIR that would be nearly all of training): ask for grouped splits instead.
    """
    cleaned = splits.astype(f"<U{max(len(LEFT_OUT), splits.dtype.itemsize // 4)}")
    for finding in findings:
        if finding.kind != "group" and finding.splits[0] != SPLITS[-1]:
            cleaned[finding.earlier] = LEFT_OUT
    return cleaned
