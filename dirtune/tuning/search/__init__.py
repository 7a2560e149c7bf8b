"""Which trial runs next: queue, search of an arm, samplers, warm start."""
