"""Run with `pytest tests/test_api.py`: the calls of Python users, by the names and in the order that they would guess."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.yamlfile import read_yaml
from dirtune.results.tables.render.formats import render
from dirtune.study.files import find_study, get_study_name, list_shipped_studies
from dirtune.study.resolve import resolve
from dirtune.study.search_settings import Search
from tests.results.record_factory import record, write_study

ARMS = ("vanilla", "conr")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory whose results have a study."""
    records = [record(arm, seed, 5.0 + seed - (arm == "conr")) for arm in ARMS for seed in (0, 1, 2)]
    write_study(tmp_path / "results", records, arms=ARMS, reference="vanilla")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_needs_a_name_only_and_shows_itself(folder: Path) -> None:
    table = dirtune.table("study")
    assert "vanilla" in str(table)
    assert str(table) == repr(table) == render(table.comparison)
    assert table._repr_html_().startswith("<table")
    assert r"\begin{table}" in table.to_latex()
    assert table.to_dict()["tables"][0]["study"] == "study"
    frame = table.to_frame().set_index(["arm", "region"])
    assert frame.loc[("vanilla", "all"), "mean"] == pytest.approx(6.0)
    assert frame.loc[("conr", "few"), "difference"] == pytest.approx(-1.0)
    assert frame.loc[("conr", "few"), "n"] == 3


def test_one_name_and_a_list_of_names_are_the_same(folder: Path) -> None:
    assert str(dirtune.table(["study"], arm="conr", region="few")) == str(
        dirtune.table("study", arm=["conr"], region=["few"])
    )


def test_a_query_is_a_frame(folder: Path) -> None:
    rows = dirtune.query("select arm, count(*) as n from trials group by arm order by arm")
    pd.testing.assert_frame_equal(rows, pd.DataFrame({"arm": ["conr", "vanilla"], "n": [3, 3]}))
    assert dirtune.query("select distinct study from trials", study="study")["study"].tolist() == ["study"]
    with pytest.raises(InputError, match="other"):
        dirtune.query("select 1", study="other")


def test_a_figure_and_a_report_have_default_files(folder: Path) -> None:
    figure = dirtune.plot("study")
    assert str(figure) == "figures/study-regions.png"
    assert figure._repr_png_()[:4] == b"\x89PNG"
    drawn = dirtune.plot("study", "forest", output="forest.svg", arm="conr")
    assert "<svg" in drawn._repr_svg_()
    assert drawn._repr_png_() is None
    assert dirtune.report("study") == Path("reports/study.html")


def test_the_other_calls_take_the_same_arguments(folder: Path) -> None:
    assert dirtune.compact("study")["trials"] == 6
    assert dirtune.status("study").done == 6
    assert isinstance(dirtune.check("study"), list)
    with pytest.raises(InputError, match="give the manifest"):
        dirtune.recompute("study", metric="mae")
    with pytest.raises(InputError, match="study"):
        dirtune.stop("unknown")


def test_a_study_is_given_in_four_ways() -> None:
    path = list_shipped_studies()["quickstart"].path
    plain = read_yaml(path)
    for study in ("quickstart", str(path), path, plain, dirtune.Study(**_as_tuples(plain))):
        assert get_study_name(study) == "quickstart"
        assert find_study(study).read_plain()["arms"].keys() == plain["arms"].keys()


def _as_tuples(plain: dict[str, object]) -> dict[str, object]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


@pytest.mark.parametrize("study", [3, None, ["quickstart"], b"quickstart"])
def test_what_is_no_study_is_said_in_a_sentence(study: object) -> None:
    with pytest.raises(
        InputError, match=r"must be a file, the name of a shipped study, a mapping or a dirtune\.Study, got a"
    ):
        dirtune.sweep(study)


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"name": "x", "base": {"seed": object()}}, "must be plain data"),
        ({"name": "x"}, "question: is missing"),
        ({}, "name: is missing"),
    ],
)
def test_a_mapping_has_the_faults_of_a_file(study: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        dirtune.plan(study)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"seeds": [0]},
        {"seeds": "0", "arms": ["vanilla"], "question": 3},
        {"seeds": [], "kolor": "red", "search": {"sampler": "cmaes", "trials": 0}},
        {"base": {"seed": object()}},
        {"seeds": [True], "space": {"recipe.epochs": {"kind": "int"}}, "resources": {"fuse": 2}},
    ],
)
def test_a_study_in_python_has_the_faults_of_a_file(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        dirtune.Study(**settings)
    with pytest.raises(InputError) as of_file:
        resolve(settings, where="study")
    assert caught.value.faults == of_file.value.faults
    assert len(caught.value.faults) > 1 or "seed" in str(caught.value)


def test_a_study_in_python_takes_lists_and_values() -> None:
    plain = read_yaml(list_shipped_studies()["quickstart"].path)
    study = dirtune.Study(**plain | {"search": Search(trials=3)})
    assert (study.search.trials, study.search.model_fields_set) == (3, {"trials"})
    assert study.seeds == tuple(plain["seeds"])
    assert (
        study == pickle.loads(pickle.dumps(study)) == read(dirtune.Study, plain | {"search": {"trials": 3}}, where="")
    )
    with pytest.raises(TypeError, match="positional"):
        dirtune.Study(plain)


def test_changes_are_part_of_the_study() -> None:
    changed = find_study("quickstart", {"seeds": (7,), "base.recipe.epochs": 2, "arms.conr": None})
    plain = changed.read_plain()
    assert (plain["seeds"], plain["base"]["recipe"]["epochs"], plain["arms"]["conr"]) == ([7], 2, None)
    assert changed.where == find_study("quickstart").where
    before = find_study("quickstart").read_plain()["base"]
    assert plain["base"]["data"] == before["data"]


@pytest.mark.slow
def test_modules_are_there_without_an_import_of_their_own() -> None:
    script = "import dirtune; dirtune.results.open, dirtune.register.term, dirtune.testing.check_term, dirtune.nn.ConR"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
def test_results_are_read_where_nothing_can_be_trained(folder: Path) -> None:
    """Without the packages of the extra `train` the calls on results work, and the others say what to install."""
    script = """
import sys
missing = ("ray", "torch", "torchvision", "optuna", "jaxtyping", "pooch", "nltk", "fsspec")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import dirtune
from dirtune import cli
assert len(dirtune.table("study").to_frame()) == 8
assert len(dirtune.query("select * from trials")) == 6
dirtune.plot("study", output="x.svg"), dirtune.report("study"), dirtune.status("study"), dirtune.__version__
try:
    dirtune.sweep
except ImportError as error:
    print(error)
sys.argv = ["dirtune", "sweep", "quickstart"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    sentence = "this needs the package {}, which training and ingesting use: `pip install 'dirtune[train]'`"
    assert done.stdout.startswith(sentence.partition("{}")[0])
    assert done.returncode == 2
    assert done.stderr.startswith("dirtune: this needs the package ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dirtune.table("study", results=None), "results: must be a text or a path, got None"),
        (lambda: dirtune.table("study", region=[]), "table: needs a region"),
        (lambda: dirtune.table("study", row=[]), "table: needs a row key"),
        (lambda: dirtune.table("study", shots=(50, 10)), "shots: must be a text or None, got a tuple"),
        (lambda: dirtune.table("study", bin_width="2"), "bin_width: must be a number or None, got '2'"),
        (lambda: dirtune.table("study" * 2000), "unknown study"),
        (lambda: dirtune.table("study", results="file.txt"), "file.txt: must be a folder, but is a file"),
        (lambda: dirtune.table("study", results="s3://"), "s3://: must name a bucket"),
        (lambda: dirtune.plot("study", "forest", x=3), "dirtune.plot: x: must be a text or None, got 3"),
        (lambda: dirtune.plot("study", output="file.txt/a.png"), "cannot be written (a part of its path is a file)"),
        (lambda: dirtune.plot("study", output="folder.png"), "folder.png: must be a file, but is a folder"),
        (lambda: dirtune.report("study", output="study.pdf"), "unknown type of file, got '.pdf'"),
        (lambda: dirtune.query("select 1", limit=-1), "query: limit: must not be negative, got -1"),
        (lambda: dirtune.query("select 1", timeout=0), "query: timeout: must be above zero and finite, got 0"),
        (lambda: dirtune.query("select 1", timeout=float("nan")), "query: timeout: must be above zero and finite"),
        (lambda: dirtune.query("select 1", study=[]), "query: needs a study"),
        (lambda: dirtune.query(Path("a.sql")), "sql: must be a text, got a PosixPath"),
        (lambda: dirtune.intervals("study", level="0.9"), "level: must be a number, got '0.9'"),
        (lambda: dirtune.intervals("study", arms="other"), "arms: unknown arm, got 'other'; known: conr, vanilla"),
        (lambda: dirtune.log("study", to=None), "to: must be a text, got None"),
        (lambda: dirtune.recompute("study", metric="mae", trials=3), "dirtune.recompute: trials: must be a list"),
    ],
)
def test_a_wrong_argument_is_one_sentence(folder: Path, call: Callable[[], object], message: str) -> None:
    (folder / "file.txt").write_text("no folder")
    (folder / "folder.png").mkdir()
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_margin_may_be_a_number(folder: Path) -> None:
    assert dirtune.table("study", margin=0.5).to_dict() == dirtune.table("study", margin="0.5").to_dict()


def test_an_option_that_a_figure_does_not_use_is_a_warning(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"^the figure regions does not use x and relative$"):
        dirtune.plot("study", x="few", relative=True)
    dirtune.plot("study", "heatmap", relative=True)
