"""Execution of trials with Ray: driver, Tune run, resident workers, failures."""
