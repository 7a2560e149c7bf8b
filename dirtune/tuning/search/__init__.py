"""Search: the queue of trials, the search of an arm, samplers, warm start. Uses Optuna and no Ray."""
