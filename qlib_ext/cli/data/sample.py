"""`qlib-ext data sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def sample(
    out: Annotated[Path, typer.Option(help="Directory to write, in Qlib's format.")],
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    stocks: Annotated[int, typer.Option(help="Firms over the whole range.")] = 430,
    start: Annotated[str, typer.Option(help="First day.")] = "2010-01-04",
    end: Annotated[str, typer.Option(help="Last day.")] = "2020-12-31",
) -> None:
    """Write a made A-share market, for trying and testing: nothing in it is real but the trading calendar."""
    from qlib_ext.cli.progress import shown_progress  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.market.made.sample import SampleMarket

    began = time.perf_counter()
    market = SampleMarket(seed=seed, stocks=stocks, start=start, end=end)
    with shown_progress() as progress:
        store, written = market.write(out, progress)
    if not written:
        typer.echo(f"{out} already holds this sample market: left as it is")
        return
    typer.echo(
        f"{out}: a made market of {len(store.instruments())} instruments, {len(store.calendar)} days from "
        f"{store.calendar[0].date()} to {store.calendar[-1].date()}, universes {', '.join(store.universes())} "
        f"({time.perf_counter() - began:.1f} s)"
    )
    typer.echo(f"To use it: QLIB_DATA={out}")
