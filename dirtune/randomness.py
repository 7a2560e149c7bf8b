"""Paired randomness: every random stream is derived from (seed, purpose) and nothing else.

Two arms with one seed draw the same samples in the same order from the same initial weights, because no stream depends on
what another stream, or another arm, has consumed. Each epoch has streams of its own, so that a resumed run needs no saved
generator state.
"""

import hashlib

SEED_LIMIT = 2**63
"""Seeds are below this number, which is the limit of 64 bits with a sign in the records."""


SEEDS_PER_REPETITION = 1000
"""Seeds of one split or search of a study that has several: repetition `r` trains with the study's seeds plus `1000 r`, so
that no two splits share the luck of a seed, and a seed names its repetition."""


def get_repetition(seed: int) -> int:
    """Return the split or search that a seed belongs to, in a study that has several."""
    return seed // SEEDS_PER_REPETITION


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, such as `derive_seed(3, "order", epoch)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    # A hash, not an offset: neighboring seeds give unrelated streams. 63 bits fit every signed 64-bit seed.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
