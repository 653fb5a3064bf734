"""Ask `qlib-ext recommend` day by day on a store that grows, and hold the orders against those of the backtest, one by one.

    OMP_NUM_THREADS=1 python -m benchmarks.daily_year --store ../shared/market/cn --start 2020-01-02 --end 2020-12-30

A LightGBM on Alpha360 is trained on what the store had the day before `--start`. Then each day is added by `qlib-ext data
update`, new members by `data universe`, and `recommend --on-the-day --current FILE` says the orders; the simulated exchange
trades them, and what the account then holds is the file of the next day. The backtest trades the same model's scores of all
these days at once. `--portfolio` names a YAML file with another strategy, `--evening` asks for the lists of the evenings too.

Exit status: 0 where every order is the backtest's, 1 where one is not.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from qlib_ext.terminal import quiet_imports

with quiet_imports():
    import qlib
    from mlflow.tracking import MlflowClient
    from qlib.model.trainer import task_train

    from benchmarks.daily_year.days import (
        ByList,
        Desk,
        GrowingStore,
        backtest,
        cut,
        differences,
        of_the_evening,
        traded,
    )
    from qlib_ext.market.store import QlibStore
    from qlib_ext.recommend.daily_list import backtest_settings, exchange_settings
    from qlib_ext.recommend.trained import TrainedRun
    from qlib_ext.tracking.runs import find_run
    from qlib_ext.workflow.scored import read_portfolio

WORKFLOW = Path(__file__).parent.parent.parent / "workflows" / "lightgbm_csi300.yaml"
YEARS, MONTHS = 3, 6  # of training, and of validation and of test each, before the first day
RECORDS = ("SignalRecord", "BacktestRecord")
SMALL = {"num_boost_round": 30, "num_leaves": 31, "num_threads": 1}


def train(store: QlibStore, folder: Path, portfolio: dict[str, Any] | None) -> str:
    """Train on a store up to its last day; the id of the run."""
    ends = [store.calendar[-1] - pd.DateOffset(months=MONTHS * back) for back in (2, 1, 0)]
    begin = ends[0] - pd.DateOffset(years=YEARS)
    one = pd.Timedelta(days=1)
    spans = {"train": (begin, ends[0]), "valid": (ends[0] + one, ends[1]), "test": (ends[1] + one, ends[2])}
    text = jinja2.Template(WORKFLOW.read_text(encoding="utf-8")).render(
        QLIB_DATA=str(store.root), PANEL_CACHE="off"
    )
    config = yaml.safe_load(text)
    task = config["task"]
    task["model"]["kwargs"] |= SMALL
    task["dataset"]["kwargs"]["segments"] = {
        name: [f"{day:%Y-%m-%d}" for day in span] for name, span in spans.items()
    }
    task["record"] = [record for record in task["record"] if record["class"].endswith(RECORDS)]
    if portfolio is not None:
        task["record"][-1]["kwargs"] |= portfolio
    config["qlib_init"]["exp_manager"]["kwargs"]["uri"] = f"sqlite:///{folder / 'mlflow.db'}"
    qlib.init(**config["qlib_init"], logging_level=40)
    return str(task_train(task, "daily_year").id)


def main() -> int:
    """Train, trade both ways and compare; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--universe", default="csi300")
    parser.add_argument("--start", default="2020-01-02", help="first day that is traded")
    parser.add_argument("--end", default="2020-12-30", help="last one; the store has a day after it")
    parser.add_argument("--portfolio", type=Path, help="strategy and backtest, as for `qlib-ext backtest`")
    parser.add_argument("--evening", action="store_true")
    given = parser.parse_args()
    whole = QlibStore(given.store.resolve())
    portfolio = None if given.portfolio is None else read_portfolio(given.portfolio)
    days = whole.calendar[(whole.calendar >= given.start) & (whole.calendar <= given.end)]
    before = whole.calendar[whole.calendar < days[0]][-1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        seconds = time.process_time()
        store = cut(whole, folder / "store", before)
        run_id = train(store, folder, portfolio)
        client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        run = TrainedRun.open(client, find_run(client, run_id), folder / "kept")
        print(
            f"trained on the days up to {before:%Y-%m-%d}: {time.process_time() - seconds:.0f} s", flush=True
        )
        seconds = time.process_time()
        qlib.init(
            provider_uri=str(whole.root), region="cn", kernels=1, logging_level=40, clear_mem_cache=True
        )
        dataset = run.dataset({"days": (days[0], days[-1])})
        own = run.artifacts.table("signal/predictions.parquet")["score"]
        scores = (
            pd.concat([own, run.model(dataset).predict(dataset, "days").rename("score")])
            .sort_index()
            .dropna()
        )
        settings, how = exchange_settings(run), backtest_settings(run)
        assert how is not None
        account, span = float(how["backtest"]["account"]), (days[0], days[-1])
        tested = backtest(how["strategy"], scores, whole, span, settings, account)
        print(f"the backtest of {len(days)} days: {time.process_time() - seconds:.0f} s", flush=True)
        seconds = time.process_time()
        desk = Desk(
            GrowingStore(whole, store.root, given.universe),
            run_id,
            folder,
            f"sqlite:///{folder / 'mlflow.db'}",
            remembers=portfolio is not None,
            evening=given.evening,
        )
        codes = sorted(scores.index.unique("instrument"))
        daily = traded(lambda: ByList(desk), whole, codes, span, settings, account)
        spent = time.process_time() - seconds
        print(f"{len(days)} days by lists: {spent:.0f} s, {spent / len(days):.1f} s a day", flush=True)
        found = differences(tested, daily, desk)
        if given.evening:
            same, of = of_the_evening(desk)
            print(f"the lists of the evenings before had {same:,} of the {of:,} orders, by code and side")
    book = tested.result.orders
    sent = book[book["sent"]]
    print(
        f"{days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {len(days)} days: {len(sent):,} orders "
        f"({(sent['direction'] == 'sell').sum():,} sales), {(sent['status'] != 'filled').sum():,} not filled in full, "
        f"{(~book['sent']).sum():,} held back; account {tested.result.daily['account'].iloc[-1]:,.2f}, by lists "
        f"{daily.result.daily['account'].iloc[-1]:,.2f}"
    )
    for one in found:
        print(one)
    print(f"{len(found)} differences")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
