"""Words of messages that depend on a number."""


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, as `1 trial` and `2,048 trials`.

    Args:
        number: of things.
        noun: their name in the singular.
        plural: its plural; empty for the noun with an `s`.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
