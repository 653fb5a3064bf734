"""How a process ends in the middle of a run: with the right status of the run, and in words.

A `UserError` or a full disk ends the run as FAILED with one line; Ctrl-C and SIGTERM end it as KILLED.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from qlib_ext.checks import UserError, foreign_error
from qlib_ext.masking import masked
from qlib_ext.terminal import say, visible
from qlib_ext.tracking.active import end_run

AT_ONCE_SECONDS = 1.0  # within which several interruptions are one
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Excepthook:
    """Ends the active run with the status that the exception deserves, then reports the exception."""

    def __init__(self, previous: Any):
        self.previous = previous

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with held_signals():
            self._end(kind, error, trace)

    def _end(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, UserError):
            end_run("FAILED")
            _say(str(error))
        elif isinstance(error, OSError) and error.errno in NO_ROOM:
            end_run("FAILED")
            _say(
                f"no room left on the disk ({error}): make some, and take the run up with RESUME=1; its last checkpoint is "
                "whole"
            )
        elif issubclass(kind, KeyboardInterrupt):
            run_id = end_run("KILLED")
            _say("Interrupted" + (f"; run {run_id} is marked KILLED." if run_id else "."))
        elif (said := foreign_error(error)) is not None:
            end_run("FAILED")
            _say(said)
        elif visible(masked(str(error)), "\n") != str(error):  # what came before this hook shows it as it is
            end_run("FAILED")
            say(masked("".join(traceback.format_exception(kind, error, trace))), err=True, lines=True)
        else:
            self.previous(kind, error, trace)


def _say(message: str) -> None:
    """On a line of its own: a bar may stand in the one before."""
    say(err=True)
    say(masked(message), err=True)


def install_excepthook() -> None:
    """Put the hook over the one that is there, unless it is there itself."""
    if not isinstance(sys.excepthook, Excepthook):
        sys.excepthook = Excepthook(sys.excepthook)


class SigtermInterrupt(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as `docker stop` and batch systems do."""


class Interrupts:
    """Handler of Ctrl-C and SIGTERM: one interruption of several at once, as a terminal and `make` in it send them."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.last = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a worker that inherited this handler: the run is not its to end
            before = signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler
            signal.signal(number, before)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if now - self.last < AT_ONCE_SECONDS:
            return
        self.last = now
        raise SigtermInterrupt("SIGTERM") if number == signal.SIGTERM else KeyboardInterrupt


def raise_on_signals() -> None:
    """Make SIGTERM end the run in order, like Ctrl-C, and each of them once, unless the program has plans of its own."""
    if threading.current_thread() is not threading.main_thread():
        return
    handler = Interrupts()
    for number, usual in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is usual:
            signal.signal(number, handler)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Let no second Ctrl-C stop what the first one began; nor, but in an interactive session, the process's own end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if not hasattr(sys, "ps1"):
            before = {signal.SIGTERM: signal.SIG_DFL}
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
