"""The command line: parse, call one public function, print.

Heavy imports happen inside the verb that needs them, so that `--help` answers at once and reading results loads neither
torch nor Ray. What the user can mend is one message and exit code 2, never a traceback.
"""

from __future__ import annotations

import sys

from dirtune.cli import cluster, data, results, studies
from dirtune.cli.app import app

__all__ = ["app", "cluster", "data", "main", "results", "studies"]


def main() -> None:
    """Run the command line; the user's mistakes end with exit code 2 and without a traceback."""
    from dirtune.errors import InputError
    from dirtune.io.storage import remove_credentials

    try:
        app()
    # A place that cannot be reached, read or written names itself.
    except (InputError, OSError) as error:
        print(f"dirtune: {remove_credentials(str(error))}", file=sys.stderr)
        sys.exit(2)
