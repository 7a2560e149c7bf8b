"""The study folder: everything of a sweep that survives a kill."""
