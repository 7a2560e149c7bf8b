"""Words of messages that depend on a number."""


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, whose plural ends with an s, as `1 trial` and `2,048 trials`."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"
