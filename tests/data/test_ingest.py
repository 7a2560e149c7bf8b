from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dirtune.data.ingest import Inspection, ingest, inspect, pipeline
from dirtune.errors import InputError
from dirtune.frozen import Frozen
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.storage import Storage
from pipelines import PIPELINES

MANIFEST = Manifest(
    name="ages",
    inputs={"image": InputSpec(kind="image", shape=(3, 8, 8))},
    label=LabelSpec(name="age", unit="years", low=0, high=4, bin_width=1, num_bins=4),
    shot_rules={"counts": ShotRule(), "listed": ShotRule(many_bins=(3,), medium_bins=(0,))},
    default_shot_rule="counts",
    splits={
        "train": SplitInfo(files=("version-0/train/a.parquet",), rows=132, bin_counts=(1, 101, 30, 0)),
        "test": SplitInfo(files=("version-0/test/a.parquet",), rows=10, bin_counts=(1, 2, 3, 4)),
    },
    content_hash="0123456789abcdef" * 4,
    split_fingerprint="f" * 64,
    notes=("two look alike",),
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Storage.at(tmp_path).write("ages/manifest.json", MANIFEST.model_dump_json().encode())
    return tmp_path


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_listed_pipeline_loads_and_has_options(name: str) -> None:
    module = pipeline(name)
    assert issubclass(module.Options, Frozen)
    assert callable(module.ingest)


def test_an_unknown_data_set_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown name, got 'digit'; known: agedb, digits, "):
        ingest("digit", root=tmp_path)


def test_a_download_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sts_b: raw: a download needs the folder to fill"):
        ingest("sts_b", root=tmp_path, download=True)


def test_a_module_that_is_no_listed_pipeline_is_not_loaded() -> None:
    with pytest.raises(InputError, match="unknown name"):
        pipeline("sentence_features")


def test_an_unknown_option_lists_the_known_ones_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ingest("digits", root=tmp_path, options={"sead": 1, "seed": "one"})
    unknown, wrong = sorted(caught.value.faults, key=lambda fault: fault.rule != "unknown key")
    assert str(unknown).startswith("options of digits: sead: unknown key, got 'sead'; known: seed")
    assert (wrong.key, wrong.got) == ("seed", "one")


def test_samples_are_counted_by_shot_region(root: Path) -> None:
    seen = inspect("ages", root=root)
    assert list(seen.regions) == ["few", "many", "medium", "few"]
    assert [seen.bins(region) for region in ("many", "medium", "few")] == [1, 1, 2]
    assert [seen.samples("train", region) for region in ("many", "medium", "few")] == [101, 30, 1]
    assert [seen.samples("test", region) for region in ("many", "medium", "few")] == [2, 3, 5]


def test_another_shot_rule_sorts_the_same_bins_anew(root: Path) -> None:
    seen = inspect("ages", root=root, shot_rule="listed")
    assert list(seen.regions) == ["medium", "few", "few", "many"]
    with pytest.raises(InputError, match="unknown shot rule, got 'list'; known: counts, listed"):
        inspect("ages", root=root, shot_rule="list")


def test_a_data_set_that_is_not_ingested_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"not ingested \(`dirtune ingest agedb` does it\)"):
        inspect("agedb", root=root)


def test_the_inspection_shows_counts_histogram_and_notes(root: Path) -> None:
    lines = str(inspect("ages", root=root)).splitlines()
    assert lines == [
        "ages: content 0123456789abcdef, split ffffffffffffffff",
        "inputs: image (image 3x8x8)",
        "label: age [years], 0..4, 4 bins of 1",
        "shot rule: counts (known: counts, listed)",
        "",
        "region      bins     train      test",
        "many           1       101         2",
        "medium         1        30         3",
        "few            2         1         5",
        "all            4       132        10",
        "",
        "training samples per bin, the tallest bar 101; M many, m medium, . few",
        "       0 ▁█▃ ",
        "         .Mm.",
        "note: two look alike",
    ]


def test_the_histogram_breaks_after_sixty_bins() -> None:
    label = LabelSpec(name="angle", unit="degrees", low=-60, high=60, bin_width=1, num_bins=120)
    splits = {"train": SplitInfo(files=("v/a",), rows=120, bin_counts=(1,) * 120)}
    manifest = MANIFEST.model_copy(update={"label": label, "splits": splits})
    seen = Inspection(manifest=manifest, shot_rule="counts", regions=np.full(120, "few"))
    lines = str(seen).splitlines()
    assert f"     -60 {'█' * 60}" in lines
    assert f"       0 {'█' * 60}" in lines


def test_inspecting_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys, dirtune.data.ingest; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings(r"ignore:.use_\w+. is deprecated:DeprecationWarning:ray.data.context")
def test_ingesting_again_changes_nothing_and_says_so(tmp_path: Path) -> None:
    import ray

    said: list[str] = []
    first = ingest("digits", root=tmp_path, say=said.append)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in files]
    assert ingest("digits", root=tmp_path, say=said.append) == first
    assert [path.stat().st_mtime_ns for path in files] == times
    assert said == [
        f"digits: ingested; 6,609 samples, content {first.fingerprint}",
        "digits: unchanged, already ingested from the same request; 6,609 samples, "
        f"content {first.fingerprint}",
    ]
    assert ray.is_initialized()  # the session was here before, so it stays


@pytest.mark.ray
def test_without_a_running_ray_one_is_started_and_shut_down(tmp_path: Path) -> None:
    code = (
        "import sys, ray; from dirtune.data.ingest import ingest; "
        "ingest('digits', root=sys.argv[1]); sys.exit(ray.is_initialized())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits: ingested; 6,609 samples, content ")
