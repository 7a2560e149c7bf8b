"""Provenance of results: code version, library versions, hardware."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dirtune import plugins
from dirtune.registry import Plugin

LIBRARIES = ("ray", "torch", "torchvision", "optuna", "pyarrow", "pandas", "numpy", "scikit-learn")


def get_code_version() -> str:
    """Return `<package version>+<commit>[.<hash of the sources>]`; without a checkout the package version alone.

    The hash is appended if the package's sources differ from the commit, untracked files included.
    """
    package, folder = version("dirtune"), Path(__file__).parents[1]
    # A package installed into an environment inside another project's checkout is not part of that commit.
    is_tracked = _run_git(folder, "ls-files", "--", "training/provenance.py")
    commit = _run_git(folder, "rev-parse", "--short=12", "HEAD")
    if not is_tracked or commit is None:
        return package
    is_changed = _run_git(folder, "status", "--porcelain", "--", "*.py")
    if not is_changed:
        return f"{package}+{commit}"
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        state.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return f"{package}+{commit}.{state.hexdigest()[:8]}"


def collect_provenance(used: Iterable[Plugin] = ()) -> dict[str, Any]:
    """Return the contents of a sweep's `provenance.json`.

    Args:
        used: plug-ins of the study, of which names and fingerprints are noted.
    """
    described = plugins.describe(used)
    return {
        "code_version": get_code_version(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "libraries": {name: version(name) for name in LIBRARIES},
        **({"plugins": described} if described else {}),
    }


def _run_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
