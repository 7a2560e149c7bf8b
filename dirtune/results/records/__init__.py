"""The records of trials on disk: schema, Parquet files, compaction, studies of a results root."""
