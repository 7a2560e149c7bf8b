"""Run with `pytest tests/data/test_figure.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Polygon, Rectangle, StepPatch

from dirtune.data.figure import BARS, DENSITY, NO_IMAGES, TINTS, draw_figure, save_figure
from dirtune.data.inspection import Inspection, inspect_manifest
from dirtune.data.region_samples import RegionSamples
from dirtune.errors import InputError
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo

STARTS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
COUNTS = {"train": (1, 101, 30, 25, 0), "test": (1, 2, 3, 4, 0)}


def _make_inspection(label: LabelSpec, counts: dict[str, tuple[int, ...]], kind: str = "vector") -> Inspection:
    splits = {
        split: SplitInfo(files=(f"version-0/{split}/a",), rows=sum(each), bin_counts=each)
        for split, each in counts.items()
    }
    spec = InputSpec(kind=kind, shape=(1, 2, 3))  # type: ignore[arg-type]
    return inspect_manifest(
        Manifest(
            name="ages",
            inputs={"x": spec},
            label=label,
            shot_rules={"counts": ShotRule()},
            default_shot_rule="counts",
            splits=splits,
            content_hash="0" * 64,
            split_fingerprint="f" * 64,
        )
    )


@pytest.fixture
def ages() -> Inspection:
    label = LabelSpec(name="age", unit="years", low=10, high=20, bin_width=2, num_bins=5)
    return _make_inspection(label, COUNTS)


@pytest.fixture
def gaze() -> Inspection:
    pitch = LabelSpec(name="pitch", unit="degrees", low=-2, high=2, bin_width=2, num_bins=2)
    yaw = LabelSpec(name="yaw", unit="degrees", low=-3, high=3, bin_width=2, num_bins=3)
    counts = {"train": (0, 30, 1, 5, 101, 4), "test": (1, 0, 0, 0, 9, 0)}
    return _make_inspection(LabelSpec.grid("gaze", "degrees", (pitch, yaw)), counts)


def _caption(inspection: Inspection, samples: tuple[RegionSamples, ...] = ()) -> str:
    return draw_figure(inspection, samples).get_supxlabel().replace("\n", " ")


def test_every_split_has_a_histogram_over_the_same_labels(ages: Inspection) -> None:
    panels = draw_figure(ages, ()).axes
    assert [panel.get_ylabel() for panel in panels] == ["train\n157 samples", "test\n10 samples"]
    assert panels[-1].get_xlabel() == "age [years]"
    for panel, counts in zip(panels, COUNTS.values(), strict=True):
        (stairs,) = [patch for patch in panel.patches if isinstance(patch, StepPatch)]
        np.testing.assert_array_equal(stairs.get_data().values, counts)
        np.testing.assert_array_equal(stairs.get_data().edges, [10, 12, 14, 16, 18, 20])
        assert panel.get_yscale() == "log"
        # A bin with one sample has a bar
        assert panel.get_ylim()[0] < 1


def test_the_effective_density_is_drawn_over_the_training_samples_alone(ages: Inspection) -> None:
    train, test = draw_figure(ages, ()).axes
    (line,) = train.lines
    np.testing.assert_array_equal(line.get_xdata(), [11, 13, 15, 17, 19])
    np.testing.assert_array_equal(line.get_ydata(), ages.density)
    assert list(test.lines) == []


def test_counts_are_written_as_plain_numbers(ages: Inspection, gaze: Inspection) -> None:
    for panel, expected in (
        (draw_figure(ages, ()).axes[0], {"1", "10", "100"}),
        (draw_figure(gaze, ()).axes[-1], {"1", "10", "100"}),
    ):
        panel.figure.canvas.draw()
        assert expected <= {text.get_text() for text in panel.get_yticklabels()}


def test_neighboring_bins_of_a_region_are_shaded_together(ages: Inspection) -> None:
    assert list(ages.regions) == ["few", "many", "medium", "medium", "few"]
    expected = [("few", 10, 12), ("many", 12, 14), ("medium", 14, 18), ("few", 18, 20)]
    for panel in draw_figure(ages, ()).axes:
        assert _spans(panel) == [(TINTS[region], low, high) for region, low, high in expected]


def _spans(axes: Axes) -> list[tuple[str, float, float]]:
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle | Polygon)]
    boxes = [patch.get_extents().transformed(axes.transData.inverted()) for patch in patches]
    return [
        (to_hex(patch.get_facecolor()).upper(), round(box.x0, 6), round(box.x1, 6))
        for patch, box in zip(patches, boxes, strict=True)
    ]


def test_the_caption_names_the_set_the_smoothing_and_missing_images(ages: Inspection) -> None:
    caption = _caption(ages)
    assert "ages, content 0000000000000000, shot rule counts." in caption
    assert "smoothed over 5 bins (gaussian, sigma 2)." in caption
    assert NO_IMAGES in caption


@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_of_a_region_form_a_row_with_their_labels_as_titles(ages: Inspection, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, channels, 2, 3)).astype(np.uint8)
    samples = (
        RegionSamples(region="many", sample_ids=("a", "b"), labels=np.array([12.25, 13.5]), images=pixels[:2]),
        RegionSamples(region="few", sample_ids=("c",), labels=np.array([19.0]), images=pixels[2:]),
    )
    figure = draw_figure(ages, samples)
    shown = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title() for panel in shown] == ["12.25", "13.5", "19"]
    for panel, image in zip(shown, pixels, strict=True):
        np.testing.assert_array_equal(np.squeeze(panel.images[0].get_array()), np.squeeze(image.transpose(1, 2, 0)))
    assert [text.get_text() for panel in shown for text in panel.texts] == ["many", "few"]
    assert "Images: drawn from training, age [years] above." in _caption(ages, samples)


def test_two_dimensions_are_drawn_as_heat_maps_after_the_regions(gaze: Inspection) -> None:
    regions, train, test, bar = draw_figure(gaze, ()).axes
    order = ["many", "medium", "few"]
    codes = [[order.index(name) for name in row] for row in gaze.regions.reshape(2, 3)]
    np.testing.assert_array_equal(regions.images[0].get_array(), codes)
    for panel, split in ((train, "train"), (test, "test")):
        counts = np.reshape(gaze.manifest.splits[split].bin_counts, (2, 3))
        shown = panel.images[0].get_array()
        np.testing.assert_array_equal(shown.filled(0), counts)
        # An empty bin has no color
        np.testing.assert_array_equal(shown.mask, counts == 0)
        assert panel.images[0].get_extent() == [-3, 3, -2, 2]
        assert panel.images[0].origin == "lower"
    assert train.get_title() == "train: 141"
    assert regions.get_ylabel() == "pitch [degrees]"
    assert bar.get_ylabel() == "samples per bin"


def test_labels_of_two_dimensions_are_titles_of_their_images(gaze: Inspection) -> None:
    images = np.zeros((1, 1, 2, 3), np.uint8)
    sample = RegionSamples(region="few", sample_ids=("a",), labels=np.array([[-1.5, 2.25]]), images=images)
    assert draw_figure(gaze, (sample,)).axes[-1].get_title() == "-1.5\n2.25"


def test_three_dimensions_and_unknown_types_of_files_are_errors(ages: Inspection, tmp_path: Path) -> None:
    axis = LabelSpec(name="x", unit="m", low=0, high=2, bin_width=1, num_bins=2)
    place = _make_inspection(LabelSpec.grid("place", "m", (axis,) * 3), {"train": (1,) * 8})
    with pytest.raises(InputError, match="labels of one or two dimensions, got 3"):
        draw_figure(place, ())
    output = tmp_path / "new" / "x.gif"
    with pytest.raises(InputError, match=r"unknown type of file, got '.gif'; known: .pdf, .png"):
        save_figure(ages, root=tmp_path, output=output)
    assert not output.parent.exists()


@pytest.mark.parametrize("suffix", STARTS)
@pytest.mark.parametrize("shape", ["ages", "gaze"])
def test_the_figure_is_written_in_every_type_of_file(
    request: pytest.FixtureRequest, tmp_path: Path, shape: str, suffix: str
) -> None:
    inspection = request.getfixturevalue(shape)
    output = tmp_path / "new folder" / f"x{suffix}"
    before = dict(mpl.rcParams)
    assert save_figure(inspection, root=tmp_path, output=output) == output
    assert output.read_bytes().startswith(STARTS[suffix])
    assert dict(mpl.rcParams) == before


@pytest.mark.ray
def test_a_name_that_looks_like_a_formula_is_shown_as_it_is(tmp_path: Path) -> None:
    label = LabelSpec(name=r"$\undefined$", unit="$_$", low=10, high=20, bin_width=2, num_bins=5)

    file = save_figure(_make_inspection(label, COUNTS), root=tmp_path, output=tmp_path / "x.svg")

    assert r">$\undefined$ [$_$]<" in file.read_text(encoding="utf-8")


def test_the_figure_of_digits_shows_ten_images_of_every_region(digits: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from dirtune.data.figure import draw_figure, save_figure\n"
        "from dirtune.data.inspection import inspect\n"
        "from dirtune.data.region_samples import read_region_samples\n"
        "from dirtune.io.storage import Storage\n"
        f"inspection = inspect('digits', root={str(digits)!r})\n"
        f"save_figure(inspection, root={str(digits)!r}, output=Path({str(tmp_path / 'x.png')!r}))\n"
        f"figure = draw_figure(inspection, read_region_samples(Storage.open({str(digits)!r}), inspection))\n"
        "print(sum(bool(panel.images) for panel in figure.axes))\n"
        "print(sorted({'matplotlib.pyplot', 'torch', 'ray'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["30", "[]"]
    assert (tmp_path / "x.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "matrix",
    # Vienot, Brettel and Mollon 1999: what protanopes and deuteranopes see, in linear RGB
    [
        [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
        [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
    ],
)
def test_the_colors_differ_for_color_blind_readers(matrix: list[list[float]]) -> None:
    colors = [*TINTS.values(), BARS, DENSITY]
    linear = [
        np.array([((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in to_rgb(each)]) for each in colors
    ]
    perceived = [np.array(matrix) @ each for each in linear]
    distances = [np.abs(a - b).max() for i, a in enumerate(perceived) for b in perceived[:i]]
    assert min(distances) > 0.04
