"""Every operation of a sweep on its storage fails once: after `resume`, the tables must be those of an undisturbed sweep.

Run: `.venv/bin/python benchmarks/faults.py [--scenarios plain tpe ...] [--faults kill full ...] [--step 5] [--minutes 6]
[--json FILE]`

A small study is swept once without faults, and its operations are counted: listing and reading files, creating folders,
writing, flushing and renaming a file, appending to Optuna's journal, removing and moving; in an object store the requests. Then
the sweep is run again for every `--step`-th operation, in an empty folder, with a fault there:

    kill     the process gets SIGKILL; of a file that is being written, half is there
    full     the disk is full from there on
    error    this operation fails with an input/output error, the next ones succeed
    outage   every operation fails from there on
    answer   this operation succeeds, and fails for its caller, as on a network file system

Each run is followed by `resume`, or by `sweep` if nothing had been written yet, and all tables are compared bit for bit as
multisets of rows (`kills.py`). Three things count as failures: other tables, a traceback, and a sentence that calls the fault
something else, such as damage. Sweeps run in one process (`inline_sweeps.py`); the object store is an S3 server on this
machine (moto).

All operations of a scenario take an hour. With `--minutes`, the faults come in an order that spreads them evenly, and after so
many minutes the next scenario begins. What `--json` has from an earlier call of the same code is not run again.

Printed: a line per scenario and fault, and what failed; the exit code is 1 if anything did.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, get_args
from unittest import mock

import pyarrow.fs as pafs
import yaml
from inline_sweeps import DATASET, Ended, import_what_commands_need, run_command, run_in_fork, write_dataset
from kills import count_rows, find_differences

from dirtune.io import storage
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.tuning.execution import driver
from dirtune.tuning.folder import journal, lock

FaultKind = Literal["kill", "full", "error", "outage", "answer"]
NAME = "faulty"
BUCKET = "bucket"
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^\w*Error: ", re.MULTILINE)
WRONG = re.compile(r"damaged|ingest the data set again|ingested|no sweep of this study|unknown|invalid|must be")
"""Words of sentences that blame the user, the data or the files."""
STUDY: dict[str, Any] = {
    "name": NAME,
    "question": "Do the tables of a sweep depend on what its storage does?",
    "reference": "vanilla",
    "seeds": [0, 1],
    "base": {
        "data": {"name": DATASET},
        "model": {"encoder": {"name": "mlp", "hidden": [4]}, "label_scale": 1.0, "label_offset": 4.0},
        "recipe": {"epochs": 3, "batch_size": 22, "learning_rate": 0.01},
    },
    "arms": {"vanilla": {}, "conr": {"model": {"projection_dim": 4}, "terms": {"conr": {"beta": 0.1, "omega": 3.0}}}},
    "resources": {"checkpoint_seconds": 0},
}
SEARCH: dict[str, Any] = {
    "seeds": [0],
    "search": {"trials": 3, "confirm": True, "tuning_seed": 100, "sampler": "random"},
    "space": {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}},
}
TPE: dict[str, Any] = {**SEARCH, "search": {**SEARCH["search"], "sampler": "tpe", "trials": 4, "startup": 2}}
ASHA: dict[str, Any] = {
    **SEARCH,
    "search": {**SEARCH["search"], "trials": 4, "scheduler": {"name": "asha", "reduction_factor": 2}},
}
LONGER: dict[str, Any] = {
    "seeds": [0, 1, 2],
    "arms": {"vanilla": {}, "smooth": {"reweighting": {"scheme": "inverse", "lds": {}}}},
}


@dataclass(frozen=True)
class Scenario:
    """A study, those that were swept in its folder before, and whether the folder is in an object store."""

    study: Mapping[str, Any]
    earlier: Sequence[Mapping[str, Any]] = ()
    remote: bool = False


SCENARIOS = {
    "plain": Scenario({}),
    "random": Scenario(SEARCH),
    "tpe": Scenario(TPE),
    "asha": Scenario(ASHA),
    "sequential": Scenario({"sequential": {"most_seeds": 4}}),
    "extended": Scenario(LONGER, earlier=[{}]),
    "reverted": Scenario({}, earlier=[{}, LONGER]),
    "s3": Scenario({}, remote=True),
    "s3-tpe": Scenario(TPE, remote=True),
}


@dataclass
class Injector:
    """Counts the operations of this process on a folder, and lets one or more of them fail.

    Args:
        root: path of the folder inside its file system.
        kind: None to count only.
        at: number of the first operation with a fault, from 1.
    """

    root: str
    kind: FaultKind | None = None
    at: int = 0
    count: int = 0

    def is_hit(self, *, takes_space: bool) -> bool:
        """Count an operation, and return True if it must fail."""
        self.count += 1
        if self.kind is None or self.count < self.at:
            return False
        if self.kind == "full":
            return takes_space
        return self.kind == "outage" or self.count == self.at

    def fail(self, path: object) -> None:
        """Kill this process, or raise the error of the fault."""
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.ENOSPC if self.kind == "full" else errno.EIO
        raise OSError(number, os.strerror(number), str(path))

    def wrap(self, operation: Callable[..., Any], path: object, *, takes_space: bool = False) -> Callable[..., Any]:
        """Return an operation that fails if it is hit."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.is_hit(takes_space=takes_space):
                return operation(*args, **kwargs)
            if self.kind == "answer":
                operation(*args, **kwargs)
            return self.fail(path)

        return call

    def install(self) -> None:
        """Watch this process from now on."""
        opened, is_inside = Storage.open, self._is_inside

        def open_storage(location: str | Path) -> Storage:
            found = opened(location)
            local = isinstance(found.filesystem, pafs.LocalFileSystem)
            return Storage(_FaultyLocal(self) if local else _FaultyRemote(self, found.filesystem), found.root)

        storage.Storage.open = open_storage  # type: ignore[method-assign,assignment]
        mkdir, replace, open_file, fsync = Path.mkdir, Path.replace, Path.open, os.fsync

        def faulty_mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
            call = self.wrap(mkdir, path, takes_space=True) if is_inside(path) else mkdir
            call(path, *args, **kwargs)

        def faulty_replace(path: Path, target: Path) -> Path:
            call = self.wrap(replace, path) if is_inside(path) else replace
            return call(path, target)  # type: ignore[no-any-return]

        def faulty_open(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            stream = open_file(path, mode, *args, **kwargs)
            return _FaultyFile(self, stream, path) if is_inside(path) and mode in ("xb", "ab") else stream

        Path.mkdir, Path.replace, Path.open = faulty_mkdir, faulty_replace, faulty_open  # type: ignore[method-assign,assignment]
        os.fsync = self.wrap(fsync, "fsync", takes_space=True)  # type: ignore[assignment]

    def _is_inside(self, path: Path) -> bool:
        return str(path).startswith(self.root)


class _FaultyFile:
    """A file that is being written; of a write that fails, half is there."""

    def __init__(self, injector: Injector, stream: IO[bytes], path: Path) -> None:
        self._injector, self._stream, self._path = injector, stream, path

    def __enter__(self) -> _FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, content: bytes) -> int:
        if not self._injector.is_hit(takes_space=True):
            return self._stream.write(content)
        self._stream.write(content if self._injector.kind == "answer" else content[: len(content) // 2])
        self._stream.flush()
        self._injector.fail(self._path)
        return 0


_READS = ("get_file_info", "open_input_stream", "open_input_file", "delete_file", "delete_dir")


class _FaultyLocal(pafs.LocalFileSystem):
    def __init__(self, injector: Injector) -> None:
        super().__init__()
        self._injector = injector

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        return super().__getattribute__("_injector").wrap(method, name) if name in (*_READS, "move") else method


class _FaultyRemote:
    """Object store, whose requests are counted; a file appears when its stream is closed."""

    def __init__(self, injector: Injector, inner: pafs.FileSystem) -> None:
        self._injector, self._inner = injector, inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        return self._injector.wrap(method, name) if name in (*_READS, "move") else method

    @contextlib.contextmanager
    def open_output_stream(self, path: str) -> Iterator[IO[bytes]]:
        hit = self._injector.is_hit(takes_space=True)
        if hit and self._injector.kind != "answer":
            self._injector.fail(path)
        with self._inner.open_output_stream(path) as stream:
            yield stream
        if hit:
            self._injector.fail(path)


@dataclass
class Result:
    """Outcomes of the runs of one scenario with one kind of fault."""

    scenario: str
    fault: str
    operations: int
    """Operations of the undisturbed sweep."""
    runs: int = 0
    equal: int = 0
    """Runs with the tables of the undisturbed sweep, at the end."""
    ends: Counter[str] = field(default_factory=Counter)
    """How the runs with a fault ended."""
    tracebacks: int = 0
    wrong_sentences: int = 0
    failures: list[str] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    """Operations that had the fault."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Result:
        return cls(**{**plain, "ends": Counter(plain["ends"])})


Hook = Callable[[], Any]
"""Called in the process of a sweep, before or after it."""


def _do_nothing() -> None:
    """Do nothing: the default of a hook."""


@dataclass
class Campaign:
    """Sweeps with faults of one scenario after another.

    Args:
        scratch: an empty folder.
        endpoint: address of an S3 server; None if there is none.
    """

    scratch: Path
    endpoint: str | None = None
    _number: int = 0

    def __post_init__(self) -> None:
        write_dataset(self.scratch / "data")
        file = self._write_study(TPE)
        arguments = [
            "sweep",
            str(file),
            "--data",
            str(self.scratch / "data"),
            "--results",
            str(self.scratch / "warm-up"),
        ]
        import_what_commands_need(arguments, self.scratch / "log")

    def run(
        self,
        name: str,
        kinds: Sequence[FaultKind],
        *,
        step: int,
        first: int = 1,
        minutes: float = math.inf,
        earlier: Sequence[Result] = (),
        save: Callable[[Sequence[Result]], None] = lambda results: None,
    ) -> list[Result]:
        """Return a result per kind of fault, with a fault at every `step`-th operation from `first` on.

        Args:
            name: of the scenario.
            kinds: kinds of faults.
            step: distance of the operations.
            first: the first operation.
            minutes: time limit.
            earlier: results of earlier calls, which are continued.
            save: called with the results after every run.
        """
        deadline = time.monotonic() + 60 * minutes
        scenario = SCENARIOS[name]
        reference = self._make_folder(scenario)
        injector = Injector(reference.path)
        # Opened here: the operations of the sweep alone are counted
        readable, descriptor = os.pipe()
        ended = self._sweep(
            reference, scenario.study, injector.install, lambda: os.write(descriptor, str(injector.count).encode())
        )
        if ended.code:
            raise RuntimeError(f"the undisturbed sweep of {name} failed:\n{ended.output}")
        operations, expected = int(os.read(readable, 20)), reference.read_tables()
        found = {each.fault: each for each in earlier if each.scenario == name}
        results = {kind: found.get(kind, Result(name, kind, operations)) for kind in kinds}
        for at in spread(range(first, operations + 1, step)):
            for kind, result in results.items():
                if at not in result.done and time.monotonic() < deadline:
                    self._run_with_fault(scenario, kind, at, expected, result)
                    result.done.append(at)
                    save([*results.values()])
        reference.remove()
        return [*results.values()]

    def _run_with_fault(
        self, scenario: Scenario, kind: FaultKind, at: int, expected: Mapping[str, Counter[str]], result: Result
    ) -> None:
        folder = self._make_folder(scenario)
        faulty = self._sweep(folder, scenario.study, Injector(folder.path, kind, at).install)
        result.runs += 1
        result.ends[_describe_end(faulty)] += 1
        # What a first sweep must write before `resume` can find it
        again = self._resume(folder, scenario)
        found = folder.read_tables() if again.code == 0 else {}
        differences = list(find_differences(dict(expected), found)) if found else ["resume failed"]
        result.equal += not differences
        problems = [f"tables: {each}" for each in differences]
        for what, ended in (("sweep", faulty), ("resume", again)):
            if TRACEBACK.search(ended.output):
                result.tracebacks += 1
                problems.append(f"traceback of {what}")
            elif ended.code and (wrong := WRONG.search(ended.output)):
                result.wrong_sentences += 1
                problems.append(f"{what} says {wrong.group()!r}")
        if problems:
            texts = f"--- sweep ({faulty.code})\n{faulty.output}--- resume ({again.code})\n{again.output}"
            result.failures.append(f"{result.scenario}, {kind} at {at}: {'; '.join(problems)}\n{texts}")
        folder.remove()

    def _resume(self, folder: _Folder, scenario: Scenario) -> Ended:
        if not run_in_fork(lambda: Storage.open(folder.root).exists(f"{NAME}/study.yaml")) or scenario.earlier:
            return self._sweep(folder, scenario.study)
        return self._call(["resume", NAME], folder)

    def _make_folder(self, scenario: Scenario) -> _Folder:
        self._number += 1
        folder = _Folder(self.scratch / "results" / str(self._number), self.endpoint if scenario.remote else None)
        for study in scenario.earlier:
            ended = self._sweep(folder, study)
            if ended.code:
                raise RuntimeError(f"an earlier sweep failed:\n{ended.output}")
        return folder

    def _sweep(
        self, folder: _Folder, changes: Mapping[str, Any], prepare: Hook = _do_nothing, finish: Hook = _do_nothing
    ) -> Ended:
        return self._call(["sweep", str(self._write_study(changes))], folder, prepare, finish)

    def _write_study(self, changes: Mapping[str, Any]) -> Path:
        file = self.scratch / f"{NAME}.yaml"
        file.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return file

    def _call(
        self, command: Sequence[str], folder: _Folder, prepare: Hook = _do_nothing, finish: Hook = _do_nothing
    ) -> Ended:
        arguments = [*command, "--data", str(self.scratch / "data"), "--results", folder.root]

        def shorten_waits() -> None:
            storage.FIRST_BACKOFF, lock.SETTLE_SECONDS = 0.001, 0.001
            driver.RETRY_SECONDS = lock.RETRY_SECONDS = journal.RETRY_SECONDS = 0.02
            prepare()

        return run_command(arguments, self.scratch / "log", shorten_waits, finish)


@dataclass(frozen=True)
class _Folder:
    """Root of the results of one run, on disk or in the object store."""

    local: Path
    endpoint: str | None

    @property
    def root(self) -> str:
        if self.endpoint is None:
            return str(self.local)
        where = f"region=us-east-1&scheme=http&endpoint_override={self.endpoint}"
        return f"s3://key:secret@{BUCKET}/{self.local.name}?{where}"

    @property
    def path(self) -> str:
        return str(self.local) if self.endpoint is None else f"{BUCKET}/{self.local.name}"

    def read_tables(self) -> dict[str, Counter[str]]:
        def read() -> dict[str, Counter[str]]:
            folder = Storage.open(self.root).get_folder(NAME)
            return {table: count_rows(folder, table) for table in TABLES}

        return run_in_fork(read)

    def remove(self) -> None:
        shutil.rmtree(self.local, ignore_errors=True)


def spread(numbers: Sequence[int]) -> list[int]:
    """Return the numbers in an order whose beginnings are spread evenly over all of them: every 1024th, 512th, ..., every one."""
    steps = [2**power for power in range(10, -1, -1)]
    return list(dict.fromkeys(numbers[index] for step in steps for index in range(0, len(numbers), step)))


def _describe_end(ended: Ended) -> str:
    if ended.code < 0:
        return "killed"
    if ended.code == 0:
        return "absorbed"
    return "sentence" if ended.code == 2 else "trials left"


@contextlib.contextmanager
def serve_s3() -> Iterator[str]:
    """Yield the address of an S3 server in a process of its own, which a fork of this one can use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        endpoint = f"127.0.0.1:{port}"
        run_in_fork(lambda: _make_bucket(endpoint))
        yield endpoint
    finally:
        server.terminate()
        server.wait()


def _make_bucket(endpoint: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://{endpoint}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket=BUCKET)


def show(result: Result) -> None:
    """Print the line of a result, and its failures."""
    ends = ", ".join(f"{number} {end}" for end, number in sorted(result.ends.items()))
    print(
        f"{result.scenario:<11} {result.fault:<7} {result.operations:>10} {result.runs:>5} {result.equal:>6} "
        f"{result.tracebacks:>10} {result.wrong_sentences:>6}  {ends}",
        flush=True,
    )
    for failure in result.failures:
        print(failure, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--faults", nargs="+", choices=get_args(FaultKind), default=list(get_args(FaultKind)))
    parser.add_argument("--step", type=int, default=1, help="distance of the operations with a fault")
    parser.add_argument("--first", type=int, default=1, help="first operation with a fault")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time limit of each scenario")
    parser.add_argument("--json", type=Path, help="file for the results, which a further call continues")
    options = parser.parse_args()
    results: dict[tuple[str, str], Result] = {}
    if options.json is not None and options.json.exists():
        earlier = [Result.from_plain(each) for each in json.loads(options.json.read_text())]
        results = {(each.scenario, each.fault): each for each in earlier}

    def save(found: Sequence[Result]) -> None:
        results.update({(each.scenario, each.fault): each for each in found})
        if options.json is not None:
            text = json.dumps([vars(each) for each in results.values()], indent=1)
            options.json.with_suffix(".new").write_text(text)
            options.json.with_suffix(".new").replace(options.json)

    with tempfile.TemporaryDirectory(prefix="dirtune-faults-") as scratch, contextlib.ExitStack() as stack:
        # Secrets and trackers of the user's environment have no part in it
        stack.enter_context(mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}))
        needs_server = any(SCENARIOS[name].remote for name in options.scenarios)
        campaign = Campaign(Path(scratch), stack.enter_context(serve_s3()) if needs_server else None)
        columns = (
            f"{'scenario':<11} {'fault':<7} {'operations':>10} {'runs':>5} {'equal':>6} {'tracebacks':>10} {'wrong':>6}"
        )
        print(f"{columns}  how the runs with a fault ended")
        for name in options.scenarios:
            found = campaign.run(
                name,
                options.faults,
                step=options.step,
                first=options.first,
                minutes=options.minutes,
                earlier=[*results.values()],
                save=save,
            )
            for result in found:
                show(result)
    sys.exit(1 if any(each.failures for each in results.values()) else 0)


if __name__ == "__main__":
    main()
