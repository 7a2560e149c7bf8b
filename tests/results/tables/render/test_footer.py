from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.footer import make_footer
from tests.results.record_factory import record, write_study


@pytest.fixture
def root(tmp_path: Path) -> Path:
    records = [record("vanilla", seed, 5.0 + 0.2 * seed) for seed in range(3)]
    records += [record("conr", seed, 4.0 + 0.25 * seed) for seed in range(3)]
    records += [record("conr", 0, 9.0, trial_id="worse", objective=99.0)]
    records += [record("conr", 0, trial_id="cut", status="pruned")]
    records += [record("accon", seed, 4.0) for seed in (0, 2)]
    records += [record("[x]", 0, status="failed", error="not finite")]
    write_study(
        tmp_path,
        records,
        reference="vanilla",
        arms=["vanilla", "conr", "accon", "[x]"],
        seeds=[0, 1, 2],
        trials={"vanilla": 3, "conr": 20, "accon": 3, "[x]": 3},
        data={"name": "agedb", "unit": "years"},
    )
    return tmp_path


def make_lines(root: Path, *studies: str, **keys: object) -> list[str]:
    return make_footer(compare(root, TableRequest(studies=studies or ("study",), **keys)))


def test_the_footer_lists_split_selection_seeds_pairs_missing_values_and_data(root: Path) -> None:
    text = "\n".join(make_lines(root))

    assert "Split: test. Selection best_val: best epoch and configuration" in text
    assert "(objective: mae in region all)" in text
    assert "Seeds (3): 0, 1, 2." in text
    assert (
        "tried per seed: vanilla 1; conr 1..3 (1 pruned, 15 not recorded); accon 1 (1 not recorded); "
        "[x] 1 (1 failed, 2 not recorded)." in text
    )
    assert "Missing: accon seed 1: not recorded; [x] seed 0: failed: not finite; [x] seeds 1, 2: not recorded." in text
    assert "Data: agedb data-a." in text


def test_it_names_the_seeds_of_every_pairing_and_the_correction(root: Path) -> None:
    (line,) = [line for line in make_lines(root) if line.startswith("Pairing")]

    assert line == (
        "Pairing with vanilla: seeds 0, 1, 2 (conr); seeds 0, 2 (accon); none ([x]). "
        "Correction: Holm's, over the arms of a column (at most 3), shown or not."
    )


def test_arms_that_are_not_shown_are_named_and_still_corrected_for(root: Path) -> None:
    text = "\n".join(make_lines(root, arms=("vanilla", "conr")))

    assert "Arms not shown: accon, [x]." in text
    assert "(at most 3), shown or not" in text


def test_it_names_the_presets_of_the_arms_by_variant(tmp_path: Path) -> None:
    intended = {"variant": "intended", "recipes": ["dir"], "methods": []}
    presets = {"vanilla": intended, "conr": {**intended, "methods": ["lds", "conr"]}}
    arms = ["vanilla", "conr", "own"]
    write_study(tmp_path, [record(arm, 0) for arm in arms], arms=arms, reference="vanilla", presets=presets)
    assert [line for line in make_lines(tmp_path) if line.startswith("Presets")] == [
        "Presets, intended: recipes dir; methods lds, conr; the settings of the study are over them."
    ]

    presets["conr"]["variant"] = "published"
    write_study(tmp_path, [record(arm, 0) for arm in arms], arms=arms, reference="vanilla", presets=presets)
    assert [line for line in make_lines(tmp_path) if line.startswith("Presets")] == [
        "Presets, intended (vanilla): recipes dir; the settings of the study are over them.",
        "Presets, published (conr): recipes dir; methods lds, conr; the settings of the study are over them.",
    ]


def test_it_names_the_meaning_of_every_mark(root: Path) -> None:
    for spread, bold, words in (
        ("sd", "better", "the standard deviation over seeds. Bold (in plain text *): significantly better"),
        (
            "se",
            "best",
            "the standard error of the mean over seeds, sd / sqrt(n). Bold (in plain text *): the best mean",
        ),
        (
            "ci95",
            "none",
            "half the width of the mean's 95 % Student t interval over seeds. Bold (in plain text *): not used.",
        ),
    ):
        assert words in "\n".join(make_lines(root, spread=spread, bold=bold))
    intervals = (
        "Intervals: Student's t over seeds, for new seeds on these test samples, 95 % (in simulations of 5 and 10 seeds "
        "92 to 96 %)"
    )
    assert intervals in "\n".join(make_lines(root))


def test_without_a_reference_the_footer_has_no_pairing(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("b", 0)])

    text = "\n".join(make_lines(tmp_path))

    assert "Pairing" not in text
    assert "Intervals" not in text


def test_published_sources_are_numbered_as_in_the_table(root: Path) -> None:
    found = [line for line in make_lines(root, published="dir") if "ublished" in line]

    assert found == [
        "[1] Published: ACCon (AAAI 2025), Table 2; dir split; another recipe and other seeds, in no statistic of "
        "this table."
    ]
    assert make_lines(root, published="dir", arms=("[x]",))[-1] == (
        "Published numbers of the dir split: none for these arms."
    )


def test_orphans_are_mentioned(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("gone", 0)], arms=["a"])

    assert "Left out: 1 recorded trials that the study no longer plans." in make_lines(tmp_path)


def test_sentences_about_one_study_come_once_per_study(root: Path) -> None:
    write_study(root, [record("a", 7, trial_id="other")], name="other")

    found = make_lines(root, "study", "other")

    assert "study: Seeds (3): 0, 1, 2." in found
    assert "other: Seeds (1): 7." in found
    assert sum(line.startswith("±") for line in found) == 1


def test_it_names_the_rule_of_the_verdicts(root: Path) -> None:
    text = "\n".join(make_lines(root, margin="0.5"))

    assert "paired t test, two-sided, corrected p < 0.05; equivalent: within ± the margin" in text
    assert "Bonferroni-corrected over the same arms" in text
    assert "Margin: 0.5 in the metric's unit." in text
    assert "with 80 % power" in text
    assert "Margin: 2 % of the reference's mean." in "\n".join(make_lines(root))
