"""The data sets that dirtune can ingest: one module each, and one line here.

A pipeline module has `class Options(Frozen)`, the settings that change what is ingested, and
`ingest(storage, raw, options) -> Manifest`, which reads the raw files and calls `dirtune.data.store.write_dataset`.
The package stands beside `dirtune`, not inside it: the library offers components, a pipeline knows one data set.
"""

PIPELINES = {
    "digits": "8x8 handwritten digits, rotated; the label is the angle (embedded, no raw files)",
    "operator": "random smooth functions; the label is the antiderivative at a point (synthetic, no raw files)",
    "sts_b": "STS-B-DIR: sentence pairs and their similarity, 0..5 (raw: train_new.tsv, dev_new.tsv, test_new.tsv)",
}
