"""`python -m dirtune.cli`."""

from dirtune.cli import run

run()
