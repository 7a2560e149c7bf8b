"""Run with `pytest tests/test_errors.py`."""

from __future__ import annotations

import pickle

import pytest

from dirtune.errors import Fault, InputError, NonFiniteLoss, OutOfMemory, TrialFailure, escape_control_characters


def test_a_fault_names_place_rule_value_and_known_names() -> None:
    assert str(Fault(where="s.yaml", rule="no such file")) == "s.yaml: no such file"
    assert str(Fault(where="s.yaml", key="a.b", rule="is missing")) == "s.yaml: a.b: is missing"
    fault = Fault(where="s.yaml", key="a", rule="unknown term", got="zzz", known=("conr", "accon"))
    assert str(fault) == "s.yaml: a: unknown term, got 'zzz'; known: accon, conr"


def test_a_fault_suggests_the_closest_known_name() -> None:
    fault = Fault(where="f", rule="unknown term", got="comr", known=("conr", "accon"))
    assert str(fault).endswith("known: accon, conr (did you mean 'conr'?)")
    fault = Fault(where="f", rule="unknown name", got="MSE", known=("l1", "mse"))
    assert str(fault).endswith("known: l1, mse (did you mean 'mse'?)")


@pytest.mark.parametrize("got", [0, 0.0, "", False, []])
def test_a_fault_shows_an_empty_value(got: object) -> None:
    assert str(Fault(where="f", rule="must be more", got=got)) == f"f: must be more, got {got!r}"


def test_an_input_error_has_one_line_per_fault() -> None:
    faults = [Fault(where="f", key=key, rule="is missing") for key in ("a", "b")]
    assert str(InputError(faults)) == "f: a: is missing\nf: b: is missing"
    assert InputError(iter(faults)).faults == tuple(faults)
    assert InputError(faults[0]).faults == (faults[0],)


def test_an_input_error_is_a_value_error_and_a_trial_failure_is_not() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(NonFiniteLoss, TrialFailure)
    assert not issubclass(TrialFailure, ValueError)


def test_errors_are_pickled_with_all_their_attributes() -> None:
    faults = (Fault(where="f", key="k", rule="unknown", got="x", known=("y",)), Fault(where="g", rule="r"))
    error = pickle.loads(pickle.dumps(InputError(faults)))
    assert type(error) is InputError
    assert error.faults == faults
    assert str(error) == str(InputError(faults))

    memory = pickle.loads(pickle.dumps(OutOfMemory("out of memory at epoch 3", 3)))
    assert (type(memory), str(memory), memory.epoch) == (OutOfMemory, "out of memory at epoch 3", 3)

    loss = pickle.loads(pickle.dumps(NonFiniteLoss("conr", 3, 17)))
    assert type(loss) is NonFiniteLoss
    assert (loss.term, loss.epoch, loss.step) == ("conr", 3, 17)
    assert str(loss) == "loss term 'conr' is not finite at epoch 3, step 17"


def test_messages_are_short_whatever_they_are_about() -> None:
    names = [f"arm number {number} of a study with many" for number in range(1000)]
    fault = Fault(where="w" * 5000, key="k" * 5000, rule="unknown", got="x" * 10**6, known=names)
    assert len(str(fault)) <= 1500
    assert "more" in str(Fault(where="f", rule="unknown", got="y", known=names))
    assert str(Fault(where="f", rule="unknown", got="y", known=names[:3])).endswith("number 2 of a study with many")
    text = str(InputError([fault] * 500))
    assert len(text) < 2000
    assert text.endswith("\nand 499 more faults")
    assert len(InputError([fault] * 500).faults) == 500


def test_a_close_name_is_found_among_names_that_are_not_shown() -> None:
    names = [f"arm-{number:04d}" for number in range(1000)]
    text = str(Fault(where="f", rule="unknown arm", got="arm-09990", known=names))
    assert text.endswith("(did you mean 'arm-0999'?)")


HOSTILE = "\x1b]0;x\x07\x1b[31m\u202ename"
SHOWN = r"\x1b]0;x\x07\x1b[31m\u202ename"


def test_control_characters_are_shown_escaped_in_faults_and_on_consoles(capsys: pytest.CaptureFixture[str]) -> None:
    from dirtune.cli.app import make_console, show
    from dirtune.results.textgrid import as_markdown, as_rich, as_text

    fault = Fault(where=HOSTILE, key=HOSTILE, rule=f"broken {HOSTILE}", got=HOSTILE, known=[HOSTILE])
    assert str(fault).count(SHOWN) == 5 + 1
    assert escape_control_characters("tab\tline\nβ é 日本") == "tab\tline\nβ é 日本"
    show(HOSTILE, as_rich(["arm"], [[HOSTILE]], title=HOSTILE))
    make_console().out(HOSTILE)
    texts = [capsys.readouterr().out, as_text([HOSTILE], [[HOSTILE]]), as_markdown([HOSTILE], [[HOSTILE]])]
    # rich itself leaves bells out
    assert [text.replace(r"\x07", "").count(SHOWN.replace(r"\x07", "")) for text in texts] == [4, 2, 2]
    assert not [text for text in texts if "\x1b" in text or "\x07" in text]


@pytest.mark.parametrize(("is_terminal", "shown"), [(True, "'=a\\x1b[31m,1\n"), (False, "'=a\x1b[31m,1\n")])
def test_a_csv_is_escaped_on_a_terminal_and_exact_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool, shown: str
) -> None:
    from dirtune.cli.app import print_result

    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    print_result("'=a\x1b[31m,1")
    assert capsys.readouterr().out == shown
