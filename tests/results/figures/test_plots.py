from __future__ import annotations

import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb

from dirtune.errors import InputError
from dirtune.metrics import REGIONS
from dirtune.results.analysis.curves import read_curve
from dirtune.results.figures import COLORS, REFERENCE_COLOR, PlotRequest, build_regions, draw_curve, draw_regions, plot
from dirtune.results.figures.regions import RegionBars
from dirtune.results.tables.table import make_arm_table
from tests.results.record_factory import OFFSETS, record, write_study


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two arms, three seeds; of the second arm, the setting x varies, and one more trial was pruned."""
    records = [record("vanilla", seed, 5.0 + seed / 10) for seed in range(3)]
    records += [
        record("conr", seed, 4.0 + x * seed / 10, trial_id=f"{x}-{seed}", config={"x": x})
        for x in (1, 2)
        for seed in range(3)
    ]
    records.append(record("conr", 0, trial_id="cut", status="pruned", config={"x": 2}))
    write_study(
        tmp_path,
        records,
        arms=["vanilla", "conr"],
        seeds=[0, 1, 2, 3],
        reference="vanilla",
        data={"name": "digits", "unit": "degrees"},
    )
    return tmp_path


def test_the_bars_are_the_numbers_of_the_table(root: Path) -> None:
    bars = build_regions(PlotRequest(root=root, study="study"))

    assert (bars.arms, bars.regions, bars.reference) == (("vanilla", "conr"), REGIONS, "vanilla")
    for position, region in enumerate(REGIONS):
        values = np.array([5.0, 5.1, 5.2]) + OFFSETS[region]
        assert bars.seeds[0][position] == pytest.approx(values)
        assert bars.means[0][position] == pytest.approx(values.mean())
        # The reference has no difference; the intervals of the other arm are those of the table.
        assert math.isnan(bars.intervals[0][position])
        difference = make_arm_table(root, "study").rows[1].cells[region].difference
        assert bars.intervals[1][position] == pytest.approx((difference.high - difference.low) / 2)
    assert bars.label == "MAE [degrees]"
    assert (
        "Error bars: the difference to vanilla, 95 % intervals one by one, the larger of two t intervals"
        in bars.caption
    )
    assert "2 values are missing" in bars.caption


def test_a_single_seed_has_no_error_bar(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])

    bars = build_regions(PlotRequest(root=tmp_path, study="study"))

    assert all(math.isnan(half) for row in bars.intervals for half in row)
    assert "Without a reference there are no intervals." in bars.caption
    (axes,) = draw_regions(bars).axes
    assert _error_bars(axes) == []


def test_regions_draw_a_bar_per_arm_and_region_and_a_dot_per_seed(root: Path) -> None:
    bars = build_regions(PlotRequest(root=root, study="study"))

    (axes,) = draw_regions(bars).axes

    assert sorted(bar.get_height() for bar in axes.patches) == pytest.approx(
        sorted(mean for row in bars.means for mean in row)
    )
    dots = [part for part in axes.collections if isinstance(part, PathCollection)]
    assert sum(len(part.get_offsets()) for part in dots) == 2 * len(REGIONS) * 3
    assert len(_error_bars(axes)) == len(REGIONS)
    assert axes.get_ylabel() == "MAE [degrees]"
    assert axes.get_ylim()[0] == 0


def test_thousands_of_dots_are_an_image_in_a_vector_file(root: Path) -> None:
    bars = build_regions(PlotRequest(root=root, study="study"))
    many = replace(bars, seeds=tuple(tuple(values * 400 for values in row) for row in bars.seeds))

    def measure(drawn: RegionBars) -> int:
        file = BytesIO()
        draw_regions(drawn).savefig(file, format="svg")
        return len(file.getvalue())

    assert measure(many) < 5 * measure(bars)


def _error_bars(axes: Axes) -> list[np.ndarray]:
    bars = [part for part in axes.collections if isinstance(part, LineCollection)]
    return [line for part in bars for line in part.get_segments() if len(line)]


def test_the_curve_is_drawn_with_its_star_and_its_caption(root: Path) -> None:
    figure = draw_curve(read_curve(root, "study", "x", region="few"))

    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "MAE [degrees], few")
    line, level = axes.lines
    assert list(line.get_xdata()) == [1.0, 2.0]
    assert line.get_ydata() == pytest.approx(np.array([4.1, 4.2]) + OFFSETS["few"])
    assert level.get_ydata()[0] == pytest.approx(5.1 + OFFSETS["few"])
    star = axes.collections[-1].get_offsets()
    assert star[0].tolist() == pytest.approx([1.0, 4.1 + OFFSETS["few"]])
    assert "Left out: 1 pruned." in figure.get_supxlabel().replace("\n", " ")


def test_a_figure_is_written_into_a_new_folder(root: Path) -> None:
    output = root / "new folder" / "curve.svg"

    assert plot(root, "study", "curve", x="x", output=output) == output
    assert output.read_bytes().startswith(b"<?xml")


def test_a_figure_is_written_into_the_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root / "home"))
    monkeypatch.chdir(root)

    plot(root, "study", "regions", output=Path("~/figures/x.svg"))

    assert (root / "home/figures/x.svg").exists()
    assert not (root / "~").exists()


def test_many_arms_and_a_wide_span_are_drawn(tmp_path: Path) -> None:
    records = [
        record(f"a rather long name of arm {arm}", seed, 5.0 + arm, trial_id=f"{arm}-{seed}-{x}", config={"x": x})
        for arm in range(9)
        for seed in range(2)
        for x in (1e-4, 1e-2)
    ]
    write_study(tmp_path, records)

    for kind in ("regions", "curve"):
        x = "x" if kind == "curve" else None
        assert plot(tmp_path, "study", kind, x=x, output=tmp_path / f"{kind}.png").stat().st_size


def test_a_study_without_results_is_drawn_empty(tmp_path: Path) -> None:
    write_study(tmp_path, [], arms=["a", "b"], reference="a", seeds=[0])

    assert plot(tmp_path, "study", "regions", output=tmp_path / "x.png").exists()


def test_drawing_does_not_change_the_global_state_of_matplotlib(root: Path) -> None:
    before = dict(mpl.rcParams)

    plot(root, "study", "regions", output=root / "x.png")

    assert dict(mpl.rcParams) == before


def _seen_without_a_cone(color: str, matrix: np.ndarray) -> np.ndarray:
    linear = np.array([((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in to_rgb(color)])
    return matrix @ linear


@pytest.mark.parametrize(
    "matrix",
    # Vienot, Brettel and Mollon 1999: what protanopes and deuteranopes see, in linear RGB
    [
        [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
        [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
    ],
)
def test_the_colors_are_distinct_for_color_blind_readers(matrix: list[list[float]]) -> None:
    seen = [_seen_without_a_cone(color, np.array(matrix)) for color in (*COLORS, REFERENCE_COLOR)]

    distances = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 0.04


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "bars",
            {},
            "unknown plot, got 'bars'; known: ablation_path, anchors, critical_difference, curve, data_efficiency",
        ),
        ("curve", {}, "curve needs the setting of its x axis"),
        ("curve", {"x": "y"}, "known: x"),
        ("regions", {"output": "x.gif"}, r"unknown type of file, got '.gif'; known: .pdf, .png, .svg"),
        ("regions", {"metric": "mea"}, "unknown metric"),
        ("regions", {"study": "x"}, "unknown study"),
        ("regions", {"selection": "x"}, "unknown rule"),
    ],
)
def test_unknown_names_are_errors_and_no_file_is_written(
    root: Path, kind: str, options: dict[str, str], message: str
) -> None:
    output = root / "figures" / options.pop("output", "x.png")

    with pytest.raises(InputError, match=message):
        plot(root, options.pop("study", "study"), kind, output=output, **options)

    assert not output.parent.exists()
