from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dirtune.errors import InputError
from dirtune.results.tables.check import check, read_request
from dirtune.results.tables.comparison import Comparison, TableRequest, compare, from_table
from dirtune.results.tables.render.footer import make_footer
from dirtune.results.tables.render.formats import STYLES, as_rich, render
from dirtune.results.tables.table import make_arm_table
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import record, write_study

VANILLA, CONR = (5.0, 5.2, 5.4), (4.0, 4.3, 4.35)


@pytest.fixture
def table(tmp_path: Path) -> Comparison:
    """A fixed reference and a searched arm, which failed with one seed and was pruned once."""
    records = [record("vanilla", seed, value) for seed, value in enumerate(VANILLA)]
    records += [record("conr", seed, value) for seed, value in enumerate(CONR)]
    records += [record("[x]", 0, status="failed", error="not finite")]
    write_study(
        tmp_path,
        records,
        question="?",
        reference="vanilla",
        arms=["vanilla", "conr", "[x]"],
        seeds=[0, 1, 2],
        data={"name": "digits", "unit": "degrees"},
    )
    return compare(tmp_path, TableRequest(studies=("study",)))


def test_the_terminal_shows_everything_and_takes_no_name_for_markup(table: Comparison) -> None:
    text = render(table, "table")

    assert "5.20 ± 0.20" in text
    assert "[x]" in text
    assert all(line in text for line in make_footer(table))


@pytest.fixture
def judged(tmp_path: Path) -> Comparison:
    write_predicted_study(tmp_path / "judged", claim={"region": "all", "margin": "5%"})
    return compare(tmp_path / "judged", TableRequest(studies=("study",)))


def test_what_is_bold_elsewhere_has_a_star_in_plain_text(judged: Comparison) -> None:
    cell = judged.parts[0].rows[1].cells["all"]
    mean, sd = f"{cell.mean:.3f}", f"{cell.sd:.3f}"
    for metric_text, style in (
        (f"{mean} ± {sd}*", "table"),
        (f"**{mean} ± {sd}**", "markdown"),
        (rf"\textbf{{{mean} $\pm$ {sd}}}", "latex"),
        (f"<strong>{mean} ± {sd}</strong>", "html"),
    ):
        text = render(judged, style)
        assert metric_text in text
        # The one arm that helps, in the claim's column
        assert text.count({"table": "*  ", "markdown": "**" + mean, "latex": "textbf", "html": "<strong>"}[style]) == 1


def test_a_table_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    write_predicted_study(tmp_path)
    lines = render(compare(tmp_path, TableRequest(studies=("study",))), "table").split("\n")

    # The sentences of the footer are folded by a terminal.
    footer = next(at for at, line in enumerate(lines) if line.startswith("Split:"))
    assert max(map(len, lines[:footer])) <= 80


def test_a_narrow_console_folds_and_does_not_fail(table: Comparison) -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(as_rich(table))

    assert "vanilla" in console.file.getvalue()


def test_markdown_has_three_tables_and_a_list(table: Comparison) -> None:
    lines = render(table, "markdown").split("\n")

    assert any(line.startswith("| vanilla | 5.20 ± 0.20 | 4.20 ± 0.20 | 6.20 ± 0.20 | 7.20 ± 0.20 |") for line in lines)
    assert sum(line.startswith("| arm |") for line in lines) == 3
    assert [line for line in lines if line.startswith("* ")] == [f"* {line}" for line in make_footer(table)]


def test_markdown_shows_names_as_they_are_and_is_checked(tmp_path: Path) -> None:
    names = {
        "a_b": "a_b",
        "_a_": r"\_a\_",
        "*a*": r"\*a\*",
        "<b>": r"\<b>",
        "`a`": r"\`a\`",
        "$x_1$": r"\$x_1\$",
        "a|b": r"a\|b",
    }
    records = [
        record(arm, seed, 5.0 + seed, trial_id=f"{at}-{seed}") for at, arm in enumerate(names) for seed in range(2)
    ]
    write_study(tmp_path, records, question="?", reference="a_b", arms=list(names), seeds=[0, 1])
    text = render(compare(tmp_path, TableRequest(studies=("study",))), "markdown")
    for name in names.values():
        assert f"| {name} | 5.50 ± 0.71 |" in text
    assert check(tmp_path, text).findings == ()


def test_latex_has_a_table_per_grid_and_the_footer_below_the_last(table: Comparison) -> None:
    text = render(table, "latex")

    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert text.count(r"\footnotesize") == len(make_footer(table))
    assert text.index(r"\footnotesize") > text.rindex(r"\end{tabular}")


@pytest.mark.parametrize("style", ["markdown", "latex"])
def test_a_paper_s_forms_carry_the_request_that_they_answer(tmp_path: Path, style: str) -> None:
    write_study(tmp_path, [record("a-->b", 0)])
    request = TableRequest(
        studies=("study",),
        arms=("a-->b",),
        regions=("few", "all"),
        spread="se",
        published_as={"a-->b": "ConR"},
        published="dir",
    )
    text = render(compare(tmp_path, request), style)

    assert read_request(text) == request
    comment = next(line for line in text.split("\n") if "dirtune table" in line)
    assert comment.count("-->") == (style == "markdown")


def test_a_single_table_is_rendered_as_the_comparison_of_itself(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("b", 0)], reference="a")
    made = make_arm_table(tmp_path, "study")

    for style in STYLES:
        assert render(made, style) == render(from_table(made), style)


def test_the_oracle_is_called_so(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])

    for style in set(STYLES) - {"csv"}:
        assert "ORACLE" in render(make_arm_table(tmp_path, "study", selection="oracle"), style)


def test_every_style_renders_a_table_without_values(tmp_path: Path) -> None:
    write_study(tmp_path, [], arms=["a", "b"], reference="a", seeds=[0])

    for style in STYLES:
        assert "not recorded" in render(make_arm_table(tmp_path, "study"), style)


def test_an_unknown_style_is_refused(table: Comparison) -> None:
    with pytest.raises(InputError, match="'xml'; known: csv, html, json, latex, markdown, table"):
        render(table, "xml")


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "html"])
def test_every_form_for_readers_has_the_words_and_the_mark_of_a_choice(judged: Comparison, style: str) -> None:
    text = render(judged, style)
    later = compare_again(judged, margin="50%")

    assert text.index("change against vanilla") < text.index("helps") < text.index("Words: helps")
    assert "chosen after the study" not in text
    assert "word, chosen after the study" in render(later, style)


def compare_again(table: Comparison, **changes: object) -> Comparison:
    parts = tuple(
        replace(part, claim=replace(part.claim, chosen_after=tuple(f"{k} {v}" for k, v in changes.items())))
        for part in table.parts
    )
    return replace(table, parts=parts)
