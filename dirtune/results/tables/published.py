"""Published numbers of papers, shown with ours: 647 facts in `data/published_results.csv` and `data/published_newest.csv`.

A published number is matched by data set, kind of split, metric, region and method. Methods are matched by the literal
map `METHODS` from the names of arms (which are those of the shipped studies and of the presets), or by a name that is
given for an arm; never by similarity of names. Published numbers enter no statistic of ours: other recipes, other seeds
(mostly one), and the best epoch often chosen on the test set.

Sources: Zhao et al., "ACCon", AAAI 2025, Tables 1 and 2; Yang et al., ICML 2021, and Ren et al., CVPR 2022, as their
repositories report their reproductions. The balanced MSE rows on IMDB-WIKI are balanced errors by that repository's
code, although its table has the heading MAE.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dirtune.errors import Fault, InputError

FOLDER = Path(__file__).parent / "data"
FILES = (FOLDER / "published_results.csv", FOLDER / "published_newest.csv")
SPLIT_KINDS = ("dir", "natural", "ranksim-repository", "vir-repository", "uci-dir", "ol-dir")
"""Kinds of splits, of which a table has one. dir: balanced validation and test splits of the DIR benchmark; natural: splits with the
distribution of the training labels; ranksim-repository: files for STS-B of RankSim and SRL, which share 170 of 1,000 test pairs with
the benchmark's; vir-repository: AgeDB as VIR splits it; uci-dir, ol-dir: UCI tables and operator learning, without published splits."""

METHODS: dict[str, tuple[str, ...]] = {
    "vanilla": ("Vanilla",),
    "lds": ("Vanilla+LDS",),
    "inverse_lds": ("INV+LDS",),
    "inverse_fds": ("INV+FDS",),
    "inverse_lds_fds": ("INV+LDS+FDS",),
    "sqrt_inverse": ("SqrtINV",),
    "sqrt_inverse_lds": ("SqrtINV+LDS",),
    "sqrt_inverse_fds": ("SqrtINV+FDS",),
    "sqrt_inverse_lds_fds": ("SqrtINV+LDS+FDS",),
    "focal_r": ("Focal-R",),
    "focal_r_lds": ("Focal-R+LDS",),
    "bmc": ("BMC",),
    "gai": ("GAI",),
    "bni": ("BNI",),
    "supcon": ("Vanilla+NaiveSupCon", "NaiveSupCon"),
    "adasupcon": ("Vanilla+AdaSupCon", "AdaSupCon"),
    "ranksim": ("Vanilla+RankSim", "RankSim"),
    "rnc": ("RnC",),
    "conr": ("Vanilla+ConR", "ConR"),
    "ordinal_entropy": ("Ordinal Entropy",),
    "srl": ("SRL",),
    "supremix": ("SupReMix",),
    "group_dir": ("Group-DIR",),
    "evidential": ("DER",),
    "bsam": ("BSAM (ResNet-18 RnC recipe)",),
    "accon": ("Vanilla+ACCon", "ACCon"),
    "accon_conr": ("Vanilla+ACCon+ConR",),
    "sqrt_inverse_lds_supcon": ("SqrtINV+LDS+NaiveSupCon",),
    "sqrt_inverse_lds_adasupcon": ("SqrtINV+LDS+AdaSupCon",),
    "sqrt_inverse_lds_ranksim": ("SqrtINV+LDS+RankSim",),
    "sqrt_inverse_lds_conr": ("SqrtINV+LDS+ConR",),
    "sqrt_inverse_lds_accon": ("SqrtINV+LDS+ACCon",),
    "sqrt_inverse_lds_accon_conr": ("SqrtINV+LDS+ACCon+ConR",),
    "focal_r_lds_supcon": ("Focal-R+LDS+NaiveSupCon",),
    "focal_r_lds_adasupcon": ("Focal-R+LDS+AdaSupCon",),
    "focal_r_lds_ranksim": ("Focal-R+LDS+RankSim",),
    "focal_r_lds_conr": ("Focal-R+LDS+ConR",),
    "focal_r_lds_accon": ("Focal-R+LDS+ACCon",),
    "focal_r_lds_accon_conr": ("Focal-R+LDS+ACCon+ConR",),
}
"""Published names by arm. `BMSE` of ACCon's Table 1 and `Balanced MSE` belong to no arm: their papers do not name them as bmc, gai or
bni, and `LDS+FDS` names no weighting. BSAM's rows are from a reading note and a ResNet-18 recipe."""


class PublishedNumber(NamedTuple):
    """One line of a file."""

    source: str
    table: str
    dataset: str
    split: str
    """One of `SPLIT_KINDS`."""
    method: str
    metric: str
    region: str
    value: float

    @property
    def origin(self) -> str:
        """Source and table."""
        return f"{self.source}, {self.table}"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """Numbers of one source for one method, matched to an arm."""

    arm: str
    method: str
    origin: str
    dataset: str
    metric: str
    values: Mapping[str, float]
    """By region; only those that are published."""


def find_published(
    arms: Sequence[str], *, dataset: str, split_kind: str, metric: str, names: Mapping[str, str] | None = None
) -> list[PublishedRow]:
    """Return the published numbers of the methods that the arms are, in the order of the arms.

    Args:
        arms: names of arms.
        dataset: agedb, imdb_wiki, sts_b, nyud2, uci_* or ol_*; others have no published numbers.
        split_kind: one of `SPLIT_KINDS`.
        metric: as in the results tables.
        names: the published method of an arm, where it is not the one of `METHODS`.

    Raises:
        InputError: a published method or kind of split is unknown.
    """
    if split_kind not in SPLIT_KINDS:
        rule = "unknown published split"
        raise InputError(Fault(where="published", rule=rule, got=split_kind, known=SPLIT_KINDS))
    given = names or {}
    known = list(dict.fromkeys(number.method for number in read_published()))
    faults = [
        Fault(where="published", key=arm, rule="unknown published method", got=method, known=known)
        for arm, method in given.items()
        if method not in known
    ]
    if faults:
        raise InputError(faults)
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    fitting = [
        number
        for number in read_published()
        if (number.dataset, number.split, number.metric) == (dataset, split_kind, metric)
    ]
    for arm in arms:
        methods = (given[arm],) if arm in given else METHODS.get(arm, ())
        for number in fitting:
            if number.method in methods:
                key = (arm, number.method, number.origin)
                rows.setdefault(key, {})[number.region] = number.value
    return [
        PublishedRow(arm=arm, method=method, origin=origin, dataset=dataset, metric=metric, values=values)
        for (arm, method, origin), values in rows.items()
    ]


# The files belong to the package and do not change while it is in use.
@cache
def read_published() -> tuple[PublishedNumber, ...]:
    """Return all published numbers, in the order of the files."""
    rows = list[list[str]]()
    for path in FILES:
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.reader(file))[1:]
    return tuple(PublishedNumber._make([*texts, float(value)]) for *texts, value in rows)
