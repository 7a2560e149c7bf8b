"""The study folder: the state of a sweep that survives a kill."""
