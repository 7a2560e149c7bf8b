"""Rendering of results tables: terminal, Markdown, LaTeX, HTML, CSV, JSON.

`grids` arranges the numbers as grids of texts, `cells` formats single ones and `footer` the notes; `formats` dispatches to
`latex`, `html` and `flat` (CSV and JSON).
"""
