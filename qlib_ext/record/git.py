"""What git says of the working directory; nothing where it is no repository, or where git is not installed."""

from __future__ import annotations

import subprocess


def output(*arguments: str) -> str | None:
    """What `git <arguments>` prints, or None outside a repository and without git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")


def inside_repository() -> bool:
    """Whether the working directory lies in the working tree of a repository."""
    return (output("rev-parse", "--is-inside-work-tree") or "").strip() == "true"


def commit() -> str | None:
    """The commit of the working directory, with ` (modified)` where tracked files differ from it."""
    head = output("rev-parse", "HEAD")
    if head is None:
        return None
    changed = output("status", "--porcelain", "--untracked-files=no")
    return head.strip() + (" (modified)" if changed else "")
