"""The application that the commands register with, the options that several of them share, and printing."""

import contextlib
import errno
import io
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dirtune.errors import Fault, InputError, escape_control_characters

# The groups of `dirtune --help`
DATA, STUDIES, RESULTS, CLUSTERS = "Data", "Studies", "Results", "Clusters"
ORDER = (
    *("init", "recommend", "ingest", "inspect"),
    *("list", "schema", "plan", "train", "sweep", "resume", "status", "stop"),
    *("check", "table", "plot", "intervals", "report", "query", "predict", "export", "compact", "log", "serve"),
    *("doctor", "submit"),
)


class _Commands(TyperGroup):
    """The commands in the order in which a person needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in this order; one that the order does not have comes last."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="dirtune",
    cls=_Commands,
    no_args_is_help=True,
    # Internal errors have Python's own traceback; the pretty one shows local variables, which may hold credentials.
    pretty_exceptions_enable=False,
)


def check_root(param: typer.CallbackParam, root: str | None) -> str | None:
    """Raise InputError if the root of an option is empty, which as a path would be the current directory."""
    if root == "":
        raise InputError(Fault(where=param.opts[0], rule="must not be empty"))
    return root


DataRoot = Annotated[
    str, typer.Option("--data", help="Root of the ingested data sets: a path or URL.", callback=check_root)
]
ResultsRoot = Annotated[str, typer.Option("--results", help="Root of the results: a path or URL.", callback=check_root)]
StudyName = Annotated[str, typer.Argument(help="A study file, or the name of a shipped study.")]


def _get_sweep_name(study: str) -> str:
    # Files are told by their suffix alone: a file that is called as a study hides no results.
    if not study.endswith((".yaml", ".yml")):
        return study
    from dirtune.study.files import get_study_name

    return get_study_name(study)


def get_sweep_names(studies: list[str] | None) -> list[str] | None:
    """Return the names of studies that are given by name or by file; None if none is given."""
    return studies and [_get_sweep_name(study) for study in studies]


SweepName = Annotated[
    str, typer.Argument(help="Name of a study in the results, or its file.", callback=_get_sweep_name)
]
Expect = Annotated[
    str | None,
    typer.Option(help="cluster.yaml as for `ray up`: also count the nodes that its autoscaler may start."),
]
PluginFiles = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="A Python file with losses, terms, encoders or metrics of your own. Repeatable."),
]
AllowPlugins = Annotated[
    bool,
    typer.Option(
        "--allow-plugins",
        help="Run the code of plug-ins of a study from elsewhere, or of those that a sweep has recorded.",
    ),
]


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"dirtune {version('dirtune')}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Ablation sweeps for deep imbalanced regression."""


def show(*renderables: Any) -> None:
    """Print texts and tables at the width of the terminal."""
    console = make_console()
    for renderable in renderables:
        # Names given by users may contain what rich reads as markup or emoji. Texts are not folded, so that a path
        # remains one word that can be copied.
        console.print(renderable, markup=False, emoji=False, highlight=False, soft_wrap=isinstance(renderable, str))


def print_result(text: str) -> None:
    """Print text whose format must stay as it is, such as CSV; only a terminal gets control characters escaped."""
    print(escape_control_characters(text) if sys.stdout.isatty() else text)


def make_console() -> Any:
    """Return a `rich` console of standard output."""
    from dirtune.results.textgrid import WIDTH, EscapingConsole

    # A pipe has no width; rich would assume 80 columns and fold or cut what is written to it.
    return EscapingConsole() if sys.stdout.isatty() else EscapingConsole(width=WIDTH)


class _Output(io.FileIO):
    """A file whose first error is kept instead of raised; what is written after it is dropped."""

    error: OSError | None = None

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        """Write bytes and return their number, also of those that are dropped."""
        if self.error is None:
            try:
                return super().write(content)
            except OSError as error:
                self.error = error
        return len(content)


@contextlib.contextmanager
def outlive_output() -> Iterator[None]:
    """Let a command that computes go on when its output cannot be written any more, as behind `head` or on a full disk.

    A full disk is reported on standard error at the end, a reader that has gone is not.
    """
    stream = sys.stdout
    # Unbuffered, as by PYTHONUNBUFFERED, it is the file itself
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    # A test or a notebook has put another object there
    if not isinstance(raw, io.FileIO) or not isinstance(stream, io.TextIOWrapper):
        yield
        return
    output = _Output(raw.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output), encoding=stream.encoding, errors=stream.errors, line_buffering=True
    )
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = stream
        if output.error is not None and output.error.errno != errno.EPIPE:
            print(f"dirtune: output is incomplete: {output.error.strerror}", file=sys.stderr)
