"""Files: storage behind a path or URL, YAML, and Parquet files of unknown origin."""
