"""Put a new version of a directory in the place of the old one, in one step that cannot be seen half done.

Whoever changes a market store fills a new directory beside it and swaps the two. Killed at any point, the store is
the old one or the new one. What lies beside a store `market` while it is replaced, and after a kill:

========================  =========================================================================
`.market.qlib-ext.lock`   who replaces it now; a lock of the system, which dies with its process
`.market.qlib-ext.new`    the new version as it grows, and the old one while it is being deleted
`.market.qlib-ext.old`    the whole old version, between the two renames of a system without a swap
========================  =========================================================================

The swap is one call where the system has it (`renameat2` with `RENAME_EXCHANGE` on Linux, `renamex_np` with
`RENAME_SWAP` on macOS). Elsewhere it is two renames, and a kill between them leaves nothing at the store's own
name: `recover` puts the old version back.

Files of a store are never written in place, so versions share the unchanged ones by hard links (`copy_store`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qlib_ext.checks import UserError
from qlib_ext.lock import UNSUPPORTED, BusyError, exclusive
from qlib_ext.paths import writable

_THREADS = 8
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux, for renameat2
_RENAME_SWAP = 2  # macOS, for renamex_np
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Lock:
    """The right to replace one directory, from `locked`; only its holder changes what lies beside it.

    Attributes
    ----------
    root : Path
        The directory, absolute and with links followed.
    """

    def __init__(self, root: Path):
        self.root = root

    @contextlib.contextmanager
    def replaced(self) -> Iterator[Path]:
        """Yield a new, empty directory that takes the place of `root` on a clean exit; see `replaced`."""
        new = _beside(self.root, "new")
        try:
            new.mkdir()
            if self.root.exists():
                new.chmod(stat.S_IMODE(self.root.stat().st_mode) | stat.S_IRWXU)
        except OSError as error:
            raise _cannot_write(self.root, error) from error
        try:
            yield new
            _flush(new)
            _swap(new, self.root)
        except OSError as error:
            _discard(new)
            if error.errno in _FULL:
                raise UserError(
                    f"there is no room left for the new version of `{self.root}` ({error.strerror}); free some, or "
                    "choose another disk. Nothing was changed"
                ) from error
            raise
        except BaseException:
            _discard(new)
            raise
        _discard(new)


@contextlib.contextmanager
def replaced(root: str | Path) -> Iterator[Path]:
    """Yield a new, empty directory to fill; on a clean exit it takes the place of `root`.

    The new directory lies beside `root`, in the same file system. Its content reaches the disk before the swap (by
    `syncfs` on Linux, by `fsync` of each new file elsewhere), so that a power failure does not leave a store of
    empty files. It takes over the access rights of the old directory. What a killed run left is removed first.

    Parameters
    ----------
    root
        The directory to replace or to make; `~` is expanded, a link is followed and stays a link. Missing parents
        are made.

    Yields
    ------
    Path
        The new directory. If the block raises, it is deleted and `root` is as it was.

    Raises
    ------
    UserError
        If `root` is a file or a mount point, the directory that holds it cannot be written, another process is
        replacing it at this moment, the disk is full, or the system cannot rename it.
    """
    with locked(root) as lock, lock.replaced() as new:
        yield new


@contextlib.contextmanager
def locked(root: str | Path) -> Iterator[Lock]:
    """Hold the right to replace `root`, to look at it before deciding whether to; otherwise as `replaced`.

    The lock is advisory: it keeps the commands of this package apart. Readers need none.
    """
    root = _resolved(root)
    if root.exists() and not root.is_dir():
        raise UserError(f"expected a directory to replace, found a file at `{root}`")
    if root.is_mount():
        raise UserError(
            f"`{root}` is a mount point, and only a directory that can be renamed can be replaced as a whole; name "
            f"one below it, such as `{root / 'market'}`"
        )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(root, error) from error
    with _exclusive(root):
        _restore(root)
        _discard(_beside(root, "new"))
        yield Lock(root)


def check_place(root: str | Path) -> None:
    """Raise a UserError where nothing can be written beside `root`: before any long work, whose end would find it."""
    root = _resolved(root)
    writable(
        root.parent,
        name=f"the place of `{root}`",
        way_out="choose one that can, or copy the store to one",
    )


def recover(root: str | Path) -> None:
    """Put the old version back where a killed run left none at `root`; nothing happens anywhere else.

    Only a system without a swap can come to this.

    Raises
    ------
    UserError
        If another process is replacing `root` at this moment.
    """
    root = _resolved(root)
    if not root.exists() and _beside(root, "old").is_dir():
        with _exclusive(root):
            _restore(root)


def copy_store(
    source: str | Path,
    target: str | Path,
    *,
    leave_out: Callable[[Path], bool] = lambda relative: False,
    links: bool = True,
) -> None:
    """Copy a directory: its files are shared by hard links where the file system has them, else copied.

    Shared files must never be written in place, by anybody. For a copy that goes its own ways afterwards, say
    `links=False`.

    Parameters
    ----------
    source
        Directory to copy. Links in it are followed: the copy holds what they lead to.
    target
        Directory to copy into; it is made where it is missing. Files of the same names must not be there.
    leave_out
        Called with the path of each file and directory relative to `source`; those for which it is true, and all
        below them, are left out.
    links
        Whether to share files.

    Raises
    ------
    UserError
        If something in `source` is neither a file nor a directory, or a link leads nowhere or back to a directory
        above it.
    """
    _copy_directory(Path(source), Path(target), Path(), leave_out, links, ())


def _beside(root: Path, part: str) -> Path:
    """Where a part of the work of replacing `root` lies."""
    return root.with_name(f".{root.name}.qlib-ext.{part}")


def _cannot_write(root: Path, error: OSError) -> UserError:
    """The way out where nothing can be written beside `root`."""
    return UserError(
        f"`{root}` is replaced by way of a directory beside it, and `{root.parent}` cannot be written "
        f"({error.strerror}); choose a place that can, or copy the store to one"
    )


@contextlib.contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    """Hold the lock of `root`."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(_beside(root, "lock")))
        except BusyError as error:
            raise UserError(
                f"{error.holder} is changing `{root}` at this moment; wait for it to end, then try again{error.hint}"
            ) from error
        except OSError as error:
            raise _cannot_write(root, error) from error
        yield


def _copy_directory(
    source: Path,
    target: Path,
    relative: Path,
    leave_out: Callable[[Path], bool],
    links: bool,
    above: tuple[tuple[int, int], ...],
) -> None:
    status = source.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise UserError(f"`{source}` is a link to a directory above it; remove it, then try again")
    target.mkdir(exist_ok=True)
    target.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            inner = relative / entry.name
            if leave_out(inner):
                continue
            if entry.is_dir():
                _copy_directory(
                    source / entry.name, target / entry.name, inner, leave_out, links, (*above, identity)
                )
            elif entry.is_file():
                # A link to a link would not be a file of its own.
                path = Path(entry.path).resolve() if entry.is_symlink() else entry.path
                _copy_file(path, target / entry.name, links)
            else:
                raise UserError(
                    f"expected a file, a directory or a link to one, found neither at `{entry.path}`; remove it, "
                    "then try again"
                )


def _copy_file(source: str | Path, target: Path, links: bool) -> None:
    if links:
        try:
            os.link(source, target)
            return
        except FileExistsError:
            raise
        except OSError:
            pass  # no hard links here, too many of this file, or not one's own file: copy it
    shutil.copy2(source, target)


def _resolved(root: str | Path) -> Path:
    try:
        return Path(root).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, no home directory
        raise UserError(f"`{root}` leads nowhere: {error}") from error


def _discard(path: Path) -> None:
    """Delete what nobody needs any more."""
    if path.exists():
        try:
            # Some disks take milliseconds to free a file, but many at once: a market has 50,000.
            with ThreadPoolExecutor(_THREADS) as pool:
                inner = [folder for folder in path.glob("*/*") if folder.is_dir() and not folder.is_symlink()]
                for _ in pool.map(shutil.rmtree, inner):
                    pass
            shutil.rmtree(path)
        except OSError as error:
            raise UserError(
                f"`{path}` is left over from an earlier version and cannot be deleted ({error.strerror}: "
                f"`{error.filename}`); delete it"
            ) from error


def _restore(root: Path) -> None:
    """With the lock held: finish what a run killed between the two renames, or right after, has begun."""
    old, new = _beside(root, "old"), _beside(root, "new")
    if not old.is_dir():
        return
    if root.exists():  # the new version was in place already
        _discard(new)
        old.rename(new)  # under the name `old` it is always whole
        _discard(new)
    else:
        old.rename(root)
        _flush_directory(root.parent)


def _swap(new: Path, root: Path) -> None:
    """Put `new` in the place of `root`; afterwards the old version, if there was one, has the name `new`."""
    try:
        if not root.exists():
            new.rename(root)
        elif not _exchange(new, root):
            old = _beside(root, "old")
            root.rename(old)
            try:
                new.rename(root)
            except OSError:
                old.rename(root)
                raise
            _flush_directory(root.parent)
            old.rename(new)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise UserError(
                f"`{root}` cannot be renamed: it lies in another file system, or in the image of a container; copy "
                "it to a directory of its own or to a volume, and work there. Nothing was changed"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS}:
            raise UserError(
                f"`{root}` cannot be renamed ({error.strerror}); it may belong to somebody else or be in use. "
                "Nothing was changed"
            ) from error
        raise
    _flush_directory(root.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step; False where the system or the file system cannot."""
    one, other = os.fsencode(first), os.fsencode(second)
    if sys.platform not in {"linux", "darwin"}:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        status = library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, ctypes.c_uint(_RENAME_EXCHANGE))
    elif hasattr(library, "renamex_np"):
        status = library.renamex_np(one, other, ctypes.c_uint(_RENAME_SWAP))
    else:
        return False
    if status == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def _flush(directory: Path) -> None:
    """Return when all of `directory` is on the disk."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        if hasattr(library, "syncfs"):
            # One call for the file system: a store of a market has 50,000 files, and an fsync of each takes minutes.
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                if library.syncfs(descriptor):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(directory))
            finally:
                os.close(descriptor)
            return
    for path, _, names in os.walk(directory):
        for name in names:
            file = Path(path) / name
            if file.stat().st_nlink == 1:  # shared ones are old: they are on the disk
                _fsync(file, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        _flush_directory(Path(path))


def _flush_directory(directory: Path) -> None:
    if sys.platform != "win32":  # which cannot open a directory
        _fsync(directory, os.O_RDONLY)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
