from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dirtune.results.records.parquetfile import encode_table
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.footer import make_footer
from tests.results.predicted import make_manifest, write_predicted_study
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
    assert "Seeds (3): 0, 1, 2;" in text
    assert (
        "tried per seed: vanilla 1; conr 1..3 (1 pruned, 15 not recorded); accon 1 (1 not recorded); "
        "[x] 1 (1 failed, 2 not recorded)." in text
    )
    assert "Missing: accon seed 1: not recorded; [x] seed 0: failed: not finite; [x] seeds 1, 2: not recorded." in text
    assert "Data: agedb data-a; test samples: all 10, many 10, medium 10, few 10." in text


def test_it_names_the_seeds_of_every_pairing(root: Path) -> None:
    assert (
        "Seeds (3): 0, 1, 2; paired with vanilla: seeds 0, 1, 2 (conr); seeds 0, 2 (accon); none ([x])."
        in make_lines(root)
    )


def test_seeds_that_all_arms_have_are_listed_once(tmp_path: Path) -> None:
    write_predicted_study(tmp_path)

    assert "Seeds (5): 0, 1, 2, 3, 4, in all arms paired with vanilla." in make_lines(tmp_path)


def test_arms_that_are_not_shown_are_named_and_still_corrected_for(root: Path) -> None:
    text = "\n".join(make_lines(root, arms=("vanilla", "conr")))

    assert "Arms not shown: accon, [x]." in text
    assert "corrected by Holm over at most 3 arms, shown or not" in text


def test_it_names_the_meaning_of_every_mark(root: Path) -> None:
    for spread, bold, words in (
        ("sd", "better", "the standard deviation over seeds. Bold (in plain text *): better than the reference"),
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


def test_it_names_the_claim_what_words_mean_and_what_they_do_not_cover(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "all", "margin": "5%"})
    lines = make_lines(tmp_path)
    text = "\n".join(lines)

    assert "Claim: mae in region all, margin 5 % of the reference's mean." in lines
    assert (
        "Words: helps, hurts: the change holds over the seeds and over the test samples (both tests, p < 0.05" in text
    )
    assert "same: shown to be smaller than the claim's margin" in text
    assert "If no arm differed from vanilla, about 1 study in 20 would still have a false helps or hurts." in text
    assert "of 20, one misses by chance. Columns without a word are for orientation, not for claims." in text
    assert "Not covered: another split of the data, another data set." in lines
    assert "hosen after" not in text
    # What a reader has to know is ten lines
    assert len(lines) == 10


def test_what_is_chosen_after_the_study_is_named(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "all"})
    lines = make_lines(tmp_path, regions=("few",), margin="0.5")

    assert (
        "Claim: mae in region few, margin 0.5 in the metric's unit; chosen after the study: region few, margin 0.5."
        in lines
    )
    assert "Chosen after the study: a word that was looked for among several is false more often than that." in lines


def test_arms_without_a_word_are_listed_with_the_reason(root: Path) -> None:
    text = "\n".join(make_lines(root))

    assert "conr: another number of configurations than the reference; accon: fewer than 3 pairs; [x]: no pair." in text
    assert "A word needs 3 pairs of seeds, better 5 or more, and stored predictions." in text
    assert "Intervals are over the seeds alone, for these test samples: " in text
    assert "has no stored predictions of split test" in text


def test_samples_of_one_group_are_said_to_count_together(tmp_path: Path) -> None:
    storage = write_predicted_study(tmp_path)
    ids = [f"test{i}" for i in range(300)]
    groups = pa.table({"split": ["test"] * 300, "sample_id": ids, "group": [sample[:6] for sample in ids]})
    storage.write("groups.parquet", encode_table(groups))
    storage.write("manifest.json", make_manifest().model_copy(update={"group": "person"}).model_dump_json().encode())

    assert "; those of one person count together." in "\n".join(make_lines(tmp_path))


def test_settings_of_one_search_are_said_to_rest_on_it(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, spaces={"conr": {"x": {}}})

    assert make_lines(tmp_path)[-1] == (
        "Not covered: another split of the data, another data set, a second search. One search each: arms that are alike may "
        "still be told apart."
    )


def test_without_a_reference_the_footer_has_no_pairing(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("b", 0)])

    text = "\n".join(make_lines(tmp_path))

    assert "paired" not in text
    assert "Intervals" not in text


def test_published_sources_are_numbered_as_in_the_table(root: Path) -> None:
    found = [line for line in make_lines(root, published="dir") if "ublished" in line]

    about = "dir split; another recipe and other seeds, in no statistic of this table."
    assert found[0] == f"[1] Published: ACCon (AAAI 2025), Table 2; {about}"
    assert len(found) > 1
    for number, line in enumerate(found, start=1):
        assert line.startswith(f"[{number}] Published: ")
        assert line.endswith(about)
    assert make_lines(root, published="dir", arms=("[x]",))[-1] == (
        "Published numbers of the dir split: none for these arms."
    )


def test_orphans_are_mentioned(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("gone", 0)], arms=["a"])

    assert "Left out: 1 recorded trials that the study no longer plans." in make_lines(tmp_path)


def test_sentences_about_one_study_come_once_per_study(root: Path) -> None:
    write_study(root, [record("a", 7, trial_id="other")], name="other")

    found = make_lines(root, "study", "other")

    assert any(line.startswith("study: Seeds (3): 0, 1, 2;") for line in found)
    assert "other: Seeds (1): 7." in found
    assert sum(line.startswith("±") for line in found) == 1
