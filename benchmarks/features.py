"""Features against Qlib's own: every number, the time to the first batch, and growth to a whole market.

    python benchmarks/features.py --store ../shared/market/cn --random 500 --markets /tmp/markets

Three parts, each in processes of its own that have done nothing else:

- *Alpha158*: Qlib's handler makes the table of a universe, without any processor; ours makes its features, normalised.
  Time counts from the store to the first batch. Every number of every row is compared, before ours is normalised.
- *Random expressions* (`--random`): as many as asked for, of some stocks of the store, by both engines.
- *Growth* (`--markets`): made markets of 300 to 5,000 stocks and 16 years, without a cache and from it, with a picture.

Two numbers are equal that differ by at most 1e-5 of Qlib's, or by at most 1e-6 of the expression's median size: below that
Qlib's running sums have no digits left (docs/features.md). Exit status: 0 when every bar is met, 1 when one is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.data_prep import Job, Stopwatch, in_a_fresh_process, peak_gigabytes, start_qlib

if TYPE_CHECKING:
    import numpy as np

# numpy, pandas, torch and qlib are imported in the processes that are measured.

SECONDS, GIGABYTES = 6.0, 1.8
MARKET_SECONDS, MARKET_GIGABYTES, CACHED_SECONDS = 120.0, 6.0, 5.0
RELATIVE, OF_MEDIAN = 1e-5, 1e-6
STOCKS, YEARS = (300, 1000, 2500, 5000), 16

FEATURES = {"class": "qlib_ext.features.alpha158.Alpha158"}


def _handler(universe: str, start: str, end: str) -> dict[str, Any]:
    kwargs = {
        "instruments": universe,
        "fit_start_time": start,
        "fit_end_time": end,
        "features": FEATURES,
    }
    return {"class": "qlib_ext.data.handlers.panel.PanelHandler", "kwargs": kwargs}


class Anonymous(threading.Thread):
    """The most memory of a process that no file stands behind, looked at twenty times a second while it works.

    The peak that the system keeps counts pages of mapped files too, which it can take back at any time.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._done = threading.Event()

    def __enter__(self) -> Anonymous:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Until the work is done; nothing where the system does not tell."""
        status = Path("/proc/self/status")
        while status.exists():
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text(encoding="utf-8"))
            self.most = max(self.most, int(found[1]) * 1024 if found else 0)
            if self._done.wait(0.05):
                return


def measure_ours(job: Job, cache: str | None = None) -> dict[str, Any]:
    """From the store to the first day's panel."""
    watch = Stopwatch()
    from qlib_ext.data.dataset import DailyPanelDataset

    watch.lap("imports")
    start_qlib(job)
    watch.lap("qlib.init")
    with Anonymous() as anonymous:
        dataset = DailyPanelDataset(
            _handler(job.universe, job.start, job.fit_end),
            {"train": (job.start, job.fit_end)},
            **({} if cache is None else {"cache": cache}),
        )
        total = float(dataset.panels("train")[0].features.sum())
    watch.lap("store to first batch")
    rows = int(dataset.handler.panel.present.sum())
    return {
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "gigabytes": peak_gigabytes(),
        "anonymous_gigabytes": anonymous.most / 1e9,
        "rows": rows,
        "total": total,
    }


def measure_qlib(job: Job, folder: str) -> dict[str, Any]:
    """Qlib's handler, without a processor; its table is written to `folder` afterwards."""
    watch = Stopwatch()
    warnings.simplefilter("ignore")
    import numpy as np
    from qlib.contrib.data.handler import Alpha158

    watch.lap("imports")
    start_qlib(job)
    watch.lap("qlib.init")
    handler = Alpha158(
        instruments=job.universe,
        start_time=job.start,
        end_time=job.end,
        infer_processors=[],
        learn_processors=[],
    )
    table = handler.fetch(col_set="feature", data_key="raw")
    watch.lap("store to first batch")
    peak = peak_gigabytes()
    np.save(Path(folder) / "days.npy", table.index.get_level_values("datetime").to_numpy("M8[ns]"))
    np.save(Path(folder) / "codes.npy", table.index.get_level_values("instrument").to_numpy(str))
    np.save(Path(folder) / "table.npy", table.to_numpy(np.float32).T.copy())
    (Path(folder) / "names.json").write_text(json.dumps([str(name) for name in table.columns]))
    return {
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "gigabytes": peak,
        "rows": len(table),
    }


def difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """How many numbers there are, differ by more than the relative bar alone, and differ by more than both bars."""
    import numpy as np

    with np.errstate(all="ignore"):
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        both = np.isfinite(ours) & np.isfinite(theirs)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        size = float(np.median(np.abs(theirs[both]))) if both.any() else 0.0
        gap = np.where(both, np.abs(ours - theirs), np.inf)
        relative = same | (both & (gap <= RELATIVE * np.abs(theirs)))
        equal = relative | (gap <= OF_MEDIAN * size)
    return {
        "numbers": int(ours.size),
        "below_qlibs_digits": int((equal & ~relative).sum()),
        "different": int((~equal).sum()),
    }


def compare(job: Job, folder: str) -> dict[str, Any]:
    """Every number of every row that both have, feature by feature."""
    import numpy as np
    import pandas as pd

    from qlib_ext.features.alpha158 import Alpha158
    from qlib_ext.features.engine.evaluation import Program
    from qlib_ext.features.market_panel import MarketPanel
    from qlib_ext.market.store import QlibStore

    features = Alpha158()
    market = MarketPanel.load(QlibStore(job.store), job.universe, features.fields)
    days = market.calendar.get_indexer(pd.DatetimeIndex(np.load(Path(folder) / "days.npy")))
    stocks = pd.Index(market.instruments).get_indexer(np.load(Path(folder) / "codes.npy"))
    names = json.loads((Path(folder) / "names.json").read_text())
    table = np.load(Path(folder) / "table.npy", mmap_mode="r")
    found: dict[str, Any] = {}
    plane = np.empty(market.members.shape, np.float32)
    for i, name in enumerate(names):
        for values in Program([features.expressions[name]]).evaluate(market):
            plane[values.days, values.stocks] = values.plane
        plane[~market.listed] = np.nan
        found[name] = difference(plane[days, stocks], table[i])
    return found


def compare_random(job: Job, number: int, stocks: int) -> dict[str, Any]:
    """Random expressions by both engines, of every so many stocks of the universe."""
    import dataclasses

    import numpy as np
    import pandas as pd
    from qlib.data import D

    from benchmarks.random_expressions import random_expressions
    from qlib_ext.features.engine.evaluation import evaluate
    from qlib_ext.features.market_panel import MarketPanel
    from qlib_ext.market.store import QlibStore

    warnings.simplefilter("ignore")
    start_qlib(job)
    whole = MarketPanel.load(QlibStore(job.store), job.universe, ["close", "open", "high", "low", "volume"])
    chosen = np.unique(np.linspace(0, len(whole.instruments) - 1, stocks).astype(int))
    codes = tuple(whole.instruments[i] for i in chosen)
    market = dataclasses.replace(
        whole,
        instruments=codes,
        values=np.ascontiguousarray(whole.values[:, :, chosen]),
        members=whole.members[:, chosen],
    )
    found: dict[str, Any] = {}
    for text in random_expressions(number):
        table = D.features(list(codes), [text], freq="day").iloc[:, 0]
        theirs = np.full(market.members.shape, np.nan, np.float32)
        days = market.calendar.get_indexer(table.index.get_level_values("datetime"))
        theirs[days, pd.Index(codes).get_indexer(table.index.get_level_values("instrument"))] = table
        found[text] = difference(evaluate(text, market), theirs)
    return found


def measure_market(root: str, cache: str | None) -> dict[str, Any]:
    """A made market, whose first 8 years are fitted on."""
    return measure_ours(Job(root, "all", "2005-01-01", "2020-12-31", "2012-12-31"), cache)


def grow(markets: Path, stocks: int) -> dict[str, Any]:
    """One point: without a cache, and from it."""
    from benchmarks.data_scale import make_market, warm

    root = markets / f"{stocks}x{YEARS}"
    if not root.is_dir():
        make_market(root, stocks, YEARS)
    warm(root)
    with tempfile.TemporaryDirectory(prefix="features_", dir=markets) as cache:
        first = in_a_fresh_process(measure_market, str(root), cache)
        again = in_a_fresh_process(measure_market, str(root), cache)
    return {
        "stocks": stocks,
        "rows": first["rows"],
        "seconds": first["seconds"]["store to first batch"],
        "cpu_seconds": first["cpu_seconds"]["store to first batch"],
        "gigabytes": first["gigabytes"],
        "anonymous_gigabytes": first["anonymous_gigabytes"],
        "cached_seconds": again["seconds"]["store to first batch"],
        "cached_cpu_seconds": again["cpu_seconds"]["store to first batch"],
        "cached_gigabytes": again["gigabytes"],
    }


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Time and memory over rows."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
    rows = [point["rows"] / 1e6 for point in points]
    for axis, names, label in (
        (axes[0], ("cpu_seconds", "cached_cpu_seconds"), "seconds of CPU"),
        (axes[1], ("gigabytes", "anonymous_gigabytes", "cached_gigabytes"), "GB at most"),
    ):
        for name in names:
            axis.plot(rows, [point[name] for point in points], marker="o", label=name.replace("_", " "))
        axis.set(xlabel="million rows of 158 features", ylabel=label, xlim=0, ylim=0)
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _speed(console: Console, ours: dict[str, Any], qlib: dict[str, Any]) -> None:
    table = Table(title="Alpha158, store to first batch", title_justify="left")
    for name in ("", "Qlib's Alpha158", "ours"):
        table.add_column(name, justify="right" if name else "left")
    for name, kind in (("seconds", "seconds"), ("CPU seconds", "cpu_seconds")):
        table.add_row(name, *(f"{side[kind]['store to first batch']:.1f}" for side in (qlib, ours)))
    table.add_row("peak memory, GB", f"{qlib['gigabytes']:.2f}", f"{ours['gigabytes']:.2f}")
    table.add_row("rows", f"{qlib['rows']:,}", f"{ours['rows']:,}")
    console.print(table)


def _equality(console: Console, title: str, found: dict[str, Any]) -> int:
    """Print what is not equal; how many expressions that is."""
    numbers, below = (sum(each[key] for each in found.values()) for key in ("numbers", "below_qlibs_digits"))
    wrong = {name: each for name, each in found.items() if each["different"]}
    console.print(
        f"{title}: {len(found) - len(wrong)} of {len(found)} expressions equal, {numbers:,} numbers, of which "
        f"{below:,} are below Qlib's digits"
    )
    for name, each in wrong.items():
        console.print(f"  {name[:90]}: {each['different']:,} of {each['numbers']:,} differ", markup=False)
    return len(wrong)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether every bar is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", help="Qlib data directory")
    parser.add_argument("--universe", default="csi300")
    parser.add_argument("--random", type=int, default=0, help="random expressions to compare")
    parser.add_argument("--stocks", type=int, default=20, help="stocks that they are compared on")
    parser.add_argument("--markets", type=Path, help="folder for made markets")
    parser.add_argument("--points", type=int, nargs="*", default=STOCKS, help="sizes of the made markets")
    parser.add_argument("--ours-only", action="store_true", help="leave Qlib's table out")
    parser.add_argument("--out", type=Path, help="folder for the figures and the picture")
    given = parser.parse_args(arguments)
    console = Console(width=110)
    met: list[bool] = []
    figures: dict[str, Any] = {"load_average_before": os.getloadavg()[0]}
    if given.store:
        store = str(Path(given.store).expanduser().resolve())
        job = Job(store, given.universe, "2010-01-01", "2020-12-31", "2014-12-31")
        figures["ours"] = ours = in_a_fresh_process(measure_ours, job)
        met += [ours["seconds"]["store to first batch"] <= SECONDS, ours["gigabytes"] <= GIGABYTES]
        if not given.ours_only:
            with tempfile.TemporaryDirectory(prefix="features_") as folder:
                figures["qlib"] = in_a_fresh_process(measure_qlib, job, folder)
                _speed(console, ours, figures["qlib"])
                figures["alpha158"] = in_a_fresh_process(compare, job, folder)
            met.append(not _equality(console, "Alpha158", figures["alpha158"]))
        else:
            console.print_json(data=ours)
        if given.random:
            figures["random"] = in_a_fresh_process(compare_random, job, given.random, given.stocks)
            _equality(console, "Random expressions", figures["random"])
    if given.markets:
        points = [grow(given.markets, stocks) for stocks in given.points]
        figures["growth"] = points
        for point in points:
            console.print(point)
        for point in points:
            if point["stocks"] < STOCKS[-1]:  # the bars are those of a whole market
                continue
            met += [
                point["seconds"] <= MARKET_SECONDS,
                point["gigabytes"] <= MARKET_GIGABYTES,
                point["cached_seconds"] <= CACHED_SECONDS,
            ]
    console.print(
        f"load average before: {figures['load_average_before']:.1f}; bars met: {sum(met)} of {len(met)}"
    )
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "features.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        if given.markets:
            draw(figures["growth"], given.out / "growth.png")
            with (given.out / "growth.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(figures["growth"][0]))
                writer.writeheader()
                writer.writerows(figures["growth"])
    return 0 if all(met) else 1


if __name__ == "__main__":
    raise SystemExit(main())
