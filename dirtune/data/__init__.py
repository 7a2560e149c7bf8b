"""Data: the store on disk, ingesting, the stream into the object store, tensors on the device, views."""
