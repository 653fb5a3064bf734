from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.lock import BusyError, Lock, exclusive

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")


def forked(work: Callable[[], object]) -> int:
    """A process that does the work and waits to be killed; returned once the work is done."""
    done, tell = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            work()
            os.write(tell, b"1")
            time.sleep(60)
        finally:
            os._exit(0)
    os.read(done, 1)
    os.close(done)
    os.close(tell)
    return process


def end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


class TestLock:
    def test_another_process_is_refused_and_named_until_it_is_killed(self, tmp_path: Path) -> None:
        process = forked(Lock(tmp_path / "lock").take)
        try:
            with pytest.raises(BusyError, match=f"process {process} on "):
                Lock(tmp_path / "lock").take()
        finally:
            end(process)
        with exclusive(tmp_path / "lock"):
            assert (tmp_path / "lock").read_text().startswith(f"{os.getpid()} ")
        assert not (tmp_path / "lock").exists()

    def test_it_is_waited_for(self, tmp_path: Path) -> None:
        first = Lock(tmp_path / "lock")
        first.take()
        leaving = threading.Timer(0.2, first.release)
        leaving.start()
        with exclusive(tmp_path / "lock", wait=30):
            assert not first.held
        leaving.join()

    def test_a_fork_does_not_leave_it_for_its_parent(self, tmp_path: Path) -> None:
        lock = Lock(tmp_path / "lock")
        lock.take()
        end(forked(lock.release))
        with pytest.raises(BusyError):
            Lock(tmp_path / "lock").take()

    def test_a_fork_does_not_keep_it_when_its_parent_is_killed(self, tmp_path: Path) -> None:
        """A worker may outlive a training."""

        def hold_and_fork() -> None:
            Lock(tmp_path / "lock").take()
            (tmp_path / "worker").write_text(str(forked(lambda: None)))

        end(forked(hold_and_fork))
        try:
            with exclusive(tmp_path / "lock"):
                pass
        finally:
            os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)
