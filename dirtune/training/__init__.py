"""Training: the loop, the total loss, ranks, checkpoints, and a trial from its start to its record. No Ray."""
