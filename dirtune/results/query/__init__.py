"""SQL over the results tables, and the formats of an answer."""
