"""`python -m dirtune.cli`."""

from dirtune.cli import main

main()
