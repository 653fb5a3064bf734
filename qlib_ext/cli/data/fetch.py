"""`qlib-ext data fetch`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.checks import UserError, counted
from qlib_ext.cli.answer import INTERRUPTED, Answer
from qlib_ext.cli.data.summary import audit, described, facts
from qlib_ext.cli.options import pairs, words
from qlib_ext.terminal import say


def fetch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="akshare, archive, baostock, tushare, yfinance, or a dotted class of your own.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The store: made where there is none, else brought up to date.")],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What was downloaded; OUT.downloads by default.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="First day; that of the last call, or 2010-01-01, by default.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Last day; the last one that has closed, by default.")
    ] = None,
    universe: Annotated[
        list[str] | None,
        typer.Option(help="Index whose members to bring in, such as csi300. Repeat, or divide by commas."),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="Index whose bars to bring in; SH000300 of Chinese sources by default. Repeat."),
    ] = None,
    codes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Stocks to ask for, one a line; by default all that the source has."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE for the source, such as per_minute=50, token_file=FILE, file=FILE. Repeat."
        ),
    ] = None,
    revise: Annotated[
        bool, typer.Option("--revise", help="Take the source's values where they contradict the store.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the store anew of all downloads; its side data stay.")
    ] = False,
) -> Answer:
    """Ask a vendor or an archive for what a store does not have, bring it in, and audit the store.

    What came is kept: after Ctrl-C, or an error, the same command goes on from there.
    """
    from qlib_ext.market.fetch.fetch import fetch
    from qlib_ext.recommend.sources import built_source  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.terminal import shown_progress

    began = time.perf_counter()
    built = built_source(source, pairs("--option", option, "per_minute=50"))
    try:
        with shown_progress() as progress:
            done = fetch(
                built,
                out,
                folder=folder,
                start=start,
                end=end,
                universes=tuple(words(universe)),
                benchmarks=None if benchmark is None else tuple(words(benchmark)),
                codes=() if codes is None else _listed(codes),
                revise=revise,
                rebuild=rebuild,
                progress=progress,
            )
    except KeyboardInterrupt:
        say("stopped; what came is kept, and the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    document = {"store": out, **facts(done.store), "notes": done.notes}
    for note in done.notes:
        say(f"note: {note}")
    if not done.changed:
        say(f"{source} has no day after {done.store.calendar[-1]:%Y-%m-%d}: {out} is left as it is")
        return Answer({**document, "changed": False})
    if done.made:
        say(f"{out}: {described(done.store)} ({time.perf_counter() - began:.1f} s)")
    else:
        say(
            f"{out}: {counted(len(done.days), 'day')} added, up to {done.store.calendar[-1]:%Y-%m-%d}, "
            f"{counted(done.rows, 'bar')}{f', {done.revised:,} values revised' if done.revised else ''} "
            f"({time.perf_counter() - began:.1f} s)"
        )
    if done.brought:
        say(f"brought in: {', '.join(done.brought)}")
    audited = audit(out)
    say(f"To use it: QLIB_DATA={out}. To see what is in it: qlib-ext data info {out}")
    brought = {
        "made": done.made,
        "days_added": len(done.days),
        "rows_added": done.rows,
        "brought": done.brought,
    }
    return Answer({**document, "changed": True, **brought, "revised": done.revised, "audit": audited})


def _listed(path: Path) -> tuple[str, ...]:
    from qlib_ext.files import read_text

    try:
        lines = [line.strip() for line in read_text(path.expanduser()).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"`--codes` must be a file of codes, one a line, found `{path}`: {error}") from error
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
