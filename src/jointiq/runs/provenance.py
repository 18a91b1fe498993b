"""Where numbers come from: command line, git revision, versions of the packages."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from jointiq.configs import ROOT

_PACKAGES = ("torch", "lightning", "compressai", "hydra-core", "omegaconf", "numpy", "torchvision", "pytorch-msssim")


def provenance() -> dict[str, Any]:
    """Command line, git revision and package versions of this process."""
    return {
        "command": ["python", "-m", "src.train", *sys.argv[1:]],
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> dict[str, Any]:
    """Commit of the source tree and whether it has uncommitted changes; nulls outside a git repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    changes = None if revision is None else git("status", "--porcelain")
    return {"revision": revision, "uncommitted_changes": None if changes is None else bool(changes)}
