"""Leaks between splits: equal ids, equal contents, and groups that are in two splits.

A leak makes errors too small: a test sample that was trained on, or a test image of a person of the training split. The
published lists have leaks (STS-B-DIR: 15 pairs are in train and test; AgeDB-DIR: every test image shows a person of
training) and are kept as they are, but reported: each leak is a sentence in the manifest's notes, and holds its rows, so
that copies can be removed.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, cast

import numpy as np

from dirtune.data.splits.rows import LEFT_OUT, TEST, Ids, SplitNames, count_repeated
from dirtune.manifest import SPLITS
from dirtune.wording import format_count

Kind = Literal["id", "content", "group"]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Values of one kind that occur in two splits, or twice in one."""

    kind: Kind
    splits: tuple[str, str]
    """The earlier and the later of train, val, test; or one of them, twice."""
    values: int
    """Number of distinct ids, contents or groups."""
    earlier: np.typing.NDArray[np.int64]
    """Removable rows of the earlier split; inside one split, all but the first of each value."""
    later: np.typing.NDArray[np.int64]
    """Rows of the later split that have a counterpart; inside one split, the first of each value."""
    of_later: int
    """Number of all rows of the later split."""

    def format(self) -> str:
        """Return the sentence for the manifest's notes."""
        one, other = self.splits
        values = format_count(self.values, self.kind)
        if one == other:
            verb = "repeats" if len(self.earlier) == 1 else "repeat"
            return f"{values} more than once in {one}: {format_count(len(self.earlier), 'row')} {verb} another"
        return (
            f"{values} in both {one} and {other}: {len(self.later):,} of {self.of_later:,} {other} rows, "
            f"{len(self.earlier):,} {one} rows"
        )


def find_leaks(
    splits: SplitNames,
    *,
    ids: Ids,
    contents: Sequence[Hashable] | np.typing.NDArray[Any] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[Leak]:
    """Return ids and contents that occur in two splits or twice in one, and groups that are in two splits.

    Rows that are left out do not count. Order: ids, contents, groups; train-val, train-test, val-test, then inside each
    split.

    Args:
        splits: shape `(rows,)`.
        ids: shape `(rows,)`.
        contents: sample identity, such as a digest of the image, or both sentences and the score; one entry per row.
        groups: such as the person in the image; one entry per row.
    """
    columns: dict[Kind, Sequence[Hashable] | np.typing.NDArray[Any] | None] = {
        "id": ids,
        "content": contents,
        "group": groups,
    }
    found = []
    members = np.flatnonzero(splits != LEFT_OUT)
    for kind, values in columns.items():
        if values is None:
            continue
        # Of millions of rows, a few have a value that occurs again.
        repeated = _find_repeated(values, members)
        rows = {split: _group_rows(values, repeated[splits[repeated] == split], ids) for split in SPLITS}
        # A group may repeat inside a split.
        inside = [] if kind == "group" else [(split, split) for split in SPLITS]
        for one, other in [*combinations(SPLITS, 2), *inside]:
            if one == other:
                repeats = [each for each in rows[one].values() if len(each) > 1]
                earlier = [row for each in repeats for row in each[1:]]
                later, number = [each[0] for each in repeats], len(repeats)
            else:
                shared = rows[one].keys() & rows[other].keys()
                earlier, later = ([row for value in shared for row in rows[split][value]] for split in (one, other))
                number = len(shared)
            # The values are a set; sorted rows make the result deterministic.
            if number:
                leak = Leak(
                    kind=kind,
                    splits=(one, other),
                    values=number,
                    earlier=np.array(sorted(earlier), dtype=np.int64),
                    later=np.array(sorted(later), dtype=np.int64),
                    of_later=int(np.count_nonzero(splits == other)),
                )
                found.append(leak)
    return found


def _find_repeated(
    values: Sequence[Hashable] | np.typing.NDArray[Any], members: np.typing.NDArray[np.int64]
) -> np.typing.NDArray[np.int64]:
    """Return the members whose value occurs more than once among them."""
    if isinstance(values, np.ndarray):
        # Ids are unique in nearly all data sets, and a sort of texts takes several copies of them.
        if values.dtype.kind in "OU" and not count_repeated(values[members]):
            return members[:0]
        _, inverse, times = np.unique(values[members], return_inverse=True, return_counts=True)
        return members[times[inverse] > 1]
    counts = Counter(values[row] for row in members.tolist())
    return members[[counts[values[row]] > 1 for row in members.tolist()]]


def _group_rows(
    values: Sequence[Hashable] | np.typing.NDArray[Any], members: np.typing.NDArray[np.int64], ids: Ids
) -> dict[Hashable, list[int]]:
    rows: dict[Hashable, list[int]] = {}
    # Sorted, so that the first of several copies depends on the ids alone.
    for row in members[np.argsort(ids[members], kind="stable")].tolist():
        rows.setdefault(cast(Hashable, values[row]), []).append(row)
    return rows


def remove_leaks(splits: SplitNames, leaks: Sequence[Leak]) -> SplitNames:
    """Return the splits without the earlier copies of ids and contents: train yields to val and test, val to test.

    Copies inside train or val are removed too; inside test none is, so that published test sets stay complete. Groups that
    are in two splits are kept (in AgeDB-DIR their removal would leave almost no training rows): use grouped splits instead.
    """
    # The names of the raw files may be too short a string type to hold "left_out".
    cleaned = splits.astype(f"<U{max(len(LEFT_OUT), splits.dtype.itemsize // 4)}")
    for leak in leaks:
        if leak.kind != "group" and leak.splits[0] != TEST:
            cleaned[leak.earlier] = LEFT_OUT
    return cleaned
