"""The command line: parse, call one public function, print.

Heavy imports are inside the command that needs them, so that `--help` answers at once and commands on results load
neither torch nor Ray. An invalid input ends with one message and exit code 2, never with a traceback.
"""

import atexit
import gc
import io
import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import Any

from dirtune.cli import cluster, data, init, predictions, recommend, results, serve, studies
from dirtune.cli.app import app

__all__ = [
    "app",
    "cluster",
    "data",
    "init",
    "main",
    "predictions",
    "recommend",
    "results",
    "run",
    "serve",
    "studies",
]


def run() -> None:
    """Run the command line as this whole process, whose memory is left to the operating system.

    Torch and Ray make hundreds of thousands of objects that stay. Python would search them for unused ones at every 700 new
    objects, and release them one by one at exit: together a third of the time of a short command.
    """
    gc.set_threshold(100_000)
    code = 1

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)

    # Handlers run in reverse order: those that the command registers, such as Ray's, come before this one.
    atexit.register(end)
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        raise


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **further: Any) -> None:
    """Print a warning to users as one line, and any other one as Python does, with its place in the code."""
    if category is UserWarning:
        print(f"dirtune: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, *place[:2]))


def main() -> None:
    """Run the command line; an invalid input ends with exit code 2 and without a traceback."""
    from dirtune.errors import InputError, escape_control_characters, name_missing_package
    from dirtune.io.credentials import remove_credentials

    # Streams that the caller has closed; a file that is opened later must not take their place.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    # A console that cannot write a letter, such as the β of an arm's name, must not end a sweep.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    # No figure has a window; matplotlib cannot be imported with a name that it does not know.
    os.environ.pop("MPLBACKEND", None)
    try:
        os.getcwd()
    # Libraries end the process without a word of that
    except FileNotFoundError:
        print("dirtune: the current folder was removed: change to another one", file=sys.stderr)
        sys.exit(2)
    try:
        app()
    # An OSError of a file or URL that cannot be reached, read or written names it.
    except (InputError, OSError) as error:
        print(f"dirtune: {remove_credentials(escape_control_characters(str(error)))}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (sentence := name_missing_package(error)) is None:
            raise
        print(f"dirtune: {sentence}", file=sys.stderr)
        sys.exit(2)
