"""How the closes of a real Chinese market lie to the price limits that the rules give.

    python benchmarks/price_limits.py --store ../shared/market/cn --universe csi300

Nobody can trade beyond a price limit. If the table of rules, the reference prices and the rounding are right, many closes
stand exactly at a limit, and none a fen beyond. First days of a listing are left out. Told too: how many moves of 9.5 % or
more were no limits, which one threshold for all takes for such.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.market.rules.exchange_rules import read_rules
from qlib_ext.market.rules.price_limits import at_limit
from qlib_ext.market.store import QlibStore

FEN = range(1, 4)


def main() -> None:
    """Count the closes at their limits, beyond them, and moves that were none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--universe", default="csi300", help="stocks that were ever in it")
    given = parser.parse_args()
    store, rules = QlibStore(given.store), read_rules("cn")
    codes = sorted({*store.membership(given.universe)["instrument"]} & {*store.instruments()})
    close, factor, volume = store.read(["close", "factor", "volume"], codes).astype(np.float64)
    there = ~np.isnan(close)
    before = pd.DataFrame(close).ffill().shift().to_numpy()
    counts = (there & (volume > 0) & ~np.isnan(before)).T.ravel()
    index = pd.MultiIndex.from_product([codes, store.calendar], names=["instrument", "datetime"])
    quotes = pd.DataFrame({"$close": close.T.ravel(), "$factor": factor.T.ravel()}, index=index)

    def at(fen: int) -> tuple[np.ndarray, np.ndarray]:
        """Closes at the upper limit or beyond when so many fen lower, at the lower one when so many higher."""
        one = 0.01 * quotes["$factor"]
        moved = quotes.assign(buy=quotes["$close"] - fen * one, sell=quotes["$close"] + fen * one)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = at_limit(moved, rules, store, buy="buy", sell="sell", factors=True)
        return found.up & counts, found.down & counts

    steps = [at(fen) for fen in (0, *FEN, FEN.stop)]
    print(f"{counts.sum():,} closes of {len(codes)} stocks with one before")
    for name, side in (("upper", 0), ("lower", 1)):
        sums = [int(step[side].sum()) for step in steps]
        beyond = ", ".join(f"{sums[k] - sums[k + 1]} by {k}" for k in FEN)
        print(f"{name} limit: {sums[0] - sums[1]:,} at it; beyond it {beyond} and {sums[-1]} by more fen")
    with np.errstate(divide="ignore", invalid="ignore"):
        move = (close / before - 1).T.ravel()
    up, down = steps[0]
    print(
        f"moves of 9.5 % or more that were no limit: {int((counts & (move >= 0.095) & ~up).sum()):,} up, "
        f"{int((counts & (move <= -0.095) & ~down).sum()):,} down"
    )


if __name__ == "__main__":
    main()
