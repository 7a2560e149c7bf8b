"""Pages of `dirtune serve` on a study of many trials: seconds of the first and the second request, and memory of the server.

    python benchmarks/serve.py [--trials 10000] [--predicted 200] [--samples 2000] [--keep FOLDER]

The study is that of `benchmarks/results.py`: ten arms, 40 settings and 48 rows of metrics per trial, predictions for some. The server is
the command in a process of its own. The first page includes its start; the first request of a page includes what is imported for it, and
the second one shows what is kept while no record changes.

    --trials, --predicted, --samples    size of the study: trials, trials with predictions, and samples of each
    --keep FOLDER                       write the study there and keep it; an existing one is used
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from results import STUDY, write_store
from rich.console import Console
from rich.table import Table

from dirtune.io.storage import Storage
from dirtune.results.records.compaction import compact_if_outdated

PAGES = {
    "studies": "/",
    "progress": f"/study/{STUDY}",
    "trials": f"/study/{STUDY}/trials",
    "one trial": f"/study/{STUDY}/trials/{7:016x}",
    "table": f"/study/{STUDY}/table?metric=mae",
    "figure": f"/study/{STUDY}/figures?kind=regions",
    "SQL": "/sql?sql=select+arm,+count(*)+from+trials+group+by+all",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--predicted", type=int, default=200)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        if not (root / STUDY / "study.json").exists():
            write_store(root, options.trials, min(options.predicted, options.trials), options.samples)
        compact_if_outdated(Storage.open(root / STUDY))
        Console(width=100).print(measure(root, options.trials))


def measure(root: Path, trials: int) -> Table:
    """Request every page twice from a server of its own."""
    table = Table("page", "first [s]", "second [s]", "size [kB]", title=f"{trials:,} trials")
    started = time.perf_counter()
    command = [sys.executable, "-u", "-m", "dirtune.cli", "serve", "--results", str(root), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        # The address may be longer than a line of a terminal.
        text = server.stdout.readline()
        while (found := re.search(r"(http://[\w.:]+)/\?token=([\w-]+)", text)) is None:
            text = text.strip() + server.stdout.readline()
        with httpx2.Client(base_url=found[1], timeout=600, follow_redirects=True) as client:
            client.get("/", params={"token": found[2]}).raise_for_status()
            table.add_row("studies, with the start", f"{time.perf_counter() - started:.2f}", "", "")
            for name, path in PAGES.items():
                seconds = []
                for _ in range(2):
                    asked = time.perf_counter()
                    answer = client.get(path).raise_for_status()
                    seconds.append(time.perf_counter() - asked)
                table.add_row(name, *(f"{each:.2f}" for each in seconds), f"{len(answer.content) / 1000:.0f}")
        status = Path(f"/proc/{server.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1e6
        table.caption = f"the server has used at most {peak:.2f} GB of memory"
    finally:
        server.terminate()
        server.wait()
    return table


if __name__ == "__main__":
    main()
