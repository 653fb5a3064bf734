"""Names that come from outside: which are no data, paths that stay where they belong, and folders that can be written."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path, PurePosixPath

from qlib_ext.checks import UserError, brief

LONGEST_NAME = 100  # bytes of a file's name: file systems take 255, and something is put behind it
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


def leads_out(root: Path, path: Path) -> str | None:
    """Where a link below the folder `root` leads, if that is not below it as well; None of all else."""
    if not path.is_symlink():
        return None
    try:
        end = path.resolve()
    except (OSError, RuntimeError):  # a link in a circle leads nowhere
        return None
    return None if end.is_relative_to(root.resolve()) else str(end)


def shortened(name: str, most: int) -> str:
    """A name of at most `most` bytes of UTF-8, at least 20: the beginning of a longer one, and a hash of the whole."""
    if len(name.encode("utf-8", "surrogatepass")) <= most:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    begin = name.encode("utf-8", "ignore")[: most - 13].decode("utf-8", "ignore")
    return f"{begin}-{digest}"


def file_name(name: str, most: int = LONGEST_NAME) -> str:
    """What a file or folder is called after a name: letters, digits, dots and dashes, with a hash where it is too long."""
    return shortened(re.sub(r"[^\w.-]+", "-", name), most)


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
            f"{what} must stay below its folder, found {brief(name)}: it may come from a server or a file that you "
            "should not trust"
        )
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{what} must stay below {root}, found {brief(name)}, which is a link to {path.resolve()}"
        )
    return path


def writable(folder: Path, *, name: str, way_out: str) -> Path:
    """Return a folder in which files can be made, itself or, where it is not there yet, the next above it that is.

    It is tried by a file without a name, which also tells what no access right says: a file system that is read-only.
    Nothing is made.

    Parameters
    ----------
    folder
        Where files will be written later on.
    name
        What names the folder, for messages, such as `--out`.
    way_out
        What else to do than to make it writable, for messages.

    Raises
    ------
    UserError
        If no file can be made in it.
    """
    there = folder.expanduser().absolute()
    try:
        while not _is_there(there) and there != there.parent:
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            return folder
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{name} must be a folder that can be written, found {str(folder)!r} ({reason}: {str(there)!r}); {way_out}"
        ) from None


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
