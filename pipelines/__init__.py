"""Data sets that dirtune can ingest: one module each, and one line here.

A pipeline module has `class Options(Frozen)`, the settings of the ingest, and `ingest(storage, raw, options) -> Manifest`,
which reads the raw files and calls `dirtune.data.store.write_dataset`. Own data is ingested under the name of the option
`name`. The package is separate from `dirtune`: the library has components, a pipeline has the facts of one data set.
"""

from dirtune.registry import Registry

PIPELINES: Registry[str] = Registry(
    "pipeline",
    {
        "agedb": "AgeDB-DIR: faces and their age (raw: agedb.csv and AgeDB/*.jpg; the images need a password from their authors)",
        "digits": "8x8 handwritten digits, rotated; the label is the angle (synthetic, no raw files)",
        "images": "your own images and a label (raw: a csv, tsv or Parquet file with a column of image paths)",
        "imdb_wiki": "IMDB-WIKI-DIR: faces and their age (raw: imdb_wiki.csv, or imdb.mat and wiki.mat; imdb_crop/, wiki_crop/)",
        "mpiigaze": "MPIIGaze: eyes and their gaze, pitch and yaw (raw: the unpacked MPIIGaze.tar.gz)",
        "nyud2": "NYUD2-DIR: rooms and the depth of every pixel (raw: nyu2_train.csv, nyu2_test.csv, nyu2_train/, nyu2_test/; images by hand)",
        "operator": "random smooth functions; the label is the antiderivative at a point (synthetic, no raw files)",
        "sts_b": "STS-B-DIR: sentence pairs and their similarity, 0..5 (raw: train_new.tsv, dev_new.tsv, test_new.tsv)",
        "table": "your own table of numbers and a label (raw: a csv, tsv or Parquet file)",
        "text_pairs": "your own pairs of texts and a label (raw: a csv, tsv or Parquet file)",
        "uci": "UCI-DIR: abalone, airfoil, concrete or real estate (raw: the files of UCI, sheets as csv, or data.csv under the table's name)",
    },
)
