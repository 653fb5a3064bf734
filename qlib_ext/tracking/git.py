"""What git says of the code that runs; nothing outside a repository, or where git is not installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import qlib_ext

PACKAGE = Path(qlib_ext.__file__).parent


def output(*arguments: str, folder: Path | None = None) -> str | None:
    """What `git <arguments>` prints in `folder` (the working directory), or None outside a repository and without git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=True, cwd=folder)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")


def inside_repository() -> bool:
    """Whether the working directory lies in the working tree of a repository."""
    return (output("rev-parse", "--is-inside-work-tree") or "").strip() == "true"


def commit() -> str | None:
    """The commit of this package, or of the working directory where the package is no part of a repository.

    ` (modified)` follows where tracked files differ from it.
    """
    ours = output("ls-files", "--error-unmatch", "__init__.py", folder=PACKAGE) is not None
    folder = PACKAGE if ours else None
    head = output("rev-parse", "HEAD", folder=folder)
    if head is None:
        return None
    changed = output("status", "--porcelain", "--untracked-files=no", folder=folder)
    return head.strip() + (" (modified)" if changed else "")
