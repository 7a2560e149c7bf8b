"""Data sets: splits, ingest, store on disk, blocks in the object store, batches on the device, and views."""
