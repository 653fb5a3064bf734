"""Progress of long work, for eyes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield what the library calls with (done, total, what); None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("")
        yield lambda done, total, what: bars.update(task, completed=done, total=total, description=what)
