"""`qlib-ext search`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import INTERRUPTED, Answer
from qlib_ext.terminal import cell, console, empty_table, say

if TYPE_CHECKING:
    from qlib_ext.workflow.search.result import Found
    from qlib_ext.workflow.search.search import Search
    from qlib_ext.workflow.search.study import Tried

FOLDER = Path("reports/search")
EVERY_SECONDS = 60.0  # the page is written, beside the end


def search(
    workflow: Annotated[Path, typer.Argument(help="Workflow to search, as `qrun` takes it.")],
    space: Annotated[Path, typer.Option(help="YAML file: what may be changed, and how the search goes.")],
    trials: Annotated[
        int | None, typer.Option(help="Configurations to try in all, those of earlier calls too.", min=1)
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Hours to take in all, those of earlier calls too.", min=0.0)
    ] = None,
    workers: Annotated[int, typer.Option(help="Trainings side by side.", min=1)] = 1,
    ray: Annotated[
        str | None,
        typer.Option(help="Train on Ray: `local`, or the address of a cluster; processes by default."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the search, from which it goes on.", show_default=f"{FOLDER}/SPACE"),
    ] = None,
) -> Answer:
    """Search for the values of a workflow that are best on its validation days; no test day is read.

    Writes a page (search.html), a table (trials.csv) and the best workflow whole (best.yaml). The same command goes on where
    an earlier one was stopped or killed.
    """
    from qlib_ext.paths import file_name, writable
    from qlib_ext.terminal import quiet_imports, shown_progress

    folder = out or FOLDER / (file_name(space.stem).strip("-.") or "search")
    writable(folder, name="`--out`", way_out="name another")
    folder.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        with quiet_imports():
            made = _begun(workflow, space, folder, workers, ray)
        if trials is None and hours is None and made.plan.sampler != "grid":
            raise UserError(
                "a search needs an end: give `--trials N`, `--hours H` or both (a grid has its own)"
            )
        from qlib_ext.workflow.search.begin import search_below_a_run
        from qlib_ext.workflow.search.result import WORKFLOW

        with shown_progress() as progress:
            shown = _Shown(made, trials, hours, progress)
            try:
                search_below_a_run(made, trials, hours, shown, lambda: _finish(made)[1])
            except KeyboardInterrupt:
                _finish(made)
                say("Interrupted; the same command goes on from here.", err=True)
                raise SystemExit(INTERRUPTED) from None
        found, written = _finish(made)
    _tell(found, written)
    best = found.best
    document = {
        "best": None if best is None else {"trial": best.number, "value": best.value, **best.words},
        "objective": made.plan.objective,
        "trials": found.table(),
        "sentences": found.sentences(),
        "notes": found.notes,
        "files": written,
    }
    return Answer(
        document, then="" if best is None else f"qrun {written[WORKFLOW]}, once and last: it reads the test"
    )


def _begun(workflow: Path, space: Path, folder: Path, workers: int, ray: str | None) -> Search:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError(
            "a search needs the package optuna, found none: pip install 'qlib-ext[search]'"
        ) from error
    from qlib_ext.model.trainings.side_by_side import Places
    from qlib_ext.workflow.search.begin import begin

    return begin(workflow, space, folder, Places(workers, ray))


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    from qlib_ext.lock import BusyError, exclusive

    try:
        with exclusive(folder / "search.lock"):
            yield
    except BusyError as error:
        raise UserError(
            f"{error.holder} searches in {folder} at this moment: wait for its end, or name another `--out`{error.hint}"
        ) from error


class _Shown:
    """Says how each trial ended, how far the search is, and how long it will take."""

    def __init__(self, made: Search, trials: int | None, hours: float | None, progress: Any) -> None:
        self.made = made
        self.trials = trials
        self.hours = hours
        self.progress = progress
        self.begun = self.written = time.monotonic()
        self.ended = 0

    def __call__(self, tried: Tried) -> None:
        from qlib_ext.workflow.search.result import NAMES

        self.ended += 1
        best = self.made.best()
        value = f"{NAMES[self.made.plan.objective]} {tried.value:.4f}" if tried.values else "no value"
        where = f"rung {tried.rung + 1} of {len(self.made.plan.rungs)}"
        state = f"{tried.state}, {where}" if tried.state == "stopped" else tried.state
        top = "none yet" if best is None else f"{best.value:.4f} (trial {best.number})"
        say(f"trial {tried.number}: {value}, {state}; best {top}{self._left()}", err=True)
        if self.progress is not None:
            self.progress(*self._done(), f"best {top}")
        if time.monotonic() - self.written > EVERY_SECONDS:
            _finish(self.made)
            self.written = time.monotonic()

    def _done(self) -> tuple[int, int]:
        tried = [each for each in self.made.study.tried() if each.state != "open"]
        whole = len(tried) + self.made.study.waiting if self.trials is None else self.trials
        return len(tried), max(whole, len(tried))

    def _left(self) -> str:
        passed = time.monotonic() - self.begun
        done, whole = self._done()
        bounds = []
        if self.trials is not None or self.made.study.waiting:
            bounds.append(passed / self.ended * (whole - done))
        if self.hours is not None:
            bounds.append(max(0.0, 3600 * self.hours - self.made.study.seconds))
        return f"; about {min(bounds) / 60:.0f} min left" if bounds else ""


def _finish(made: Search) -> tuple[Found, dict[str, Path]]:
    """Write what there is by now."""
    from qlib_ext.workflow.search.page import render
    from qlib_ext.workflow.search.result import Found, write

    found = Found.of(made)
    return found, write(made, found, render(found))


def _tell(found: Found, written: Mapping[str, Path]) -> None:
    terminal = console()
    best, own = found.best, found.own
    if best is not None:
        table = empty_table(f"Best: trial {best.number}")
        for head in ("Parameter", "Best", "As it stood"):
            table.add_column(head, overflow="fold")
        for parameter in found.plan.space:
            before = "" if own is None else own.words.get(parameter.name, "")
            table.add_row(
                *(cell(each) for each in (parameter.name, best.words.get(parameter.name, ""), before))
            )
        terminal.print(table)
    for line in [*found.sentences(), *found.notes]:
        say(line)
    for path in written.values():  # one line each, however long: a path is there to be copied
        terminal.print(cell(str(path.resolve())), soft_wrap=True, highlight=False)
