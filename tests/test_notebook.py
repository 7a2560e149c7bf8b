"""Run with `pytest tests/test_notebook.py`: the notebook of the documentation, as a reader runs it, with shorter trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs/notebook.ipynb"


# It starts a Ray of its own.
@pytest.mark.ray
def test_the_notebook_goes_from_a_data_frame_to_a_table_and_a_figure(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not [output for cell in notebook.cells for output in cell.get("outputs", ())], "outputs are not kept in git"
    (study,) = [cell for cell in notebook.cells if '"epochs": 20' in cell.source]
    study.source = study.source.replace('"epochs": 20', '"epochs": 2')
    NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [find_result(cell) for cell in notebook.cells if cell.cell_type == "code"]
    ingested, swept, table, figure, frame = shown
    assert "336 train" in ingested["text/plain"]
    assert "run={'complete': 9}" in swept["text/plain"]
    assert table["text/html"].startswith("<table")
    assert "median (floor)" in table["text/plain"]
    assert figure["image/png"]
    assert "vanilla" in frame["text/html"]
    assert (tmp_path / "figures/patients-regions.png").is_file()


def find_result(cell: Any) -> dict[str, str]:
    """Return what a code cell shows as its value, by type."""
    (data,) = [output.data for output in cell.outputs if output.output_type == "execute_result"]
    return dict(data)
