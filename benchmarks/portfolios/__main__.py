"""Twenty-three portfolios of the same scores, after cost, against what needs no skill, and what constraints cost.

    python -m benchmarks.portfolios run --store cn --scores lightgbm=lightgbm.parquet --scores mimstocr=mimstocr.parquet
    python -m benchmarks.portfolios report

The store needs industries (`qlib-ext data side-data cn industry FILE`); docs/factors.md has the commands. What a run has found
stays in reports/portfolio/runs, a folder for each, and is not made again. Portfolios for which scores decide nothing but who is a
candidate are traded once, with the first scores. Without industries, portfolios that need them are left out, and that is told.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.portfolios.report import NO_SCORES, slug, write_report
from benchmarks.portfolios.trading import Traded, trade
from qlib_ext.checks import UserError
from qlib_ext.files import load_yaml, read_text

CONFIGS = Path(__file__).with_name("portfolios.yaml")


def main() -> None:
    """Trade what is not there yet, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--scores", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--market", default="cn", help="name of the market, and of its table of rules")
    parser.add_argument("--index", default="SH000300", help="code of the index, or none")
    parser.add_argument("--start", help="first day of the scores to trade")
    parser.add_argument("--end", help="last day of the scores to trade")
    parser.add_argument("--only", action="append", help="names of portfolios; all where none is given")
    parser.add_argument("--out", type=Path, default=Path("reports/portfolio"))
    given = parser.parse_args()
    configs = load_yaml(read_text(CONFIGS))
    if given.command == "report":
        write_report(given.out, configs)
        return
    if given.store is None or not given.scores:
        parser.error("`run` needs --store and --scores NAME=FILE")
    if unknown := {*(given.only or [])} - {*configs["portfolios"]}:
        parser.error(f"--only must be of {CONFIGS.name}, found {', '.join(sorted(unknown))}")
    given.index = None if given.index == "none" else given.index
    for place, pair in enumerate(given.scores):
        name, _, file = pair.partition("=")
        market = None
        for portfolio, config in configs["portfolios"].items():
            of_scores = config.get("scores", True)
            if (given.only and portfolio not in given.only) or (not of_scores and place):
                continue
            kind = name if of_scores else NO_SCORES
            folder = given.out / "runs" / given.market / kind / slug(portfolio)
            if (folder / "summary.json").exists():
                continue
            market = market or Traded.of(
                Path(file), given.store, given.index, given.market, given.start, given.end
            )
            try:
                trade(market, config, folder)
            except UserError as error:
                print(f"{given.market}, {kind}: {portfolio} is left out: {error}", flush=True)
                continue
            print(f"{given.market}, {kind}: {portfolio}", flush=True)


if __name__ == "__main__":
    main()
