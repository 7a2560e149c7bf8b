"""Analysis that tables and figures are computed from: arms, selection, searches, curves, recomputed metrics."""
