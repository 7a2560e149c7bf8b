"""Output formats of a results table: terminal, Markdown, LaTeX, HTML, CSV, JSON."""
