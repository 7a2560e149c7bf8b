"""Results of sweeps: the tables on disk, and everything that is computed from them without torch or Ray.

`open` returns the tables as pandas frames or Arrow tables, and runs SQL queries. Nothing heavy is imported before a table
is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Results:
    """Tables under a results root, read again at each access, so that a running sweep can be watched."""

    root: str

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial; the configuration's leaves are the `config.*` columns."""
        return self._read_frame("trials")

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per trial, split, selection, region and metric."""
        return self._read_frame("metrics")

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per trial, epoch and name."""
        return self._read_frame("epochs")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per trial and sample of the validation and test splits."""
        return self._read_frame("predictions")

    @property
    def representations(self) -> pd.DataFrame:
        """One row per trial and kept test sample, with z as `vector`; empty unless the study asks for it."""
        return self._read_frame("representations")

    def arrow(self, table: str) -> pa.Table:
        """Return one of the tables by its name, as an Arrow table.

        Raises:
            InputError: there is no such table, or a file is damaged.
        """
        from dirtune.results.records.store import read_table

        return read_table(self.root, table)

    def query(self, sql: str) -> pd.DataFrame:
        """Run an SQL query over the tables and the views `results`, `arms` and `curves`.

        Raises:
            InputError: as `dirtune.query`, which also takes limits.
        """
        from dirtune.results.query.query import query

        frame: pd.DataFrame = query(sql, self.root).to_pandas()
        return frame

    def _read_frame(self, table: str) -> pd.DataFrame:
        frame: pd.DataFrame = self.arrow(table).to_pandas()
        return frame


def open(root: str | Path) -> Results:
    """Open the results under a root (path or URL): one folder per study.

    Raises:
        InputError: there is no study.
    """
    from dirtune.results.records.studies import open_studies

    open_studies(root)
    return Results(str(root))
