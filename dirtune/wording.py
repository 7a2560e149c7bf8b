"""Words of messages that depend on a number."""

from collections.abc import Mapping


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, whose plural ends with an s, as `1 trial` and `2,048 trials`."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def format_counts(counts: Mapping[str, int]) -> str:
    """Return how many there are of each name, in the order of the names, as `2 code, 1 nan`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
