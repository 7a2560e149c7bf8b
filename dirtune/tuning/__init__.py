"""Tuning: studies, search spaces, the search, resident workers, and the sweep that drives them with Ray."""
