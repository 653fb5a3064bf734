"""A new store of a user's bars: what `qlib-ext data import` does."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qlib_ext.checks import UserError, nearest
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.import_settings import FILE, ImportSettings
from qlib_ext.market.importing.ingest import read_bars
from qlib_ext.market.progress import Progress
from qlib_ext.market.replace import check_place, copy_store, locked, recover
from qlib_ext.market.store import QlibStore, write_store
from qlib_ext.market.universes.universes import RULES

PARTS = ("calendars/day.txt", "features", "instruments")


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes
    ----------
    store : QlibStore
    bars : Bars
    notes : tuple of str
        Of the bars, and of what a replaced store held besides.
    """

    store: QlibStore
    bars: Bars
    notes: tuple[str, ...]


def import_bars(
    source: str | Path,
    out: str | Path,
    settings: ImportSettings,
    *,
    actions: str | Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Write a store of a source of daily bars, whole or not at all.

    It holds the bars, the universe `all`, the universe `settings.universe` of all but the benchmarks, and
    `import.json`, from which further files are read alike.

    Parameters
    ----------
    source, settings, actions, progress
        As `read_bars` takes them.
    out
        Directory to write; `~` is expanded.
    replace
        Whether a store at `out` may be replaced. Its folder `side` is kept, all else goes.

    Raises
    ------
    UserError
        If the source cannot be read as `read_bars` says, a benchmark has no bars, or `out` holds something that
        must not go.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    recover(out)
    _check_out(source, out, replace)
    bars = read_bars(source, settings, actions=actions, progress=progress)
    return write_bars(bars, out, settings, source=source, replace=replace)


def write_bars(
    bars: Bars, out: str | Path, settings: ImportSettings, *, source: str | Path, replace: bool = False
) -> Imported:
    """Write a store of bars in memory, whole or not at all, as `import_bars` does of a source.

    Parameters
    ----------
    bars
        What it is to hold.
    out, replace
        As in `import_bars`.
    settings
        How further files are to be read, where the bars do not say.
    source
        Where they come from, for `import.json`; a path of it must not lie in the store.

    Raises
    ------
    UserError
        If a benchmark has no bars, or `out` holds something that must not go.
    """
    out = Path(out).expanduser()
    spells = bars.first_and_last()
    benchmarks = check_benchmarks(settings, spells["instrument"])
    with locked(out) as lock:
        _check_out(Path(source), out, replace)
        notes = bars.notes
        lost = _other_parts(out, settings.universe)
        if lost:
            notes += (f"the store that was replaced held more, which is gone: {', '.join(lost)}",)
        with lock.replaced() as new:
            stocks = spells[~spells["instrument"].isin(benchmarks)]
            write_store(new, bars.calendar, bars.instruments, bars.fields, {settings.universe: stocks})
            _say(new, bars.settings or settings)
            (bars.settings or settings).save(new, source=str(source), notes=notes)
            if (out / "side").is_dir():
                copy_store(out / "side", new / "side")
    return Imported(QlibStore(out), bars, notes)


def _say(store: Path, settings: ImportSettings) -> None:
    """What `universes.json` says of the universe of an import."""
    but = f" but {', '.join(settings.benchmarks)}" if settings.benchmarks else ""
    said = {"size": None, "rule": f"every instrument of the source{but}, from its first bar to its last"}
    text = json.dumps({settings.universe: said}, indent=2, ensure_ascii=False) + "\n"
    (store / RULES).write_text(text, encoding="utf-8")


def check_benchmarks(settings: ImportSettings, instruments: Iterable[str]) -> list[str]:
    """The benchmarks as a store names them; one that is not among `instruments` is a UserError."""
    known = list(instruments)
    benchmarks = [code_in_store(code, known) for code in settings.benchmarks]
    for code in benchmarks:
        if code not in known:
            raise UserError(
                f"`benchmark` must have bars in the source, found none of {code}{nearest(code, known)}"
            )
    return benchmarks


def _check_out(source: Path, out: Path, replace: bool) -> None:
    """Refuse to write where something else is, or nothing can be written."""
    check_place(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"`out` must be a directory, found a file at `{out}`")
    if not out.exists() or not any(out.iterdir()):
        return
    if not all((out / part).exists() for part in PARTS):
        raise UserError(
            f"`out` must be a new or an empty directory, or a store to replace, found something else at `{out}`; "
            "nothing was written"
        )
    if not replace:
        raise UserError(
            f"`{out}` holds a store already: `--replace` makes it anew, `qlib-ext data update` adds days to it; "
            "nothing was written"
        )
    if source.resolve().is_relative_to(out.resolve()):
        raise UserError(
            f"the source `{source}` lies in the store that it would replace; move it elsewhere first"
        )


def _other_parts(out: Path, universe: str) -> list[str]:
    """What a store at `out` holds besides what an import writes and keeps."""
    written = {*PARTS, f"instruments/{universe}.txt", "instruments/all.txt", FILE, RULES}
    parts = [*out.glob("*"), *(out / "calendars").glob("*"), *(out / "instruments").glob("*")]
    names = {path.relative_to(out).as_posix() for path in parts}
    return sorted(names - written - {"calendars", "side"})
