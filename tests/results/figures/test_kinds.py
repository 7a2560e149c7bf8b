"""Every kind of figure, through the command line as PNG, of incomplete studies, of many arms as SVG, and of empty ones."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from dirtune import cli
from dirtune.errors import InputError
from dirtune.results.figures import FIGURES, plot
from dirtune.results.records.store import read_table
from tests.results.figures import stores
from tests.results.figures.stores import (
    KEYS,
    VALUES,
    write_compared_arms,
    write_composed_arms,
    write_fractions,
    write_many_arms,
    write_predictions,
    write_ranked_arms,
    write_representations,
    write_search,
)
from tests.results.record_factory import record, write_study

STORES = {
    "error_by_label": write_predictions,
    "reliability": write_predictions,
    "data_efficiency": write_fractions,
    "parallel": write_search,
    "importance": write_search,
    "history": write_search,
    "curve": write_fractions,
    "tsne": write_representations,
    "similarity": write_representations,
    "anchors": write_representations,
    "ablation_path": write_composed_arms,
    "critical_difference": write_ranked_arms,
    "interactions": write_composed_arms,
}
OPTIONS: dict[str, dict[str, Any]] = {"curve": {"x": "data.fraction"}}
DRAWN_EMPTY = {"regions"}
NO_FONT = (
    "no font of this machine has \uf123, which the figure shows as boxes: install one, such as Noto Sans CJK, or write an .svg "
    "file"
)
STARTS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


def write_store(kind: str, root: Path) -> Path:
    return STORES.get(kind, write_compared_arms)(root)


@pytest.mark.parametrize("kind", FIGURES)
def test_every_kind_is_drawn_also_of_an_incomplete_study(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = OPTIONS.get(kind, {})
    root = write_store(kind, tmp_path / "results")
    words = [part for name, value in options.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["dirtune", "plot", "study", kind, "--results", str(root), *words])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    assert printed.out == f"figure: figures/study-{kind}.png\n"
    check_file(tmp_path / f"figures/study-{kind}.png", above=10_000)

    (data,) = set(read_table(root, "trials", columns=["data_fingerprint"])["data_fingerprint"].to_pylist())
    broken = record("conr", 9, status="failed", trial_id="broken", fingerprint=data)
    write_study(root, [broken, record("new", 0, fingerprint=data)])
    check_file(plot(root, "study", kind, output=tmp_path / "x.svg", **options))


def check_file(file: Path, *, above: int = 3000) -> None:
    content = file.read_bytes()
    assert len(content) > above
    assert content.startswith(STARTS[file.suffix])


@pytest.mark.parametrize("kind", FIGURES)
def test_an_empty_study_is_drawn_empty_or_is_one_error(kind: str, tmp_path: Path) -> None:
    write_study(tmp_path, [], **(KEYS | {"spaces": {"conr": {}}}))

    if kind in DRAWN_EMPTY:
        assert plot(tmp_path, "study", kind, output=tmp_path / "x.png").exists()
        return
    with pytest.raises(InputError) as caught:
        plot(tmp_path, "study", kind, output=tmp_path / "x.png", **OPTIONS.get(kind, {}))
    assert len(caught.value.faults) == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(FIGURES) - set(STORES)))
def test_thirty_six_arms_are_drawn(kind: str, tmp_path: Path) -> None:
    root = write_many_arms(tmp_path, 36)

    check_file(plot(root, "study", kind, output=root / "x.svg"), above=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e308, -1e308, 1e-320, math.inf])
def test_numbers_at_the_ends_of_the_range_are_drawn_or_refused(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stores, "VALUES", {arm: dict.fromkeys(range(3), 5.0) for arm in VALUES} | {"conr": {0: value, 1: 5.5}}
    )
    for kind in ("regions", "heatmap", "forest", "pareto", "training_curves", "history"):
        root = write_compared_arms(tmp_path / kind)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="the figure .* has infinite values", category=UserWarning)
            if abs(value) < 1e308 or value == math.inf:
                check_file(plot(root, "study", kind, output=tmp_path / "x.svg"), above=1000)
                continue
            with pytest.raises(InputError, match=rf"^figure {kind}: can be drawn with numbers up to 1e\+300, got '\d"):
                plot(root, "study", kind, output=tmp_path / "x.svg")


@pytest.mark.slow
def test_letters_are_drawn_with_a_font_that_has_them_or_are_one_warning(tmp_path: Path) -> None:
    # In STIX, which matplotlib has, and not in its default font; in no font
    for letter, file, expected in (("\u2332", "x.pdf", []), ("\uf123", "x.png", [NO_FONT]), ("\uf123", "x.svg", [])):
        study = f"study {letter}"
        write_study(tmp_path, [record(letter, seed) for seed in range(2)], name=study)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            plot(tmp_path, study, "regions", output=tmp_path / file)
        assert [str(each.message) for each in found] == expected
    assert b"STIX" in (tmp_path / "x.pdf").read_bytes()
    assert "study \uf123" in (tmp_path / "x.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_drawing_needs_no_pyplot_torch_or_ray(tmp_path: Path) -> None:
    # One interpreter draws them all, importance last, which alone may import optuna.
    kinds = ["curve", "parallel", "heatmap", "importance"]
    roots = {kind: str(write_store(kind, tmp_path / kind)) for kind in kinds}
    script = (
        "import sys\nfrom pathlib import Path\nfrom dirtune.results.figures import plot\n"
        "def loaded():\n    return sorted({'matplotlib.pyplot', 'torch', 'ray', 'optuna'} & set(sys.modules))\n"
        f"print(loaded())\nfor kind, root in {roots!r}.items():\n"
        f"    options = {OPTIONS!r}.get(kind, {{}})\n"
        "    plot(root, 'study', kind, **options, output=Path(root) / 'x.png')\n    print(loaded())\n"
        "from dirtune.results.statistics.importance import compute_importance\n"
        "space = {'a': {'distribution': 'uniform', 'low': 0.0, 'high': 1.0}}\n"
        "for method in ('ped_anova', 'fanova'):\n"
        "    compute_importance([{'a': i / 9} for i in range(9)], list(range(9)), space, method=method)\n"
        "print(loaded())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"] * 4 + ["['optuna']"] * 2
    assert done.stderr == ""
