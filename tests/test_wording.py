from dirtune.wording import format_count


def test_a_count_has_the_number_of_its_noun() -> None:
    counts = [format_count(number, "trial") for number in (0, 1, 2, 2048)]
    assert counts == ["0 trials", "1 trial", "2 trials", "2,048 trials"]
