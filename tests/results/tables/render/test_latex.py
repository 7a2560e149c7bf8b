from __future__ import annotations

import re

import pytest

from dirtune.results.tables.render.grids import Column, Grid, Row, Shown
from dirtune.results.tables.render.latex import escape, format_line, format_rows, make_table

NASTY = r"a_b & 50% of $x$ #1 {y} \z ~ ^ < > | [k] "
GRID = Grid(
    title=NASTY,
    keys=("arm",),
    columns=(Column("MAE [years²]", "all"), Column("MAE [years²]", "few"), Column("", "seeds")),
    rows=(
        Row(("[x]_ω",), (Shown("5.20 ± 0.20", bold=True), Shown("-0.98 [-1.17, -0.79]*"), Shown("3/3"))),
        Row((NASTY,), (Shown(), Shown("7.00 (n=1)"), Shown("3/3"))),
    ),
)


def unescaped(text: str) -> str:
    """The text without what is allowed to hold special characters: escapes and complete commands."""
    return re.sub(r"\\(?:[&%$#_{}\\]|[a-zA-Z]+)", "", text)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("sqrt_inverse_lds", r"sqrt\_inverse\_lds"),
        ("5.20 ± 0.20", r"5.20 $\pm$ 0.20"),
        ("-0.98 [-1.17, +0.79]", "$-$0.98 {[}$-$1.17, +0.79{]}"),
        ("best-val 1e-4", "best-val 1e-4"),
        ("R²", "R$^2$"),
        ("ω λ", r"$\omega$ $\lambda$"),
        ("β₀ m³ CO₂", "$\\beta$$_0$ m$^3$ CO$_2$"),
        ("0\u20139 ≤ 3 → 4 \u22125", r"0{--}9 $\leq$ 3 $\to$ 4 $-$5"),
        ("a--b", "a-{}-b"),
        ("a---b", "a-{}-{}-b"),
        # Behind the end of a line, a star would belong to it.
        ("*a* 5*", "{*}a* 5*"),
        (" *", " {*}"),
        ("x™", "x(U+2122)"),
        ('"q"', "''q''"),
        ("é ⊕ \t", "é (U+2295)  "),
        ("\\", r"\textbackslash{}"),
    ],
)
def test_texts_are_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_no_special_character_survives_outside_of_a_command() -> None:
    rest = unescaped(escape(NASTY))

    assert not set(rest) & set("&%#_~")
    assert rest.count("$") % 2 == 0
    assert rest.count("{") == rest.count("}")


def test_every_line_has_one_cell_per_column() -> None:
    text = make_table(GRID, [NASTY])
    (spec,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    lines = [one for one in text.split("\n") if one.endswith(r"\\")]

    assert spec == "lrrr"
    assert len(lines) == 2 + len(GRID.rows)
    for one in lines:
        spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d)\}", one)]
        cells = len(re.findall(r"(?<!\\)&", one)) + 1
        assert cells + sum(span - 1 for span in spans) == len(spec)


def test_braces_and_environments_are_balanced() -> None:
    text = make_table(GRID, [NASTY, "a note"])
    depth, lowest = 0, 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        lowest = min(lowest, depth)
    open_: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name

    assert (depth, lowest, open_) == (0, 0, [])
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0


def test_no_line_begins_with_what_the_rule_before_it_would_take_for_an_option() -> None:
    assert not [one for one in make_table(GRID).split("\n") if one.lstrip().startswith("[")]
    assert format_rows(GRID)[0][0] == r"{[}x{]}\_$\omega$"


def test_the_rules_are_those_of_booktabs_and_groups_have_their_own() -> None:
    lines = make_table(GRID).split("\n")

    order = [one for one in lines if re.match(r"\\(top|mid|bottom|cmid)rule", one)]
    assert order == [r"\toprule", r"\cmidrule(lr){2-3}", r"\midrule", r"\bottomrule"]
    assert r" & \multicolumn{2}{c}{MAE {[}years$^2${]}} & \multicolumn{1}{c}{} \\" in lines
    assert "hline" not in make_table(GRID)


def test_bold_is_around_the_whole_cell() -> None:
    assert format_line(format_rows(GRID)[0]).split(" & ")[1] == r"\textbf{5.20 $\pm$ 0.20}"
