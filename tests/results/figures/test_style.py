from __future__ import annotations

import io
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from dirtune.results.figures._style import (
    BAD,
    COLORS,
    COLUMN,
    DIVERGING,
    GOOD,
    REFERENCE_COLOR,
    STYLE,
    assign_colors,
    choose_text_color,
    finish_figure,
    make_figure,
    mix_with_white,
    show_names_literally,
)

SVG = "http://www.w3.org/2000/svg"


def test_the_reference_is_gray_and_takes_no_color_from_the_others() -> None:
    colors = assign_colors(["a", "ref", "b"], "ref")

    assert colors == {"a": COLORS[0], "ref": REFERENCE_COLOR, "b": COLORS[1]}


def test_mixing_with_white_is_half_way() -> None:
    assert mix_with_white("#000000") == (0.5, 0.5, 0.5)
    assert mix_with_white("#FFFFFF") == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("color", "expected"), [((1, 1, 1), "black"), ((0, 0.45, 0.7, 1), "white")])
def test_text_is_readable_on_its_background(color: tuple[float, ...], expected: str) -> None:
    assert choose_text_color(color) == expected


def test_the_diverging_colors_are_white_at_zero_and_differ_for_color_blind_readers() -> None:
    assert DIVERGING(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.01)
    # Vienot, Brettel and Mollon 1999, in linear RGB
    deuteranope = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    ends = [deuteranope @ np.array(DIVERGING(end)[:3]) ** 2.2 for end in (0.0, 1.0)]
    assert np.abs(ends[0] - ends[1]).max() > 0.2
    assert GOOD != BAD


def test_a_figure_grows_by_its_legend_and_caption() -> None:
    figure = make_figure(COLUMN, 2.0)
    axes = figure.add_subplot()
    for name in ("one", "two", "a much longer name of an arm"):
        axes.plot([0, 1], label=name)

    finish_figure(figure, "word " * 40, axes)

    lines = figure.get_supxlabel().split("\n")
    assert len(lines) == 3
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3
    assert figure.get_figheight() == pytest.approx(2.0 + 0.165 * 3 + 0.1 * 3)


def test_names_begin_no_formula_and_have_no_control_characters() -> None:
    names = [r"$\undefined$ a$", "\x1b]0;title\x07", r"50\$", "$x^2$"]
    figure = make_figure(COLUMN, 2.0)
    axes = figure.add_subplot()
    for name in names:
        axes.plot([1, 1000], label=name)
    axes.set_title(names[0])
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    finish_figure(figure, names[1], axes)
    svg = io.StringIO()
    with mpl.rc_context(STYLE):
        show_names_literally(figure)
        figure.savefig(svg, format="svg")

    # Raises for a control character
    shown = ["".join(each.itertext()) for each in ElementTree.fromstring(svg.getvalue()).iter(f"{{{SVG}}}text")]

    expected = [r"$\undefined$ a$", r"\x1b]0;title\x07", r"50\$", "$x^2$"]
    assert [shown.count(name) for name in expected] == [3, 3, 2, 2]


def test_names_with_an_underscore_have_an_entry_and_long_ones_lose_their_middle() -> None:
    names = ["_hidden", "__init__", "plain", "w" * 200]
    with mpl.rc_context(STYLE):
        figure = make_figure(7.0, 1.0)
        axes = figure.add_subplot()
        for place, name in enumerate(names[:2]):
            axes.plot([0, 1], [place, place], label=name)
            axes.plot([0, 1], [place, place])
        axes.bar([0, 1], [1, 2], label=names[2])
        axes.scatter([0, 1], [1, 2], label=names[3])
        axes.set_yticks([0, 1], names[2:])
        finish_figure(figure, "caption", axes)
        show_names_literally(figure)
        (legend,) = figure.legends
        shown = f"{'w' * 27} ... {'w' * 27}"
        assert [text.get_text() for text in legend.get_texts()] == ["_hidden", "__init__", shown, "plain"]
        figure.draw_without_rendering()
        assert [label.get_text() for label in axes.get_yticklabels()] == ["plain", shown]
