from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.tables.check import check, check_file, read_request
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import metric_rows, record, write_study

FORMS = ("table", "markdown", "latex", "csv")
REQUEST = TableRequest(studies=("one", "two"), metrics=("mae", "mse"), regions=("all", "few"), published="dir")


def fill_store(root: Path, *, conr: float = 4.0) -> None:
    """Two studies; an arm with signs that every form has to escape."""
    arms = {"vanilla": 5.0, "conr": conr, "a_b & [c] | d": 5.5}
    for name in ("one", "two"):
        records = [
            record(
                arm,
                seed,
                trial_id=f"{name}-{value}-{seed}",
                metrics=metric_rows(value + 0.3 * seed + 0.01 * seed * value)
                + metric_rows(20 * value + seed, metric="mse"),
            )
            for arm, value in arms.items()
            for seed in (0, 1, 2)
        ]
        write_study(
            root,
            records,
            name=name,
            reference="vanilla",
            arms=list(arms),
            seeds=[0, 1, 2],
            data={"name": "agedb", "unit": "years"},
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill_store(tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["stacked", "wide"])
def test_what_was_just_written_is_supported_to_the_last_number(root: Path, form: str, layout: str) -> None:
    request = TableRequest(**{**vars(REQUEST), "layout": layout, "bold": "best", "spread": "se"})
    text = render(compare(root, request), form)

    found = check(root, text, request)

    assert found.findings == ()
    # per study, metric and region: three means with spread and two differences of three numbers
    assert found.numbers >= 2 * 2 * 2 * (3 * 2 + 2 * 3)


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_store_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    fill_store(tmp_path / "before")
    text = render(compare(tmp_path / "before", REQUEST), form)
    fill_store(tmp_path / "after", conr=4.5)

    findings = check(tmp_path / "after", text, REQUEST).findings

    assert findings
    assert all("conr" in finding.row for finding in findings)
    assert all(finding.written != finding.now for finding in findings)


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
def test_a_number_changed_by_hand_is_found_in_its_line(root: Path, form: str) -> None:
    text = render(compare(root, REQUEST), form)
    lines = text.split("\n")
    at = next(i for i, one in enumerate(lines) if "conr" in one and "4.34" in one)
    lines[at] = lines[at].replace("4.34", "4.24", 1)

    (finding,) = check(root, "\n".join(lines), REQUEST).findings

    assert (finding.line, finding.row) == (at + 1, "conr")
    assert "4.24" in finding.written
    assert "4.34" in finding.now
    assert "the store has" in str(finding)


def test_the_second_study_is_not_taken_for_the_first(tmp_path: Path) -> None:
    fill_store(tmp_path)
    text = render(compare(tmp_path, REQUEST), "markdown")
    extra = [
        record(
            "conr", seed, trial_id=f"two-4.0-{seed}", metrics=metric_rows(9.0 + seed) + metric_rows(1.0, metric="mse")
        )
        for seed in (0, 1, 2)
    ]
    write_study(tmp_path, extra, name="two")

    findings = check(tmp_path, text).findings

    first = text.split("\n").index(next(one for one in text.split("\n") if one.startswith("| two: arm")))
    # Four means, four changes
    assert len(findings) == 8
    assert all(finding.line > first for finding in findings)


def test_columns_and_rows_may_have_been_taken_out_and_numbers_rounded(root: Path) -> None:
    text = "\n".join(["| arm | few | configs |", "| --- | --- | --- |", "| **conr** | 6.3 | 1 |"])
    request = TableRequest(studies=("one",))

    assert check(root, text.replace("**", ""), request).findings == ()
    (finding,) = check(root, text.replace("**", "").replace("6.3", "6.4"), request).findings
    assert (finding.column, finding.written) == ("few", "6.4")


def test_rows_and_lines_that_the_store_does_not_know_are_found(root: Path) -> None:
    request = TableRequest(studies=("one",), regions=("all",))
    head = "| arm | all | seeds | configs |\n| --- | --- | --- | --- |\n"

    (stranger,) = check(root, f"{head}| accon | 3.00 | 3/3 | - |", request).findings[:1]
    (short,) = check(root, f"{head}| conr | 4.34 |", request).findings

    assert (stranger.row, stranger.now) == ("accon", None)
    assert "no such row" in str(stranger)
    assert short.column == "whole line"


def test_what_is_no_table_of_these_studies_is_refused(root: Path) -> None:
    request = TableRequest(studies=("one",))

    with pytest.raises(InputError, match="no line of the text is one of the table"):
        check(root, "Dear reader, 5 of 6 arms are better.", request)
    with pytest.raises(InputError, match="has no request"):
        check(root, render(compare(root, request), "table"))
    with pytest.raises(InputError, match="the CSV has no lines"):
        check(root, render(compare(root, request), "csv").split("\n")[0])


@pytest.mark.parametrize("comment", ["{}", '{"studies": ["one"], "color": 1}', '{"studies": ["one", }'])
def test_a_damaged_request_is_refused(comment: str) -> None:
    with pytest.raises(InputError, match="not readable"):
        read_request(f"% dirtune table {comment}")


def test_a_csv_has_its_own_request_and_is_checked_at_full_precision(root: Path) -> None:
    request = TableRequest(studies=("one",), split="val", reference="conr", metrics=("mse",))
    text = render(compare(root, request), "csv")
    value = text.split("\n")[1].split(",")[6]

    assert check(root, text).findings == ()
    (finding,) = check(root, text.replace(value, f"{float(value) * (1 + 1e-7)}", 1)).findings
    assert (finding.line, finding.column, finding.now) == (2, "mean", value)


def test_a_csv_line_of_an_arm_that_is_gone_is_found(root: Path) -> None:
    text = render(compare(root, TableRequest(studies=("one",))), "csv")

    findings = check(root, text.replace("conr", "gone")).findings

    assert {finding.now for finding in findings} == {None}
    assert all("gone" in finding.row for finding in findings)


def test_the_outcome_counts_what_it_compared(root: Path) -> None:
    text = render(compare(root, TableRequest(studies=("one",))), "csv")

    assert str(check(root, text)).endswith("numbers and words checked, no cells not supported")
    assert str(check(root, text.replace("conr", "gone"))).count("\n") > 1


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a study with words, which tests must not change."""
    root = tmp_path_factory.mktemp("judged")
    write_predicted_study(root, name="one", claim={"region": "all", "margin": "5%"})
    return root


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
@pytest.mark.parametrize(("arm", "word"), [("ranksim", "hurts"), ("same", "same")])
def test_a_word_is_a_claim_and_is_checked(judged: Path, form: str, arm: str, word: str) -> None:
    request = TableRequest(studies=("one",))
    text = render(compare(judged, request), form)
    lines = text.split("\n")
    at = next(
        i
        for i, one in enumerate(lines)
        if arm in one and f" {word} " in f"{one} " and "%" not in one and "±" not in one
    )
    head, _, tail = lines[at].rpartition(f" {word}")
    lines[at] = f"{head} helps{tail}"

    (finding,) = check(judged, "\n".join(lines), request).findings

    assert (finding.line, finding.row) == (at + 1, arm)
    assert "helps" in finding.written
    assert word in finding.now


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
def test_the_mark_of_a_choice_after_the_study_must_not_be_taken_out(judged: Path, form: str) -> None:
    request = TableRequest(studies=("one",), margin="9%")
    text = render(compare(judged, request), form)

    assert check(judged, text, request).findings == ()
    (finding,) = check(judged, text.replace("word, chosen after the study", "word"), request).findings
    assert (finding.row, finding.written, finding.now) == ("headings", "word", "word, chosen after the study")


def test_a_word_in_a_csv_is_checked_with_the_margin_that_was_asked_for(judged: Path) -> None:
    request = TableRequest(studies=("one",), regions=("all",), margin="9%")
    text = render(compare(judged, request), "csv")
    assert ",hurts," in text

    assert check(judged, text).findings == ()
    (finding,) = check(judged, text.replace(",hurts,", ",open,")).findings
    assert (finding.column, finding.written, finding.now) == ("word", "open", "hurts")
    (margin, *_) = check(judged, text.replace(",9%,", ",2%,")).findings
    assert margin.column == "margin"
    lost = check(judged, text.replace(",margin 9%,", ",,")).findings
    assert {(each.column, each.written, each.now) for each in lost} == {("chosen_after", "nothing", "margin 9%")}
    assert len(lost) == 3


def test_columns_of_a_csv_may_have_been_taken_out(judged: Path) -> None:
    text = render(compare(judged, TableRequest(studies=("one",), regions=("all",))), "csv")
    table = list(csv.reader(io.StringIO(text)))
    kept = [at for at, name in enumerate(table[0]) if name not in {"word", "margin", "p_equivalence", "units"}]
    plain = "\n".join(",".join(line[at] for at in kept) for line in table)

    assert check(judged, plain).findings == ()


def test_a_file_is_checked_as_its_text(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "paper.tex"
    file.write_text(render(compare(root, REQUEST), "latex"))

    assert check_file(root, file) == check(root, file.read_text())
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    for name in ("binary", "absent"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read"):
            check_file(root, tmp_path / name)


def test_numbers_at_the_end_of_the_range_are_compared(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0, metrics=metric_rows(1.7e308))], name="study")
    request = TableRequest(studies=("study",), regions=("all",))
    text = render(compare(tmp_path, request), "markdown")

    assert check(tmp_path, text, request).findings == ()
    (finding,) = check(tmp_path, text.replace("1.70e+308", "1.70e+400"), request).findings
    assert (finding.written, finding.now) == ("1.70e+400", "1.70e+308")
