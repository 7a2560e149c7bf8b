"""Paired randomness: every random stream is derived from (seed, purpose) and nothing else.

Two arms with one seed draw the same samples in the same order from the same initial weights, because no stream depends on
what another stream, or another arm, has consumed. Each epoch has streams of its own, so that a resumed run needs no saved
generator state.
"""

import hashlib

SEED_LIMIT = 2**63
"""Seeds are below this number, which is the limit of 64 bits with a sign in the records."""


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, such as `derive_seed(3, "order", epoch)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    # A hash, not an offset: neighboring seeds give unrelated streams. 63 bits fit every signed 64-bit seed.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
