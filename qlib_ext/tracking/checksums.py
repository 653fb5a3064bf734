"""Checksums of the artifacts of a run: written as it ends, and held against whatever is read back.

The manifest is the artifact `checksums.txt`, a line an artifact as `sha256sum` writes it; in the folder of a run's artifacts
`sha256sum --check checksums.txt` looks at all of them. Its last line is the checksum of the lines before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "checksums.txt"
_OWN = "# of the lines above: "


def checksum(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def to_text(checksums: Mapping[str, str]) -> str:
    """The manifest of artifact paths and their checksums."""
    lines = "".join(f"{found}  {path}\n" for path, found in sorted(checksums.items()))
    return f"{lines}{_OWN}{_of(lines)}\n"


def from_text(text: str) -> dict[str, str]:
    """Artifact paths and their checksums, as a manifest has them.

    Raises
    ------
    ValueError
        If the manifest was cut short or changed.
    """
    lines, _, own = text.rpartition(_OWN)
    if own != f"{_of(lines)}\n":
        raise ValueError("its own checksum is another")
    pairs = [line.split("  ", 1) for line in lines.splitlines()]
    return {path: found for found, path in pairs}


def _of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
