"""One flipped bit in each kind of file: it is found, or nothing that is read from the file changes.

Run: `.venv/bin/python benchmarks/bit_flips.py [--flips 400] [--seed 0] [--json FILE]`

A small study with a search is swept (`inline_sweeps.py`), and stopped once in the middle of a trial for the files of a running
one. Of every file, single bits are flipped at random places, and the file is read as dirtune reads it:

    refused     one sentence names the file (for files of a running trial and caches: they count as missing, and are made again)
    harmless    what is read is equal, such as after a flip in a space, or in the header of a page that is not needed
    different   something else is read, without a word: counts as a failure

Printed: a line per kind of file; the exit code is 1 if a flip went unnoticed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from faults import NAME, SEARCH, STUDY
from inline_sweeps import DATASET, run_command, write_dataset

from dirtune.data.blocks import read_without_ray
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.results.analysis.recompute import read_stored_manifest
from dirtune.results.records.compaction import compact
from dirtune.results.records.parquetfile import read_files
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import read_provenance, read_study
from dirtune.training import checkpoint, kept_model, trial
from dirtune.tuning.folder import optuna_storage
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.records import read_recorded_trials
from dirtune.tuning.plan.checks import open_study_folder

CPU = torch.device("cpu")
BUDGET = MemoryBudget(device_bytes=2**24, host_bytes=2**24)


@dataclass(frozen=True)
class Kind:
    """A kind of file, and how it is read."""

    files: list[Path]
    read: Callable[[Path], object]
    """Returns what is comparable by `repr`."""
    is_optional: bool = False
    """True if a damaged file counts as missing."""


def make_kinds(root: Path) -> dict[str, Kind]:
    """Sweep a study below `root`, and return the kinds of its files."""
    write_dataset(root / "data")
    study = root / f"{NAME}.yaml"
    study.write_text(yaml.safe_dump({**STUDY, **SEARCH}, sort_keys=False))
    results, stopped = root / "results", root / "stopped"
    for folder, prepare in ((results, lambda: None), (stopped, _die_after_an_epoch)):
        command = ["sweep", str(study), "--data", str(root / "data"), "--results", str(folder)]
        run_command(command, root / "log", prepare)
    folder, data = Storage.open(results / NAME), Storage.open(root / "data")
    compact(folder)
    records = {
        table: Kind(
            sorted((results / NAME / "results" / table).glob("*.parquet")), lambda file: _read_table(folder, file)
        )
        for table in TABLES
    }
    own, home = results / NAME, root / "data" / DATASET
    begun = next((stopped / NAME / "trials").glob("*/progress.json")).parent
    begun_study, begun_id = Storage.open(stopped / NAME), begun.name
    return {
        **{name: kind for name, kind in records.items() if kind.files},
        "compacted": Kind(
            sorted((own / "results/compacted").glob("*.parquet")),
            lambda file: _sort(read_table(folder, file.stem).to_pylist()),
        ),
        "groups.parquet": Kind([own / "groups.parquet"], lambda file: read_files(folder, [file.name])[0].to_pylist()),
        "study.json": Kind(
            [own / "study.json"], lambda file: (read_study(folder), read_json_object(folder, file.name))
        ),
        "study.yaml": Kind([own / "study.yaml"], lambda file: _read_trials(file, root)),
        "selected.json": Kind([own / "selected.json"], lambda file: read_study(folder).plans),
        "manifest copy": Kind([own / "manifest.json"], lambda file: read_stored_manifest(folder)),
        "provenance.json": Kind([own / "provenance.json"], lambda file: read_provenance(folder)),
        "config.json": Kind(
            sorted(own.glob("trials/*/config.json")),
            lambda file: read_json_object(Storage.open(file.parent), file.name),
        ),
        "progress.json": Kind(
            [begun / "progress.json"], lambda file: trial.read_progress(begun_study, begun_id), is_optional=True
        ),
        "checkpoint": Kind(
            sorted((begun / checkpoint.FOLDER).glob("*.pt")),
            lambda file: _to_plain(checkpoint.load_checkpoint(Storage.open(begun))),
            is_optional=True,
        ),
        "optuna.log": Kind([own / "optuna.log"], lambda file: _read_searches(study, root)),
        "data manifest": Kind([home / "manifest.json"], lambda file: read_manifest(data, DATASET)),
        "kept model": Kind(
            sorted(own.glob("models/*/model.safetensors")), lambda file: _read_model(folder, file.parent.name)
        ),
        "shards": Kind(sorted(home.glob("version-1/*/*.parquet")), lambda file: _read_data(data)),
    }


def _die_after_an_epoch() -> None:
    begin, written = trial.TrialRun.begin_checkpoint, []

    def write_once(run: trial.TrialRun) -> None:
        begin(run)
        run.wait_for_checkpoint()
        written.append(run)
        if len(written) == 2:
            raise SystemExit(1)

    trial.TrialRun.begin_checkpoint = write_once  # type: ignore[method-assign]


def _read_table(folder: Storage, file: Path) -> object:
    name = f"results/{file.parent.name}/{file.name}"
    return [table.to_pylist() for table in read_files(folder, [name])]


def _sort(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


def _read_trials(file: Path, root: Path) -> object:
    text = file.read_bytes()
    folder = open_study_folder(text.decode(errors="replace"), str(file), data=root / "data", results=file.parent.parent)
    # As `resume` does
    if folder.study.name != file.parent.name:
        raise InputError(Fault(where=str(file), rule="another name"))
    folder.check_text()
    plain = folder.to_plain()
    return {key: plain[key] for key in plain if key not in {"question", "description"}}


def _read_searches(study: Path, root: Path) -> object:
    """Return the ended trials of all searches as a resumed sweep has them."""
    folder = open_study_folder(study.read_text(), str(study), data=root / "data", results=root / "results")
    maker = JobMaker(study=folder.study, fingerprint=folder.manifest.fingerprint)
    with folder.open_journal() as journal:
        optuna_storage.restore_searches(folder.storage, maker, journal, read_recorded_trials(folder.storage))
        return {
            plan.name: sorted(
                (
                    trial.user_attrs[optuna_storage.TRIAL_ID],
                    trial.state.name,
                    trial.values,
                    sorted(trial.params.items()),
                )
                for trial in optuna_storage.open_search(folder.study, plan, journal).get_trials(deepcopy=False)
                if trial.state.is_finished() and optuna_storage.TRIAL_ID in trial.user_attrs
            )
            for plan in folder.study.searches
        }


def _read_model(folder: Storage, trial_id: str) -> object:
    model = kept_model.read_model(folder, trial_id)
    return (model.config, model.workers, _to_plain(model.regressor.state_dict()))


def _read_data(data: Storage) -> object:
    splits = read_without_ray(data, read_manifest(data, DATASET), CPU, BUDGET).splits
    found = {}
    for name, split in splits.items():
        (inputs,) = split.read([torch.arange(len(split))])
        values = {key: value.numpy().tobytes() for key, value in inputs.items()}
        found[name] = (split.sample_ids, split.exact_labels.tobytes(), split.labels.tolist(), values)
    return found


def _to_plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.tolist())
    if isinstance(value, dict):
        return {key: _to_plain(inner) for key, inner in value.items()}
    return [_to_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def count_outcomes(kind: Kind, flips: int, drawn: random.Random) -> tuple[Counter[str], list[str]]:
    """Flip bits of the files of a kind, one at a time; return the outcomes, and the places of flips without a word."""
    contents = {file: file.read_bytes() for file in kind.files}
    expected = {file: repr(kind.read(file)) for file in kind.files}
    outcomes, unnoticed = Counter[str](), []
    for _ in range(flips):
        file = drawn.choice(kind.files)
        changed = bytearray(contents[file])
        at = drawn.randrange(8 * len(changed))
        changed[at // 8] ^= 1 << at % 8
        file.write_bytes(changed)
        try:
            found = repr(kind.read(file))
        except InputError:
            outcomes["refused"] += 1
        else:
            if found == expected[file]:
                outcomes["harmless"] += 1
            elif kind.is_optional and found == "None":
                outcomes["refused"] += 1
            else:
                outcomes["different"] += 1
                unnoticed.append(f"{file.name}, bit {at}")
        finally:
            file.write_bytes(contents[file])
    return outcomes, unnoticed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=400, help="flipped bits of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", help="kinds of files; default: all")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dirtune-bits-") as scratch:
        kinds = make_kinds(Path(scratch))
        print(f"{'kind of file':<16} {'files':>5} {'flips':>5} {'refused':>8} {'harmless':>9} {'different':>10}")
        for name in options.kinds or kinds:
            outcomes, unnoticed = count_outcomes(kinds[name], options.flips, random.Random(f"{options.seed}/{name}"))
            counts = [outcomes[each] for each in ("refused", "harmless", "different")]
            results[name] = dict(zip(("refused", "harmless", "different"), counts, strict=True))
            refused, harmless, different = counts
            files = len(kinds[name].files)
            print(f"{name:<16} {files:>5} {options.flips:>5} {refused:>8} {harmless:>9} {different:>10}", flush=True)
            for place in unnoticed[:5]:
                print(f"    different: {place}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))
    sys.exit(1 if any(each["different"] for each in results.values()) else 0)


if __name__ == "__main__":
    main()
