"""The lock of a directory that is being replaced: of the system, or by its existence where there is none."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from qlib_ext.checks import UserError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

# What a system or a file system says that does not know a call.
UNSUPPORTED = {
    errno.ENOSYS,
    errno.EINVAL,
    *(getattr(errno, name) for name in ("ENOTSUP", "EOPNOTSUPP", "ENOLCK") if hasattr(errno, name)),
}


def beside(root: Path, part: str) -> Path:
    """Where a part of the work of replacing `root` lies."""
    return root.with_name(f".{root.name}.qlib-ext.{part}")


def cannot_write(root: Path, error: OSError) -> UserError:
    """The way out where nothing can be written beside `root`."""
    return UserError(
        f"`{root}` is replaced by way of a directory beside it, and `{root.parent}` cannot be written "
        f"({error.strerror}); choose a place that can, or copy the store to one"
    )


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the lock of `root`: by the system's lock of the file, or by its existence where there is none."""
    path = beside(root, "lock")
    try:
        descriptor = _take(path, root)
    except OSError as error:
        raise cannot_write(root, error) from error
    try:
        yield
    finally:
        if fcntl is None:
            os.close(descriptor)  # Windows deletes no open file
            path.unlink(missing_ok=True)
        else:
            path.unlink(missing_ok=True)  # while it is locked: who waits for it sees that it is gone
            os.close(descriptor)


def _take(path: Path, root: Path) -> int:
    """An open descriptor of the lock file at `path`, which is ours."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            made = True
        except FileExistsError:
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # its holder has just deleted it
            made = False
        by_system = _flock(descriptor)
        if by_system is False or (by_system is None and not made and not _is_stale(path)):
            os.close(descriptor)
            raise _busy(root, path, by_system is None)
        if _is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _signature())
            return descriptor
        os.close(descriptor)  # deleted meanwhile, by its last holder or as stale


def _flock(descriptor: int) -> bool | None:
    """Whether the system's lock of an open file is ours now; None where it has no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise
    return True


def _is_stale(path: Path) -> bool:
    """Whether the process that signed the lock at `path` is dead; the file is deleted then."""
    holder = _holder(path)
    if not holder or _lives(holder):
        return False
    # Two may find it stale at once: by renaming, each sees which file it took away.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    if _holder(aside) != holder:
        aside.rename(path)
        return False
    aside.unlink()
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _signature() -> bytes:
    return f"{os.getpid()} {socket.gethostname()}\n".encode()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def _lives(holder: str) -> bool:
    """Whether the process that signed a lock runs; one of another machine counts as running."""
    number, _, host = holder.partition(" ")
    if sys.platform == "win32" or host != socket.gethostname() or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _busy(root: Path, lock: Path, by_existence: bool) -> UserError:
    number, _, host = _holder(lock).partition(" ")
    who = f"process {number} on {host}" if host else "another process"
    hint = f" (if it runs no more, delete `{lock}`)" if by_existence else ""
    return UserError(f"{who} is changing `{root}` at this moment; wait for it to end, then try again{hint}")
