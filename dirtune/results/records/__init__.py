"""Trial records on disk: schema, Parquet files, compaction, studies of a results root."""
