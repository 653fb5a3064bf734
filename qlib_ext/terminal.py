"""What reaches the terminal: what a user can act on, and none of the notes that libraries write about each other.

Names come from servers, stores and files of other people. A control character in one could move the cursor, and a newline
could begin a line that looks like this program's own. So all text goes through here, and such characters are shown as JSON
writes them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import rich.markup
import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from tqdm import tqdm

T = TypeVar("T")

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: object, keep: str = "") -> str:
    r"""Text on one line, in which nothing moves the cursor, turns the direction of writing or cannot be seen.

    Parameters
    ----------
    text
        A text, or what is shown as one, such as a path.
    keep
        Characters that stay: the newline of a text that has lines of its own.

    Returns
    -------
    The text with characters of control and of format, surrogates and unassigned ones as JSON writes them, so that JSON
    stays JSON.

    Examples
    --------
    >>> print(visible("run 1\nwarning: none of it is true"))
    run 1\nwarning: none of it is true
    """
    whole = str(text)
    return whole if whole.isprintable() else "".join(_shown(mark, keep) for mark in whole)


def _shown(mark: str, keep: str) -> str:
    if mark.isprintable() or mark in keep or unicodedata.category(mark) == "Zs":
        return mark
    units = mark.encode("utf-16-be", "surrogatepass").hex()
    return _SHORT.get(mark) or "".join(rf"\u{units[k : k + 4]}" for k in range(0, len(units), 4))


def say(text: object = "", *, err: bool = False, lines: bool = False) -> None:
    """Write a line to stdout, or to stderr; `lines` where the text has several, as JSON and tracebacks do."""
    typer.echo(visible(text, "\n" if lines else ""), err=err)


def cell(text: object) -> str:
    """Text as a table or a line of `console()` takes it: visible, and what looks like markup is none."""
    return rich.markup.escape(visible(text))


def console(*, stderr: bool = False) -> Console:
    """A console of rich's, on which text of a name without `cell` moves no cursor either."""
    return _VisibleConsole(stderr=stderr)


class _VisibleConsole(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments as rich makes them, with visible text; its own control codes are apart from that."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, "\n"), style, control)


def empty_table(title: object = "") -> Table:
    """A table without columns, as all of this program look: narrow, so that 80 columns hold it without cutting a word."""
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=cell(title) or None,
        title_justify="left",
        title_style="bold",
    )


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


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, where a bar shows though stderr is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", {})


def bar(items: Iterable[T] | None = None, **how: Any) -> tqdm[T]:
    """A bar over some items on a terminal or in a notebook, and none elsewhere; `how` as tqdm takes it."""
    if not in_notebook():
        return tqdm(items, disable=None, **how)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # without ipywidgets it is a bar of text, and says that it might be more
        from tqdm.auto import tqdm as notebook_bar
    return notebook_bar(items, **how)


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield what the library calls with (done, total, what); None where there is neither a terminal nor a notebook."""
    if in_notebook():
        with bar(leave=False, mininterval=0.5, delay=0.5) as shown:

            def update(done: int, total: int, what: str) -> None:
                if (shown.total, shown.desc) != (total, f"{visible(what)}: "):
                    shown.reset(total)
                    shown.set_description(visible(what))
                shown.update(done - shown.n)

            yield update
        return
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress  # here, so that a command without a bar stays quick

    with Progress(console=console(stderr=True), transient=True) as bars:
        task = bars.add_task("")
        yield lambda done, total, what: bars.update(task, completed=done, total=total, description=cell(what))
