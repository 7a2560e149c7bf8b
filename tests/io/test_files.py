"""Run with `pytest tests/io/test_files.py`."""

from __future__ import annotations

from pathlib import Path

from dirtune.io.files import format_file_name

NAMES = ["..", ".", "conr/b", "conr_b", "conr%2Fb", "../../up", "a b", "x" * 300, "x" * 299 + "y", "\u03b2=0.5", "a\nb"]


def test_every_text_has_a_file_name_of_its_own_that_leads_out_of_no_folder(tmp_path: Path) -> None:
    folders = [format_file_name(name) for name in NAMES]
    assert len(set(folders)) == len(NAMES)
    for folder in folders:
        assert (tmp_path / "logs" / folder).resolve().parent == (tmp_path / "logs").resolve()
        (tmp_path / "logs" / folder).mkdir(parents=True)
    assert format_file_name("conr omega=1.0") == "conr omega=1.0"
    assert format_file_name("\u03b2=0.5") == "\u03b2=0.5"
