"""A lock between processes: of the system, which dies with its holder, or by a file's existence where there is none."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
PAUSE_SECONDS = 0.05  # between two looks at a lock that is waited for
_descriptors: set[int] = set()  # of the locks that this process holds


class BusyError(Exception):
    """Another process holds a lock.

    Attributes
    ----------
    holder : str
        Such as `process 12 on host`.
    hint : str
        What to do where the holder may be dead, in brackets behind a space; empty where the system would know.
    """

    def __init__(self, path: Path, by_existence: bool) -> None:
        number, _, host = _holder(path).partition(" ")
        self.holder = f"process {number} on {host}" if host else "another process"
        self.hint = f" (if it runs no more, delete `{path}`)" if by_existence else ""
        super().__init__(f"{self.holder} holds {path}{self.hint}")


class Lock:
    """A lock by way of a file, which is there while somebody holds it.

    Parameters
    ----------
    path
        Of the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._owner = 0

    @property
    def held(self) -> bool:
        """Whether this process holds it; a fork of it does not."""
        return self._descriptor is not None and self._owner == os.getpid()

    def take(self, wait: float = 0.0) -> None:
        """Take the lock, once its holder has left it.

        Parameters
        ----------
        wait
            Seconds to wait for a holder.

        Raises
        ------
        BusyError
            If another process holds it.
        OSError
            If the file cannot be made.
        """
        until = time.monotonic() + wait
        while True:
            try:
                self._descriptor = _take(self.path)
            except BusyError:
                if time.monotonic() >= until:
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                self._owner = os.getpid()
                _descriptors.add(self._descriptor)
                return

    def release(self) -> None:
        """Leave the lock, if this process holds it."""
        if self._descriptor is None or not self.held:
            return
        descriptor, self._descriptor = self._descriptor, None
        _descriptors.discard(descriptor)
        if fcntl is None:
            os.close(descriptor)  # Windows deletes no open file
            self.path.unlink(missing_ok=True)
        else:
            self.path.unlink(missing_ok=True)  # while it is locked: who waits for it sees that it is gone
            os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock at `path`; otherwise as `Lock.take`."""
    lock = Lock(path)
    lock.take(wait)
    try:
        yield
    finally:
        lock.release()


def _leave_in_fork() -> None:
    """Close what a fork inherits: else its locks outlive the process that took them."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_in_fork)


def _take(path: Path) -> int:
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
            raise BusyError(path, by_system is None)
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
