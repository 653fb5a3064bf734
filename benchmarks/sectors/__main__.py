"""The largest stocks of each sector, weighted by every method at the end of some years and held over the next one.

    python -m benchmarks.sectors --store cn --universe csi300 --digits 2 --train 3 --hold 2016:2020 --out reports/sectors

Each year held has the `--train` years before it for training. On the last day of training the `--stocks` largest members of
the universe are taken in each sector; every method of `methods.yaml` makes weights from what was known then, and an account for
each sector, method and year buys them on the first day of the year by the exchange's rules and keeps them to its last one. Methods
with a calendar of their own are rebalanced by it. What is done is kept in OUT/runs and not run again; the page is made of that.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import time
from pathlib import Path

import qlib

from benchmarks.sectors import page
from benchmarks.sectors.forecast_months import MONTHS, months_of
from benchmarks.sectors.forecasts import fitted, of_file
from benchmarks.sectors.methods import FILE, methods
from benchmarks.sectors.selection import Sectors, windows
from benchmarks.sectors.study import Study
from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore
from qlib_ext.terminal import quiet_qlib


def main(arguments: list[str] | None = None) -> int:
    """Run what is left of a study, and write its page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=Path, required=True, help="Qlib data directory")
    parser.add_argument(
        "--universe", default="all", help="of whose members the largest are taken (default: all)"
    )
    parser.add_argument(
        "--digits", type=int, help="first ones of an industry's code that make a sector; default: all of it"
    )
    parser.add_argument("--names", type=Path, help="CSV of code,name: what sectors are called")
    parser.add_argument(
        "--clusters",
        type=int,
        help="sectors are so many clusters of returns, where the store has no industries",
    )
    parser.add_argument("--stocks", type=int, default=10, help="of a sector, at most (default: 10)")
    parser.add_argument("--least", type=int, default=8, help="a sector with fewer is left out (default: 8)")
    parser.add_argument(
        "--train", type=int, default=3, help="years of training before each year held (default: 3)"
    )
    parser.add_argument("--hold", required=True, help="the years held, such as 2016:2020 or 2017")
    parser.add_argument("--methods", nargs="+", help="names from methods.yaml; default: all")
    parser.add_argument("--scores", help="file of scores that takes the place of LightGBM's forecasts")
    parser.add_argument("--rules", default="cn", help="the exchange's (default: cn)")
    parser.add_argument("--account", type=float, default=1e7, help="cash of each account (default: 1e7)")
    parser.add_argument("--per-year", type=float, default=243, help="trading days of a year (default: 243)")
    parser.add_argument(
        "--only", nargs="+", help="run no more than these sectors now; the page has all that are kept"
    )
    parser.add_argument("--title", default="a market", help="what the market is called on the page")
    parser.add_argument("--out", type=Path, default=Path("reports/sectors"))
    given = parser.parse_args(arguments)
    try:
        return _run(given, shlex.join(["python", "-m", "benchmarks.sectors", *(arguments or sys.argv[1:])]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _run(given: argparse.Namespace, command: str) -> int:
    begin, _, end = given.hold.partition(":")
    if not (begin.isdigit() and (end or begin).isdigit()):
        raise UserError(f"`--hold` must be a year or two with a colon, such as 2016:2020, found {given.hold}")
    chosen_methods = methods(FILE, given.methods)
    store = QlibStore(given.store)
    span = windows(store.calendar, given.train, range(int(begin), int(end or begin) + 1))
    with quiet_qlib():
        qlib.init(
            provider_uri=str(given.store),
            region="us" if given.rules == "us" else "cn",
            kernels=1,
            logging_level=40,
        )
    called = {}
    if given.names is not None:
        with given.names.open(encoding="utf-8", newline="") as file:
            called = {row["code"]: row["name"] for row in csv.DictReader(file)}
    sectors = Sectors.load(store, given.universe, digits=given.digits, called=called, clusters=given.clusters)
    chosen = {window: sectors.chosen(window, given.stocks, given.least) for window in span}
    forecasts = None
    runs = given.out / "runs"
    study = Study(
        sectors,
        chosen,
        chosen_methods,
        runs,
        rules=given.rules,
        account=given.account,
        per_year=given.per_year,
    )
    study.settings |= {"train": given.train, "scores": given.scores, "stocks": given.stocks}
    left = study.left(given.only)
    asks = any(method.forecast for method in chosen_methods)
    if asks and (
        not (runs / MONTHS).is_file() or any(method.forecast for _, _, some in left for method in some)
    ):
        make = fitted if given.scores is None else lambda *rest: of_file(given.scores, *rest)
        forecasts = make(store, given.universe, span, given.rules)
        runs.mkdir(parents=True, exist_ok=True)
        months_of(sectors, chosen, forecasts).to_parquet(runs / MONTHS, compression="zstd")
        (runs / "forecasts.txt").write_text(forecasts.said + "\n", encoding="utf-8")
    for number, (window, sector, some) in enumerate(left):
        begun = time.process_time()
        study.run(window, sector, some, forecasts)
        seconds = time.process_time() - begun
        print(
            f"{number + 1} of {len(left)}: {window.year} {sector}, {len(some)} methods, {seconds:.1f} s",
            flush=True,
        )
    told = runs / "forecasts.txt"
    said = [*study.said(), *([told.read_text(encoding="utf-8").strip()] if asks and told.is_file() else [])]
    families = {method.name: method.family for method in chosen_methods}
    for path in page.write(
        given.out, title=given.title, command=command, said=said, families=families, per_year=given.per_year
    ):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
