"""Names that come from outside: which are no data, and paths that stay where they belong."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from qlib_ext.checks import UserError

# What desktops and editors leave beside the files of a user, in lower case; hidden files are strays as well.
_LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx"}


def is_stray(name: str) -> bool:
    """Whether a file or folder is no data by its name: hidden, of the desktop, an editor's backup or lock."""
    lower = name.lower()
    return (
        lower.startswith((".", "~$", "#"))
        or lower.endswith(("~", ".swp", ".swo", ".bak", ".tmp"))
        or lower in _LEFT_BEHIND
    )


def inside(root: Path, name: str, *, what: str) -> Path:
    """The path that `name` has below the folder `root`.

    Parameters
    ----------
    root
        The folder that it must not leave; it need not exist.
    name
        Parts with `/` between them, such as the artifact path `signal/predictions.parquet` or the id of a run.
    what
        What the name is of, for messages.

    Raises
    ------
    UserError
        If the name is empty, absolute or has a part `..`, a backslash or a zero byte, or a link below `root` leads out of
        it.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise UserError(
            f"{what} must stay below its folder, found {name!r}: it may come from a server or a file that you "
            "should not trust"
        )
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{what} must stay below {root}, found {name!r}, which is a link to {path.resolve()}")
    return path
