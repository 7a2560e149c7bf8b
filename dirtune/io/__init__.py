"""Reading and writing files: storage behind a path or URL, YAML, Parquet of unknown origin."""
