"""Addresses of the raw files of the data sets, and instructions for those that need a manual download.

Lists come from the repositories of the papers, at a fixed commit, and are checked by the SHA-256 of the copies that the
published counts were made with. Archives of images have no published hash; theirs is recorded at the first download.
"""

from dataclasses import dataclass
from pathlib import Path

from dirtune.data.downloads import RawFile, Report, download
from dirtune.errors import Fault, InputError

# Fixed commits, because a branch may change under the recorded hashes.
_YANG = "https://raw.githubusercontent.com/YyzHarry/imbalanced-regression/a6fdc45d45c04e6f5c40f43925bc66e580911084"
_CONR = "https://raw.githubusercontent.com/BorealisAI/ConR/ad6a8c90426da9243f9e1de7bb37c7429bb99256"
_UCI = "https://archive.ics.uci.edu/static/public"
_ROTHE = "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/static"


@dataclass(frozen=True, kw_only=True)
class RawData:
    """Raw files of one data set."""

    files: tuple[RawFile, ...] = ()
    by_hand: str = ""
    """Instruction for a manual download, as a sentence."""


RAW_DATA = {
    "agedb": RawData(
        files=(
            RawFile(
                name="agedb.csv",
                url=f"{_YANG}/agedb-dir/data/agedb.csv",
                sha256="ab9f8d4c7099a9d74ec5094c42b6fe9f1927a166a48d2ab800a88b2fd6081252",
            ),
        ),
        by_hand="the images need a password from their authors: ask for it at "
        "https://ibug.doc.ic.ac.uk/resources/agedb/ and unpack AgeDB.zip here, to AgeDB/",
    ),
    "imdb_wiki": RawData(
        files=(
            RawFile(name="imdb_wiki.csv", url=f"{_YANG}/imdb-wiki-dir/data/imdb_wiki.csv"),
            RawFile(name="imdb_crop.tar", url=f"{_ROTHE}/imdb_crop.tar", unpacks_to=("imdb_crop",)),
            RawFile(name="wiki_crop.tar", url=f"{_ROTHE}/wiki_crop.tar", unpacks_to=("wiki_crop",)),
        )
    ),
    "sts_b": RawData(
        files=tuple(
            RawFile(name=name, url=f"{_YANG}/sts-b-dir/glue_data/STS-B/{name}", sha256=sha256)
            for name, sha256 in {
                "train_new.tsv": "4da3322ae29f7ad1b7d03cdeafcb2480c276e5df1d08737678a7856697218a9a",
                "dev_new.tsv": "9ec12d785aa817ffe4b0f88fde442d3bf57161d8cbeaa84aaa1fdf764cca6dd6",
                "test_new.tsv": "55f90b3c5a0b2947d5ff64c41536191e9e1ba3bb5ffe64aca5465ab25fa8e94c",
            }.items()
        )
    ),
    "nyud2": RawData(
        files=(
            RawFile(name="nyu2_train.csv", url=f"{_CONR}/nyud2-dir/data/nyu2_train.csv"),
            RawFile(
                name="nyu2_test.csv",
                url=f"{_CONR}/nyud2-dir/data/nyu2_test.csv",
                sha256="633dd5b45c7f291f0bbb13011126778661c647c82d1919a1b0d7f7430e8e6eed",
            ),
            RawFile(
                name="nyu2_train_FDS_subset.csv",
                url=f"{_YANG}/nyud2-dir/data/nyu2_train_FDS_subset.csv",
                sha256="e2e00e2388db5a4a6917b7f1c4af68b5fd4012f2884acbbb810ffe8c0957f5b6",
            ),
        ),
        by_hand="the images are on Google Drive, which needs a browser: download "
        "https://drive.google.com/file/d/1WoOZOBpOWfmwe7bknWS5PMUCLBPFKTOw and unpack nyu2_train/ and nyu2_test/ here",
    ),
    "mpiigaze": RawData(
        files=(
            RawFile(
                name="MPIIGaze.tar.gz",
                url="http://datasets.d2.mpi-inf.mpg.de/MPIIGaze/MPIIGaze.tar.gz",
                unpacks_to=("MPIIGaze",),
            ),
        )
    ),
    "uci": RawData(
        files=tuple(
            RawFile(name=f"{name}.csv", url=f"{_UCI}/{number}/data.csv")
            for name, number in {"abalone": 1, "airfoil": 291, "concrete": 165, "real_estate": 477}.items()
        )
    ),
}
"""By the name of the pipeline; other data sets are synthetic or the user's own."""


def download_raw(name: str, folder: Path, *, report: Report = print) -> None:
    """Download the raw files of a data set into a folder, and report the instruction for the others.

    Raises:
        InputError: there is nothing to download for this data set, or a download failed; all downloads are tried.
    """
    if name not in RAW_DATA:
        rule = "nothing to download for this data set"
        raise InputError(Fault(where="data set", rule=rule, got=name, known=tuple(RAW_DATA)))
    # A failed download must not keep the others from being tried.
    faults: list[Fault] = []
    for file in RAW_DATA[name].files:
        try:
            download(file, folder, report=report)
        except InputError as error:
            faults += error.faults
    if RAW_DATA[name].by_hand:
        report(f"{name}: {RAW_DATA[name].by_hand} ({folder})")
    if faults:
        raise InputError(faults)
