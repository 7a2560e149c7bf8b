"""Run with `pytest tests/pipelines/test_eyes.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from dirtune.errors import Fault
from dirtune.pipelines.eyes import DAYS, Eye, compute_gaze_angles, compute_pose_angles, get_list_path, read_eyes
from tests.pipelines.gaze_files import photographs, vector, write_day, write_list

ANGLES = [(-10.0, 20.0), (5.0, -7.5), (0.0, 0.0)]


def _read(folder: Path, lines: list[str]) -> list[Eye | Fault]:
    write_list(folder, "p03", lines)
    return list(read_eyes(folder, "p03"))


def _find_eye(found: Eye | Fault) -> Eye:
    assert isinstance(found, Eye), found
    return found


def _rule(found: Eye | Fault) -> str:
    assert isinstance(found, Fault)
    return found.rule


def test_a_left_eye_is_unchanged(tmp_path: Path) -> None:
    shown = photographs(ANGLES, seed=1)
    write_day(tmp_path, "p03", "day07", shown)
    eye = _find_eye(_read(tmp_path, ["day07/0002.jpg left"])[0])
    assert (eye.sample_id, eye.person) == ("p03/day07/0002.jpg left", "p03")
    assert np.degrees(eye.gaze) == pytest.approx([5.0, -7.5], abs=1e-12)
    np.testing.assert_array_equal(_pixels(eye), shown.images["left"][1])


def test_a_right_eye_is_mirrored_and_its_yaws_are_negated(tmp_path: Path) -> None:
    shown = photographs(ANGLES, seed=1)
    shown.images["right"][0] = 0
    # One bright pixel at the right end of row 4
    shown.images["right"][0, 4, 59] = 200
    shown.poses["right"][0] = [0.0, np.pi / 6, 0.0]  # the head turned by 30 degrees about the y axis
    write_day(tmp_path, "p03", "day01", shown)
    eye = _find_eye(_read(tmp_path, ["day01/0001.jpg right"])[0])
    assert np.degrees(eye.gaze) == pytest.approx([-10.0, -20.0], abs=1e-12)
    assert np.degrees(eye.pose) == pytest.approx([0.0, -30.0], abs=1e-12)
    (where,) = np.argwhere(_pixels(eye))
    assert where.tolist() == [4, 0]


@pytest.mark.parametrize("missing_axis", [False, True], ids=["one-row", "squeezed"])
def test_a_day_of_one_photograph_is_read(tmp_path: Path, missing_axis: bool) -> None:
    shown = photographs(ANGLES[:1], seed=2)
    changes = {"image": shown.images["left"][0]} if missing_axis else {}
    path = write_day(tmp_path, "p03", "day01", shown, **changes)
    # And the name as text instead of a cell
    if missing_axis:
        left = {"image": shown.images["left"][0], "gaze": shown.gazes["left"][0], "pose": shown.poses["left"][0]}
        savemat(path, {"data": {"left": left, "right": left}, "filenames": shown.names[0]})
    eye = _find_eye(_read(tmp_path, ["day01/0001.jpg left"])[0])
    assert np.degrees(eye.gaze) == pytest.approx(ANGLES[0], abs=1e-12)
    np.testing.assert_array_equal(_pixels(eye), shown.images["left"][0])


def test_a_repeated_line_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    write_day(tmp_path, "p03", "day01", photographs(ANGLES, seed=1))
    lines = ["day01/0001.jpg left", "", "day01/0001.jpg right ", "day01/0001.jpg left"]
    ids = [_find_eye(each).sample_id for each in _read(tmp_path, lines)]
    assert ids == ["p03/day01/0001.jpg left", "p03/day01/0001.jpg right"]


def test_every_line_that_cannot_be_used_is_named_and_stops_no_other(tmp_path: Path) -> None:
    gazes = np.array([vector(0, 0), [0.0, 0.5, -0.5], [np.nan, 0.0, -1.0]])
    write_day(tmp_path, "p03", "day01", photographs(ANGLES, seed=1), gaze=gazes)
    found = _read(
        tmp_path,
        [
            "day01/0009.jpg left",
            "day02/0001.jpg left",
            "day01/0001.jpg top",
            "../day01/0001.jpg left",
            "day01/0002.jpg left",
            "day01/0003.jpg left",
            "day01/0003.jpg right",
        ],
    )
    day = tmp_path / DAYS / "p03"
    assert [_rule(each) for each in found[:6]] == [
        f"{day}/day01.mat: holds no 0009.jpg",
        f"{day}/day02.mat: no such file",
        "must be a day, a file and a side, such as day01/0005.jpg left, not 'day01/0001.jpg top'",
        "must be a day, a file and a side, such as day01/0005.jpg left, not '../day01/0001.jpg left'",
        "its gaze vector must have length 1, not 0.707107",
        "its gaze vector must have length 1, not nan",
    ]
    assert isinstance(found[6], Eye)
    assert found[1] == Fault(where=f"{get_list_path(tmp_path, 'p03')}:2", rule=f"{day}/day02.mat: no such file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((3, 60, 36), np.uint8)}, r"3 files have arrays of shape \(3, 36, 60\), not \(3, 60, 36\)"),
        ({"image": np.zeros((3, 36, 60))}, "images must be uint8, not float64"),
        ({"gaze": np.zeros((2, 3))}, r"3 files have arrays of shape \(3, 3\), not \(2, 3\)"),
        ({"pose": np.zeros((3, 4))}, r"3 files have arrays of shape \(3, 3\), not \(3, 4\)"),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    write_day(tmp_path, "p03", "day01", photographs(ANGLES, seed=1), **changes)
    (found,) = _read(tmp_path, ["day01/0001.jpg left"])
    with pytest.raises(AssertionError, match=message):
        _find_eye(found)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write_day(tmp_path, "p03", "day01", photographs(ANGLES, seed=1))
    whole = path.read_bytes()
    savemat(path.with_name("day04.mat"), {"other": 1})
    for day, content in {"day01": whole[: len(whole) // 2], "day02": b"", "day03": b"no Matlab file" * 20}.items():
        path.with_name(f"{day}.mat").write_bytes(content)
    lines = [f"day0{number}/0001.jpg left" for number in (1, 2, 3, 4)]
    rules = [_rule(each) for each in _read(tmp_path, lines)]
    assert all("must hold data.left, data.right and filenames (" in rule for rule in rules)


def test_gaze_angles_are_those_of_the_published_conversion() -> None:
    drawn = np.random.default_rng(0)
    vectors = np.array([vector(*each) for each in drawn.uniform(-60, 60, (50, 2))])
    expected = [[np.arcsin(-y), np.arctan2(-x, -z)] for x, y, z in vectors]
    np.testing.assert_allclose(compute_gaze_angles(vectors), expected, rtol=1e-12)
    np.testing.assert_allclose(compute_gaze_angles(vectors * 0.999), expected, rtol=1e-12)


def test_pose_angles_are_those_of_the_third_column_of_the_rotation_matrix() -> None:
    drawn = np.random.default_rng(0).normal(0, 0.8, (50, 3))
    rotations = np.vstack([drawn, np.zeros((1, 3))])
    columns = Rotation.from_rotvec(rotations).as_matrix()[:, :, 2]
    expected = [[np.arcsin(v_y), np.arctan2(v_x, v_z)] for v_x, v_y, v_z in columns]
    np.testing.assert_allclose(compute_pose_angles(rotations), expected, rtol=1e-9, atol=1e-12)
    assert compute_pose_angles(rotations)[-1].tolist() == [0.0, 0.0]


def _pixels(eye: Eye) -> np.ndarray:
    return np.frombuffer(eye.image, np.uint8).reshape(36, 60)
