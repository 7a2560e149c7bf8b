"""What a study would run, its cost and its faults, before anything is spent."""
