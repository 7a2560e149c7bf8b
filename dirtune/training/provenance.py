"""Where results come from: code version, library versions, hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("ray", "torch", "torchvision", "optuna", "pyarrow", "pandas", "numpy", "scikit-learn")


def code_version() -> str:
    """`<package version>+<commit>[.<hash of uncommitted changes>]`; without a checkout the package version alone."""
    package, folder = version("dirtune"), Path(__file__).parent
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return package
    changes = _git(folder, "diff", "HEAD", "--", str(folder))
    suffix = f".{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else ""
    return f"{package}+{commit}{suffix}"


def provenance() -> dict[str, Any]:
    """What is written into a sweep's `provenance.json`."""
    return {
        "code_version": code_version(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
