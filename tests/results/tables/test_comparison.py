from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.tables.comparison import TableRequest, compare, from_table, get_row_key
from dirtune.results.tables.table import make_arm_table, make_arm_tables
from tests.results.record_factory import metric_rows, record, write_study


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two studies on different data, and one on another version of the first one's data."""
    for name, data, fingerprint in (
        ("one", "agedb", "data-a"),
        ("two", "sts_b", "data-b"),
        ("other", "agedb", "data-c"),
    ):
        records = [
            record(
                arm,
                seed,
                value + seed,
                trial_id=f"{name}-{arm}-{seed}",
                fingerprint=fingerprint,
                metrics=metric_rows(value + seed) + metric_rows(2 * value, metric="mse"),
            )
            for arm, value in (("vanilla", 5.0), ("conr", 4.0), ("conr_2", 3.0))
            for seed in (0, 1)
        ]
        write_study(tmp_path, records, name=name, reference="vanilla", data={"name": data})
    return tmp_path


def test_parts_are_the_tables_of_every_study_and_metric(root: Path) -> None:
    request = TableRequest(studies=("two", "one"), metrics=("mse", "mae"), regions=("few",))

    parts = compare(root, request).parts

    assert [(part.study, part.metric) for part in parts] == [
        ("two", "mse"),
        ("two", "mae"),
        ("one", "mse"),
        ("one", "mae"),
    ]
    assert parts[2:] == make_arm_tables(root, "one", metrics=("mse", "mae"), regions=("few",))
    assert parts[3].rows[0].cells.keys() == {"few"}


@pytest.mark.parametrize(
    ("patterns", "arms"),
    [
        ((), ["conr", "conr_2", "vanilla"]),
        (("vanilla", "conr"), ["vanilla", "conr"]),
        (("conr*",), ["conr", "conr_2"]),
        (("vanilla", "*"), ["vanilla", "conr", "conr_2"]),
    ],
)
def test_arms_are_chosen_and_ordered_by_name(root: Path, patterns: tuple[str, ...], arms: list[str]) -> None:
    (part,) = compare(root, TableRequest(studies=("one",), arms=patterns)).parts

    assert [row.arm for row in part.rows] == arms


def test_hiding_an_arm_changes_no_statistic(root: Path) -> None:
    whole, part = (compare(root, TableRequest(studies=("one",), arms=arms)).parts[0] for arms in ((), ("conr",)))

    assert part.rows == tuple(row for row in whole.rows if row.arm == "conr")
    assert part.rows[0].cells["all"].difference.mean == -1.0


def test_studies_share_a_grid_in_a_wide_layout_and_not_in_a_stacked_one(root: Path) -> None:
    for layout, sizes in (("stacked", [2, 2]), ("wide", [4])):
        request = TableRequest(studies=("one", "two"), metrics=("mae", "mse"), layout=layout)
        assert [len(block) for block in compare(root, request).blocks] == sizes


def test_versions_of_one_data_set_are_mixed_only_when_asked(root: Path) -> None:
    with pytest.raises(InputError, match=r"data set agedb: .*\['data-a', 'data-c'\]"):
        compare(root, TableRequest(studies=("one", "other")))
    assert compare(root, TableRequest(studies=("one", "other"), mix_data=True)).parts


def test_published_rows_are_those_of_the_arms_shown(root: Path) -> None:
    request = TableRequest(
        studies=("one", "two"),
        metrics=("mae", "mse"),
        arms=("conr", "conr_2"),
        published="dir",
        published_as={"conr_2": "SqrtINV+LDS+ConR"},
    )
    found = {(row.arm, row.dataset, row.metric, row.method) for row in compare(root, request).published}

    assert found == {
        ("conr", "agedb", "mae", "Vanilla+ConR"),
        # As other papers call it
        ("conr", "agedb", "mae", "ConR"),
        ("conr_2", "agedb", "mae", "SqrtINV+LDS+ConR"),
        ("conr", "sts_b", "mse", "Vanilla+ConR"),
        ("conr_2", "sts_b", "mse", "SqrtINV+LDS+ConR"),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"studies": ()}, "table: needs a study"),
        ({"studies": ("onne",)}, "unknown study, got 'onne'; known: one, other, two"),
        ({"regions": ("fw",)}, "unknown region, got 'fw'; known: all, few, many, medium"),
        ({"metrics": ("mea",)}, "unknown metric, got 'mea'; known: mae, mse"),
        ({"arms": ("con?",)}, None),
        ({"arms": ("accon",)}, "unknown arm, got 'accon'; known: conr, conr_2, vanilla"),
        ({"arms": ("x*", "y")}, r"(?s)got 'x\*'.*got 'y'"),
        ({"rows": ("omega",)}, "unknown row, got 'omega'; known: arm"),
        ({"layout": "above"}, "unknown layout, got 'above'; known: stacked, wide"),
        ({"spread": "std"}, "unknown spread, got 'std'; known: ci95, sd, se"),
        ({"bold": "all"}, "unknown bold, got 'all'; known: best, better, none"),
        ({"published": "ours"}, "unknown published split, got 'ours'; known: dir, natural"),
        ({"published": "dir", "published_as": {"x": "ConR"}}, "unknown arm, got 'x'"),
        ({"published_as": {"conr": "ConR"}}, "published_as: has an effect only with published numbers"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(
    root: Path, options: dict[str, object], message: str | None
) -> None:
    keys = {"studies": ("one",), **options}
    if message is None:
        assert compare(root, TableRequest(**keys)).parts[0].rows[0].arm == "conr"
        return
    with pytest.raises(InputError, match=message):
        compare(root, TableRequest(**keys))


def test_row_keys_must_identify_the_arms(tmp_path: Path) -> None:
    records = [record(f"{arm} omega=1", 0, cell='{"omega": 1}') for arm in ("a", "b")]
    write_study(tmp_path, records)

    with pytest.raises(InputError, match=r"rows: must identify the arms of study study"):
        compare(tmp_path, TableRequest(studies=("study",), rows=("omega",)))
    (part,) = compare(tmp_path, TableRequest(studies=("study",), rows=("omega", "arm"))).parts
    assert [get_row_key(row, ("omega", "arm")) for row in part.rows] == [("1", "a"), ("1", "b")]


def test_a_table_alone_is_the_comparison_that_it_answers(root: Path) -> None:
    made = make_arm_table(root, "one", metric="mse", reference="conr", split="val")
    alone = from_table(made)

    assert compare(root, alone.request) == alone
