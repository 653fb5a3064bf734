"""`qlib-ext data sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.cli.data.summary import described, facts
from qlib_ext.terminal import say


def sample(
    out: Annotated[Path, typer.Option(help="Directory to write, in Qlib's format.")],
    region: Annotated[str, typer.Option(help="cn: A shares; us: American shares with macro series.")] = "cn",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    stocks: Annotated[
        int | None, typer.Option(help="Firms over the whole range; 430 in cn and 600 in us by default.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="First day; 2010-01-04 in cn, 2000-01-03 in us by default.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Last day; 2020-12-31 in cn, 2009-12-31 in us by default.")
    ] = None,
) -> Answer:
    """Write a synthetic market, for trying and testing: nothing in it is real but the trading calendar."""
    from qlib_ext.checks import one_of  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.market.synthetic.sample import SampleMarket
    from qlib_ext.market.synthetic.synthetic_market import SyntheticMarket
    from qlib_ext.market.synthetic.us_sample import USSampleMarket
    from qlib_ext.terminal import shown_progress

    kinds: dict[str, type[SyntheticMarket]] = {"cn": SampleMarket, "us": USSampleMarket}
    began = time.perf_counter()
    given: dict[str, Any] = {"stocks": stocks, "start": start, "end": end}
    market = kinds[one_of("region", region, kinds)](
        seed=seed, **{name: value for name, value in given.items() if value is not None}
    )
    with shown_progress() as progress:
        store, written = market.write(out, progress)
    document = {"store": out, **facts(store), "written": written}
    if not written:
        say(f"{out} already holds this sample market: left as it is")
        return Answer(document)
    say(f"{out}: a sample market of {described(store)} ({time.perf_counter() - began:.1f} s)")
    say(f"To use it: QLIB_DATA={out}")
    return Answer(document)
