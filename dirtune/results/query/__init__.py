"""SQL queries over the results, in a sealed DuckDB."""
