"""What it costs to trade stored scores again: the exchange, the days, and the whole command with all its records.

    OMP_NUM_THREADS=1 python benchmarks/retrade.py --store ../shared/market/cn

The scores are drawn from a seed for the members of each day, and change slowly, as a model's do; `--scores FILE` takes
others. They are traded by `TopkDropout` under the exchange's rules. Seconds are the processor's, the shortest of the
repeats, after the first has warmed the caches of the disk. `--qlib` reads the quotes by Qlib's `D.features` too, and
`--whole` runs `qlib-ext evaluate` on the same scores in a process of its own and tells each record's part.

Exit status: 0 when the bar is met, 1 when it is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from qlib_ext.terminal import quiet_imports

with quiet_imports():
    import qlib
    from qlib.backtest.exchange import Exchange
    from qlib.data.cache import H

    from qlib_ext.backtest.simulation import make_exchange, simulate
    from qlib_ext.cli.evaluate import of_file
    from qlib_ext.data.score_file import read_scores
    from qlib_ext.market.store import QlibStore
    from qlib_ext.records.base import Record
    from qlib_ext.strategy.topk_dropout import TopkDropout

LIMIT_SECONDS = 10.0
EXCHANGE = {"rules": "cn", "deal_price": "close"}


def drawn(store: QlibStore, universe: str, first: str, last: str, keep: float = 0.9) -> pd.Series:
    """Scores of the members of each day: standard normal, of which a share stays from day to day."""
    codes = sorted({*store.membership(universe)["instrument"]} & {*store.instruments()})
    members = pd.DataFrame(store.member_mask(universe, codes), store.calendar, codes).loc[first:last]
    noise = np.random.default_rng(0).standard_normal(members.shape)
    for day in range(1, len(noise)):
        noise[day] = keep * noise[day - 1] + np.sqrt(1 - keep**2) * noise[day]
    days, stocks = np.nonzero(members.to_numpy())
    index = pd.MultiIndex.from_arrays(
        [members.index[days], members.columns[stocks]], names=["datetime", "instrument"]
    )
    return pd.Series(noise[days, stocks], index, name="score")


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it gives."""
    begun = time.process_time()
    answer = call()
    return time.process_time() - begun, answer


def retrade(
    scores: pd.Series, store: QlibStore, topk: int, n_drop: int, benchmark: str | None, by_qlib: bool
) -> dict[str, float]:
    """Seconds of each part of trading scores again."""
    codes = sorted(scores.index.get_level_values("instrument").unique())
    days = store.calendar[store.calendar > scores.index.get_level_values("datetime").min()]
    first, last = days[0], days[days <= scores.index.get_level_values("datetime").max()][-2]
    found = {}
    found["exchange"], (exchange, _) = seconds(lambda: make_exchange(codes, first, last, EXCHANGE))
    strategy = TopkDropout(signal=scores, topk=topk, n_drop=n_drop)
    found["days"], done = seconds(
        lambda: simulate(strategy, exchange, first, last, account=1e8, benchmark=benchmark)
    )
    found["exchange and days"] = found["exchange"] + found["days"]
    found["table of positions"], _ = seconds(done.positions)
    if by_qlib:
        H.clear()
        found["Qlib's own exchange"], _ = seconds(
            lambda: Exchange(start_time=first, end_time=last, codes=codes)
        )
    return found


def whole(scores: pd.Series, store: Path, topk: int, n_drop: int) -> dict[str, float]:
    """Seconds of `qlib-ext evaluate` by record, in a folder of its own."""
    found: dict[str, float] = {}
    generate = Record.generate

    def timed(self: Record, *given: Any, **kwargs: Any) -> None:
        found[type(self).__name__], _ = seconds(lambda: generate(self, *given, **kwargs))

    Record.generate = timed  # type: ignore[method-assign]
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        scores.reset_index().to_parquet("scores.parquet")
        try:
            total, _ = seconds(
                lambda: of_file(Path("scores.parquet"), store, None, None, None, topk=topk, n_drop=n_drop)
            )
        finally:
            os.chdir(before)
            Record.generate = generate  # type: ignore[method-assign]
    rest = total - sum(found.values())
    return {
        **dict(sorted(found.items(), key=lambda part: -part[1])),
        "all else": rest,
        "whole command": total,
    }


def show(title: str, found: dict[str, float]) -> None:
    """Print a table of parts."""
    table = Table("part", "seconds")
    for name, value in found.items():
        table.add_row(name, f"{value:.2f}")
    console = Console()
    console.print(f"{title}; load {os.getloadavg()[0]:.1f}")
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--scores", type=Path, help="CSV or Parquet; by default they are drawn")
    parser.add_argument("--universe", default="csi300")
    parser.add_argument("--benchmark", default="SH000300")
    parser.add_argument("--start", default="2017-01-01")
    parser.add_argument("--end", default="2020-12-31")
    parser.add_argument("--topk", type=int, default=50)
    parser.add_argument("--n-drop", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--qlib", action="store_true")
    parser.add_argument("--whole", action="store_true")
    given = parser.parse_args(arguments)
    store = QlibStore(given.store.resolve())
    qlib.init(provider_uri=str(store.root), region="cn", kernels=1, logging_level=30)
    if given.scores is None:
        scores = drawn(store, given.universe, given.start, given.end)
    else:
        scores = read_scores(given.scores, store).scores.loc[given.start : given.end]
    runs = [
        retrade(scores, store, given.topk, given.n_drop, given.benchmark, given.qlib)
        for _ in range(given.repeats)
    ]
    found = {name: min(run[name] for run in runs) for name in runs[0]}
    days = scores.index.get_level_values("datetime").nunique()
    show(f"{days} days, {len(scores) / days:.0f} stocks a day", found)
    if given.whole:
        show("qlib-ext evaluate", whole(scores, store.root, given.topk, given.n_drop))
    return int(found["exchange and days"] > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
