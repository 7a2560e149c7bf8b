"""Token that Ray's ports require, in a file of the user."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

DEFAULT_TOKEN_PATH = "~/.ray/auth_token"


def prepare_token(file: Path) -> None:
    """Make the file of the token of local sessions private; create it, unless the environment chooses another way."""
    # Another user's file, or a folder that cannot be written: Ray says so
    with suppress(OSError):
        if not file.exists() and not any(name.startswith("RAY_AUTH_") for name in os.environ):
            file.parent.mkdir(parents=True, exist_ok=True)
            # Private before it has any content
            file.touch(mode=0o600, exist_ok=False)
            file.write_text(secrets.token_hex(32))
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
