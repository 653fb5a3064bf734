"""What reaches the terminal: what a user can act on, and none of the notes that libraries write about each other."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Import in silence: gym says that it is old, and Qlib which of its models cannot be imported."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def quiet_libraries(qlib_level: int = logging.WARNING) -> None:
    """Hold back warnings that Qlib's code causes, Qlib's messages below a level, and what MLflow says of each step.

    Parameters
    ----------
    qlib_level
        Of Qlib's messages on the terminal, as `logging` counts.

    Notes
    -----
    Filters that the user gave Python (`-W`, PYTHONWARNINGS) come first.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatty in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for handler in logging.getLogger("qlib").handlers:
        handler.setLevel(qlib_level)
    warnings.filterwarnings("ignore", module=r"qlib(\.|$)", append=True)  # pandas speaking to Qlib's authors


def show_messages() -> None:
    """Let the package's own messages reach the terminal, as plain lines."""
    package = logging.getLogger("qlib_ext")
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)


@contextlib.contextmanager
def quiet_qlib() -> Iterator[None]:
    """Hold back Qlib's messages below an error: it warns of every suspended stock and of what it chose itself.

    What matters among them (no calendar beyond the last day, no factor, no change) is checked by this package.
    """
    handlers = [(handler, handler.level) for handler in logging.getLogger("qlib").handlers]
    try:
        for handler, _ in handlers:
            handler.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no orders, on a day without any
            warnings.simplefilter("ignore", FutureWarning)  # pandas speaking to Qlib's authors
            yield
    finally:
        for handler, level in handlers:
            handler.setLevel(level)


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield what the library calls with (done, total, what); None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # here, so that a command without a bar stays quick
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("")
        yield lambda done, total, what: bars.update(task, completed=done, total=total, description=what)
