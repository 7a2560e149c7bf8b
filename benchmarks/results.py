"""Reading a store of many trials: dirtune before and after compaction, against pandas over the same files.

    python benchmarks/results.py [--trials 100000] [--predicted 10000] [--samples 2000] [--repeats 3] [--compacted]
        [--alone] [--keep FOLDER]

A synthetic study: ten arms, 40 settings and 48 rows of metrics per trial, and predictions of a test split for some trials.
The pandas forms read every file with `read_parquet` and the required columns, and after compaction the two compacted files.
Both must give the same number. Predictions are not compacted. Times are the best of several runs, with files in the page
cache and after imports, and CPU times, which other work on the machine changes less; a case that has taken a minute is not
repeated. The last case is the command including its start, and has no pandas form.

    --trials, --predicted, --samples    size of the store: trials, trials with predictions, and samples of each
    --repeats       maximum number of runs of each case
    --compacted     only after compaction
    --alone         without pandas, which takes a quarter of an hour for the files of 100,000 trials
    --keep FOLDER   write the store there and keep it; an existing one is used, and compacted again

Disk: 20 kB per trial, and 40 kB per 2,000 predictions, in the folder for temporary files (TMPDIR), removed at the end. Files
are not flushed. Before compaction every trial costs pandas milliseconds per table and form, and dirtune a tenth of it. Both read
in batches, so that memory is that of the results: 0.4 GiB at a hundredth of the size.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

import dirtune.results
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.metrics import REGIONS
from dirtune.results.query.query import query
from dirtune.results.records.compaction import compact
from dirtune.results.records.schema import SplitPredictions, TrialRecord
from dirtune.results.records.store import write_record

ARMS, SETTINGS, METRICS = 10, 40, ("mae", "rmse", "gmean")
STUDY, FINGERPRINT = "synthetic", "synthetic".ljust(16, "0")
SAME = 1e-9
"""Relative tolerance of the two numbers."""
BATCH = 1_000
"""Frames in memory at a time: 100,000 of them would take more memory than their rows."""
LONG = 60.0
"""Seconds after which a case is not repeated."""


class Unflushed(Storage):
    """A folder whose files are not flushed to the disk, which would take most of the time of writing that many files."""

    def write(self, name: str, content: bytes) -> None:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass(frozen=True)
class Case:
    """The same query with dirtune and with pandas; each result is one number."""

    name: str
    dirtune: Callable[[Path], float]
    pandas: Callable[[Path, bool], float] | None = None
    """Takes the root, and True to read the compacted files."""
    is_compacted: bool = True
    """True if compaction changes the files that it reads."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--predicted", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compacted", action="store_true")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        if not (root / STUDY / "study.json").exists():
            write_store(root, options.trials, min(options.predicted, options.trials), options.samples)
        Console(width=100).print(
            measure_all(root, options.repeats, only_compacted=options.compacted, alone=options.alone)
        )


def write_store(root: Path, trials: int, predicted: int, samples: int) -> None:
    """Write the store; the first trials have predictions."""
    storage = Unflushed.open(root / STUDY)
    random = np.random.default_rng(0)
    ids = [f"sample-{number}" for number in range(samples)]
    labels = random.uniform(0, 100, samples)
    for number in range(trials):
        predicted_labels = labels + random.normal(0, 5, samples) if number < predicted else None
        of_test = (
            {}
            if predicted_labels is None
            else {"test": SplitPredictions(sample_ids=ids, labels=labels, predictions=predicted_labels)}
        )
        write_record(storage, make_record(number, random, of_test))
    storage.write(MANIFEST, make_manifest().model_dump_json().encode())
    # Written last, so that its existence means that the store is complete.
    storage.write("study.json", b'{"reference": "arm-0"}')


def make_manifest() -> Manifest:
    """A data set of 100 bins, a long tail of training samples, so that tables compare arms in every shot region."""
    counts = tuple(int(500 * 0.95**position) for position in range(100))
    return Manifest(
        name=STUDY,
        inputs={},
        label=LabelSpec(name="label", unit="", low=0.0, high=100.0, bin_width=1.0, num_bins=100),
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={"train": SplitInfo(files=("a",), rows=sum(counts), bin_counts=counts)},
        content_hash=FINGERPRINT.ljust(64, "0"),
        split_fingerprint="1" * 64,
    )


def make_record(number: int, random: np.random.Generator, predictions: dict[str, SplitPredictions]) -> TrialRecord:
    arm, error = number % ARMS, float(random.gamma(9.0))
    metrics = [
        {
            "split": split,
            "selection": epoch,
            "region": region,
            "metric": metric,
            "value": error * (1 + at / 10),
            "n": 100,
        }
        for split in ("val", "test")
        for epoch in ("best_val", "last")
        for region in REGIONS
        for at, metric in enumerate(METRICS)
    ]
    return TrialRecord(
        trial={
            "study": STUDY,
            "arm": f"arm-{arm}",
            "cell": "{}",
            "trial_id": f"{number:016x}",
            "seed": number // ARMS,
            "role": "evaluation",
            "replicate": number // ARMS,
            "status": "complete",
            "objective": error,
            "data_fingerprint": FINGERPRINT,
        },
        config={f"setting_{at}": float(random.normal()) for at in range(SETTINGS)},
        metrics=metrics,
        predictions=predictions,
    )


def measure_all(root: Path, repeats: int, *, only_compacted: bool, alone: bool) -> Table:
    Storage.open(root / STUDY).remove("results/compacted")
    trials = len([*(root / STUDY / "results/trials").iterdir()])
    table = Table(title=f"{trials:,} trials: seconds, best of {repeats}")
    for heading in ("question", "files", "dirtune", "CPU", "pandas", "CPU", "CPU: pandas / dirtune"):
        table.add_column(heading, justify="left" if heading in {"question", "files"} else "right")
    for after in (True,) if only_compacted else (False, True):
        if after:
            started = time.perf_counter()
            compact(Storage.open(root / STUDY))
            table.add_row("compact", "all", f"{time.perf_counter() - started:.2f}", "-", "-", "-", "-")
        for case in CASES:
            if case.is_compacted or not after:
                files = "compacted" if after else "one per trial"
                table.add_row(case.name, files, *measure_case(case, root, after, repeats, alone=alone))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table.caption = f"at most {peak:.1f} GiB of memory in this process"
    return table


def measure_case(case: Case, root: Path, after: bool, repeats: int, *, alone: bool) -> tuple[str, ...]:
    ours, our_cpu, answer = measure_best(lambda: case.dirtune(root), repeats)
    if case.pandas is None or alone:
        return f"{ours:.2f}", f"{our_cpu:.2f}", "-", "-", "-"
    pandas = case.pandas
    theirs, their_cpu, expected = measure_best(lambda: pandas(root, after), repeats)
    if not math.isclose(answer, expected, rel_tol=SAME):
        raise SystemExit(f"{case.name}: dirtune has {answer}, pandas {expected}")
    return (
        f"{ours:.2f}",
        f"{our_cpu:.2f}",
        f"{theirs:.2f}",
        f"{their_cpu:.2f}",
        f"{their_cpu / our_cpu:.1f}" if our_cpu else "-",
    )


def measure_best(call: Callable[[], float], repeats: int) -> tuple[float, float, float]:
    """Return the shortest time, the shortest CPU time with that of child processes, and the result."""
    times: list[float] = []
    cpu_times: list[float] = []
    while len(times) < repeats and sum(times) < LONG:
        before, started = os.times(), time.perf_counter()
        answer = call()
        times.append(time.perf_counter() - started)
        cpu_times.append(sum(os.times()[:4]) - sum(before[:4]))
    return min(times), min(cpu_times), answer


def read_frame(root: Path, table: str, compacted: bool, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table with pandas."""
    folder = root / STUDY / "results"
    if compacted:
        return pd.read_parquet(folder / "compacted" / f"{table}.parquet", columns=columns)
    files = sorted((folder / table).glob("*.parquet"))
    batches = (files[start : start + BATCH] for start in range(0, len(files), BATCH))
    return pd.concat(pd.concat([pd.read_parquet(file, columns=columns) for file in batch]) for batch in batches)


def open_trials(root: Path) -> float:
    return float(dirtune.results.open(root).trials["config.setting_7"].sum())


def open_with_pandas(root: Path, compacted: bool) -> float:
    return float(read_frame(root, "trials", compacted)["config.setting_7"].sum())


def query_wide(root: Path) -> float:
    return float(query("from results", root).column("test.few.rmse").to_numpy().sum())


def query_wide_with_pandas(root: Path, compacted: bool) -> float:
    metrics = read_frame(root, "metrics", compacted).query("selection == 'best_val'")
    numbers = metrics.pivot_table(index="trial_id", columns=["split", "region", "metric"], values="value")
    numbers.columns = [".".join(key) for key in numbers.columns]
    joined = read_frame(root, "trials", compacted).join(numbers, on="trial_id")
    return float(joined["test.few.rmse"].sum())


def group_by_arm(root: Path) -> float:
    sql = (
        "select arm, avg(value) as error from metrics join trials using (trial_id) where split = 'test' "
        "and selection = 'best_val' and region = 'few' and metric = 'mae' group by arm"
    )
    return float(query(sql, root).column("error").to_numpy().sum())


def group_with_pandas(root: Path, compacted: bool) -> float:
    metrics = read_frame(root, "metrics", compacted).query(
        "split == 'test' and selection == 'best_val' and region == 'few' and metric == 'mae'"
    )
    trials = read_frame(root, "trials", compacted, ["trial_id", "arm"])
    joined = metrics.merge(trials, on="trial_id")
    return float(joined.groupby("arm")["value"].mean().sum())


def recompute_metric(root: Path) -> float:
    sql = "select trial_id, avg(abs(prediction - label)) as mae from predictions where label > 40 group by trial_id"
    return float(query(sql, root).column("mae").to_numpy().sum())


def recompute_with_pandas(root: Path, compacted: bool) -> float:
    columns = ["trial_id", "label", "prediction"]
    found = read_frame(root, "predictions", compacted, columns).query("label > 40")
    errors = (found["prediction"] - found["label"]).abs()
    return float(errors.groupby(found["trial_id"]).mean().sum())


def run_command(root: Path) -> float:
    arguments = ["table", STUDY, "--results", str(root)]
    subprocess.run([sys.executable, "-m", "dirtune.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
    return 0.0


CASES = (
    Case("open, and the table of trials", open_trials, open_with_pandas),
    Case("wide table", query_wide, query_wide_with_pandas),
    Case("error by arm", group_by_arm, group_with_pandas),
    Case("a metric from predictions", recompute_metric, recompute_with_pandas, is_compacted=False),
    Case("dirtune table, the command", run_command),
)


if __name__ == "__main__":
    main()
