"""What figures of parts begin with: the study's table, and the resolved configuration of each of its arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dirtune.results.figures._request import PlotRequest
from dirtune.results.records.schema import REGIONS
from dirtune.results.records.studies import open_study, read_study
from dirtune.results.tables.table import ArmTable, check_known

# By seed
Values = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Composed:
    """The arms that can be taken apart."""

    table: ArmTable
    reference: str
    configs: Mapping[str, Mapping[str, Any]]
    """By arm, in the order of the study."""


def composed(request: PlotRequest) -> Composed:
    """The arms whose configuration is known, the reference among them.

    Raises:
        InputError: the region is unknown, the study names no reference or does not say its configuration, and as `arm_table`.
    """
    check_known("region", request.region, REGIONS)
    configs = read_study(open_study(request.root, request.study)).configs
    table = request.table()
    if table.reference is None:
        raise request.nothing("names no reference; give one")
    known = {arm: configs[arm] for arm in table.arms if arm in configs}
    if table.reference not in known:
        raise request.nothing(f"does not say the configuration of {table.reference}, its reference")
    return Composed(table=table, reference=table.reference, configs=known)


def values_of(table: ArmTable, region: str) -> dict[str, Values]:
    """What a table says of a region, by arm."""
    return {row.arm: row.cells[region].values for row in table.rows}
