"""Time and peak memory of `qlib-ext data import` on a whole market in one Parquet file.

    python benchmarks/import_scale.py --stocks 5000 --start 2005-01-04 --end 2020-12-31

The file is made first, in another process: raw prices and an adjustment factor of every stock on every trading day of
Shanghai, volumes in lots of 100 and amounts in thousands, a day after the other as vendors deliver them. Then a
process started anew imports it. Time counts from the file to the store on disk, imports of libraries apart.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from qlib_ext.checks import UserError, above, integer

# What is measured is imported in the processes that are measured: one inherits the peak memory of what starts it.

T = TypeVar("T")
DAYS_A_BLOCK = 50


def make_file(path: Path, stocks: int, start: str, end: str) -> int:
    """Write the market; its rows."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from qlib_ext.market.exchange_days import exchange_days

    days = exchange_days("XSHG", pd.Timestamp(start), pd.Timestamp(end))
    codes = [f"{600000 + i}.SH" if i < stocks / 2 else f"{i - stocks // 2:06d}.SZ" for i in range(stocks)]
    draws = np.random.default_rng(0)
    close = np.exp(draws.normal(2, 0.5, stocks))
    factor = np.exp(draws.normal(0, 0.5, stocks))
    writer = None
    for first in range(0, len(days), DAYS_A_BLOCK):
        tables = []
        for day in days[first : first + DAYS_A_BLOCK]:
            close = close * np.exp(draws.normal(0, 0.02, stocks))
            volume = np.round(np.exp(draws.normal(10, 1, stocks)))
            columns = {
                "ts_code": codes,
                "trade_date": [f"{day:%Y%m%d}"] * stocks,
                "open": close * 1.001,
                "high": close * 1.01,
                "low": close * 0.99,
                "close": close,
                "vol": volume,
                "amount": volume * close / 10,
                "adj_factor": factor,
            }
            tables.append(pa.table(columns))
        block = pa.concat_tables(tables)
        writer = writer or pq.ParquetWriter(path, block.schema)
        writer.write_table(block)
    if writer is None:
        raise UserError(f"`start` and `end` must have trading days between them, found {start} and {end}")
    writer.close()
    return len(days) * stocks


def import_file(path: Path, out: Path) -> tuple[float, float]:
    """Seconds, and the peak of this process's memory in GB."""
    from qlib_ext.market.importing.import_bars import import_bars
    from qlib_ext.market.importing.import_settings import ImportSettings

    began = time.perf_counter()
    import_bars(path, out, ImportSettings())
    seconds = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, elsewhere kilobytes
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def in_a_fresh_process(work: Callable[..., T], *given: object) -> T:
    """Result of `work` in a process started anew."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 1 where more memory or time was needed than `--gigabytes` and `--seconds` allow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stocks", type=int, default=5000)
    parser.add_argument("--start", default="2005-01-04")
    parser.add_argument("--end", default="2020-12-31")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="most memory that is allowed")
    parser.add_argument("--seconds", type=float, default=300.0, help="most time that is allowed")
    given = parser.parse_args(arguments)
    try:
        integer("stocks", given.stocks, 2)
        above("gigabytes", given.gigabytes, 0)
        above("seconds", given.seconds, 0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "market.parquet"
            rows = in_a_fresh_process(make_file, path, given.stocks, given.start, given.end)
            size = path.stat().st_size / 1e9
            seconds, peak = in_a_fresh_process(import_file, path, Path(folder) / "store")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.stocks:,} stocks, {rows:,} rows, {size:.2f} GB of Parquet")
    print(f"imported in {seconds:.1f} s (allowed {given.seconds:g} s)")
    print(f"peak memory {peak:.2f} GB (allowed {given.gigabytes:g} GB)")
    return int(seconds > given.seconds or peak > given.gigabytes)


if __name__ == "__main__":
    raise SystemExit(main())
