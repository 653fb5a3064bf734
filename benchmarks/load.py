"""Load: what a long report, a wide universe, a store of many files and a comparison of many runs take.

    python -m benchmarks.load --work /tmp/load

Each case is measured at three sizes, each twice the one before, in a process of its own that has done nothing else:
seconds of the processor by step (on a busy machine the clock says little) and the peak memory. The exponent of a step is
the slope of its seconds over its size, both as logarithms: 1 is linear. The markets are samples, the scores drawn at
random around the labels, so that no training is in it. Writes a table, a picture and a page to `--out`.

`--cases` says what is measured again; what stands in the table of others is kept.

Exit status: 1 when a step grows worse than linearly (exponent above 1.15, and more than a second), 0 else.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from qlib_ext.market.universes.top_universe import TopUniverse

# Case -> its sizes, and what they count.
CASES: dict[str, tuple[tuple[int, ...], str]] = {
    "days": ((750, 1500, 3000), "days of a report on 500 stocks"),
    "stocks": ((750, 1500, 3000), "stocks of a universe, 250 days"),
    "files": ((12_500, 25_000, 50_000), "files of a store"),
    "runs": ((50, 100, 200), "runs that are compared, 500 days each"),
}
LIMIT, SECONDS = 1.15, 1.0
UNIVERSE = "large"
CSV, PNG, PAGE = "load.csv", "load.png", "README.md"
WARM_UP, TRAIN = 70, 60  # days before the first that is predicted

Seconds = dict[str, float]


@contextmanager
def timed(found: Seconds, step: str) -> Iterator[None]:
    """Add what the block takes of the processor."""
    before = time.process_time()
    yield
    found[step] = found.get(step, 0.0) + time.process_time() - before


def market(folder: Path, stocks: int, days: int) -> Path:
    """A sample market of so many stocks and at least so many days; one that is there is taken."""
    from qlib_ext.market.store import QlibStore
    from qlib_ext.market.synthetic.sample import SampleMarket
    from qlib_ext.market.universes.universes import write_universe

    root = folder / f"market_{stocks}_{days}"
    end = pd.Timestamp("2006-01-04") + pd.Timedelta(days=int(days * 1.53) + 20)
    SampleMarket(seed=1, stocks=stocks, start="2006-01-04", end=f"{end:%Y-%m-%d}").write(root)
    if UNIVERSE not in QlibStore(root).universes():
        write_universe(root, rule(stocks).choose(QlibStore(root)))
    return root


def rule(stocks: int) -> TopUniverse:
    """The universe of all stocks of a market, without its indices."""
    from qlib_ext.market.universes.top_universe import TopUniverse

    return TopUniverse(
        UNIVERSE, top=stocks, min_history_days=20, exclude=["SH000016", "SH000300", "SH000903"]
    )


def task(calendar: pd.DatetimeIndex, days: int) -> dict[str, Any]:
    """A workflow's task over the last `days`, with the records of the standard report but sweeps and audits."""
    stamps = calendar.strftime("%Y-%m-%d")
    first = len(stamps) - days - 3
    train = [stamps[first - TRAIN - 5], stamps[first - 25]]
    handler = {
        "class": "qlib_ext.data.handlers.panel.PanelHandler",
        "kwargs": {
            "features": {"class": "qlib_ext.features.alpha360.Alpha360"},
            "instruments": UNIVERSE,
            "fit_start_time": train[0],
            "fit_end_time": train[1],
            "labels": {
                "RETURN": "Ref($close, -2) / Ref($close, -1) - 1",
                "NEXT_RETURN": "Ref($close, -1) / $close - 1",
            },
        },
    }
    segments = {
        "train": train,
        "valid": [stamps[first - 20], stamps[first - 5]],
        "test": [stamps[first], stamps[-4]],
    }
    dataset = {"cache": "off", "benchmark": "SH000300", "handler": handler, "segments": segments}
    strategy = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 50, "n_drop": 5}}
    costs = {"limit_threshold": 0.095, "open_cost": 0.0005, "close_cost": 0.0015, "min_cost": 5}
    backtest = {"account": 1e8, "exchange_kwargs": {"deal_price": "close", **costs}}
    records = {
        "signal.SignalRecord": {},
        "ranking.RankingRecord": {"labels": ["RETURN", "NEXT_RETURN"]},
        "backtest.BacktestRecord": {"strategy": strategy, "backtest": backtest},
        "portfolio.PortfolioRecord": {},
        "benchmarks.BenchmarksRecord": {},
        "construction.ConstructionRecord": {},
        "attribution.AttributionRecord": {},
        "trades.TradesRecord": {},
        "signal_analysis.SignalAnalysisRecord": {},
        "report.ReportRecord": {},
    }
    return {
        "model": {"class": "drawn.Scores"},
        "dataset": {"class": "qlib_ext.data.dataset.DailyPanelDataset", "kwargs": dataset},
        "record": [{"class": f"qlib_ext.records.{name}", "kwargs": given} for name, given in records.items()],
    }


class DrawnScores:
    """A model that has learned nothing: the label, and ten times as much chance."""

    def predict(self, dataset: Any) -> pd.Series:
        """A score for each stock of each day of the test segment."""
        label = dataset.prepare("test", col_set="label")["RETURN"]
        chance = np.random.default_rng(0).normal(0, 10 * label.std(), len(label))
        return label.fillna(0) + chance


def road(work: Path, stocks: int, days: int) -> Seconds:
    """From a market to a report: the dataset, and each record."""
    import qlib
    from qlib.utils import init_instance_by_config
    from qlib.workflow import R

    from qlib_ext.market.store import QlibStore
    from qlib_ext.terminal import quiet_libraries

    root = market(work, stocks, days + WARM_UP + TRAIN + 40)
    run = work / f"runs_{stocks}_{days}"
    run.mkdir(parents=True, exist_ok=True)
    manager = {
        "class": "ExperimentManager",
        "module_path": "qlib_ext.workflow.experiment",
        "kwargs": {"uri": f"sqlite:///{run}/mlflow.db", "default_exp_name": "load"},
    }
    os.chdir(run)
    qlib.init(
        provider_uri=str(root), region="cn", kernels=1, exp_manager=manager, logging_level=logging.ERROR
    )
    quiet_libraries(logging.ERROR)
    found: Seconds = {}
    config = task(QlibStore(root).calendar, days)
    with R.start(experiment_name="load"):
        recorder = R.get_recorder()
        recorder.save_objects(task=config)
        with timed(found, "dataset"):
            dataset = init_instance_by_config(config["dataset"])
        for record in config["record"]:
            given = {"model": DrawnScores(), "dataset": dataset}
            with timed(found, record["class"].rpartition(".")[2].removesuffix("Record").lower()):
                made = init_instance_by_config(record, recorder=recorder, try_kwargs=given)
                made.generate()
    return found


def days(work: Path, size: int) -> Seconds:
    """A report of many days."""
    return road(work, 500, size)


def stocks(work: Path, size: int) -> Seconds:
    """A universe of many stocks: chosen by a rule, then the whole road on all of them."""
    from qlib_ext.market.store import QlibStore

    found: Seconds = {}
    root = market(work, size, 250 + WARM_UP + TRAIN + 40)
    with timed(found, "universe"):
        rule(size).choose(QlibStore(root))
    return found | road(work, size, 250)


def files(work: Path, size: int) -> Seconds:
    """A store of many small files: looked at, audited, hashed, and copied as a replacement does."""
    from qlib_ext.market.info import store_info
    from qlib_ext.market.quality.check import check_store
    from qlib_ext.market.replace import copy_store
    from qlib_ext.market.store import QlibStore, signature

    found: Seconds = {}
    root = market(work, 100, 250)
    large = work / f"files_{size}"
    folder = next(path for path in sorted((root / "features").iterdir()) if path.name.startswith("sh6"))
    bins = sorted(folder.iterdir())
    if not large.is_dir():
        copy_store(root, large, leave_out=lambda path: path.parts[0] == "features" and len(path.parts) > 1)
        for number in range(size // len(bins)):
            stock = large / "features" / f"sh{600_000 + number}"
            stock.mkdir()
            for file in bins:
                (stock / file.name).write_bytes(file.read_bytes())
    store = QlibStore(large)
    steps: dict[str, Callable[[], object]] = {
        "info": lambda: store_info(large, fingerprint=False),
        "check": lambda: check_store(large),
        "fingerprint": store.fingerprint,
        "signature": lambda: signature(large),
        "copy": lambda: copy_store(large, work / f"copy_{size}_{time.time_ns()}"),
    }
    for step, run in steps.items():
        with timed(found, step):
            run()
    return found


def runs(work: Path, size: int) -> Seconds:
    """A comparison of groups of five runs on MLflow, made up as those of its tests."""
    from qlib_ext.report.comparison import runs as reading
    from qlib_ext.report.comparison.compared import compare
    from qlib_ext.report.comparison.document import render
    from qlib_ext.tracking.runs import connect, find_runs
    from tests.report.comparison.conftest import Store

    found: Seconds = {}
    home = work / f"compared_{size}"
    if not home.is_dir():
        home.mkdir(parents=True)
        store = Store(home)
        for seed in range(size):
            params = {"model.kwargs.balancer.kwargs.beta": str(seed // 5)}
            store.run(f"run {seed}", seed=seed, skill=0.02 + 0.002 * (seed // 5 % 5), days=500, params=params)
    client = connect(f"sqlite:///{home}/mlflow.db")
    with timed(found, "read"):
        read, left_out = reading.read(client, find_runs(client, ["main"], finished=False))
    with timed(found, "compare"):
        comparison = compare(read, left_out)
    with timed(found, "page"):
        page = render(comparison, "Load", {})
    found["megabytes of the page"] = len(page) / 1e6
    return found


def measure(case: str, size: int, work: Path) -> list[dict[str, Any]]:
    """One point, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.load", "--point", case, str(size), "--work", str(work)]
    ended = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    answer = json.loads(ended.stdout.splitlines()[-1])
    return [
        {"case": case, "size": size, "step": step, "seconds": round(value, 3), "peak_mb": answer["peak_mb"]}
        for step, value in answer["seconds"].items()
    ]


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """A row a step: seconds by size, and the slope of their logarithms."""
    rows = []
    for (case, step), part in table.groupby(["case", "step"], sort=False):
        part = part.sort_values("size")
        slope = float("nan")
        if len(part) > 1 and (part["seconds"] > 0).all():
            slope = np.polyfit(np.log(part["size"]), np.log(part["seconds"]), 1)[0]
        rows.append((case, step, *part["seconds"], slope))
    width = max(len(row) for row in rows) - 3
    return pd.DataFrame(
        [(*row[:-1], *[np.nan] * (width - len(row) + 3), row[-1]) for row in rows],
        columns=["case", "step", *(f"s{n}" for n in range(width)), "exponent"],
    )


def whole(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a row for each point's sum of seconds and for its peak of memory."""
    steps = table[~table["step"].str.startswith("megabytes")]
    sums = steps.groupby(["case", "size"], sort=False, as_index=False).agg(
        seconds=("seconds", "sum"), peak_mb=("peak_mb", "max")
    )
    peaks = sums.assign(step="peak memory, MB", seconds=sums["peak_mb"])
    return pd.concat([table, sums.assign(step="all"), peaks], ignore_index=True)


def page(table: pd.DataFrame) -> str:
    """The page that goes with table and picture."""
    text = [
        "# Load",
        "",
        "Made by",
        "",
        "```sh",
        ".venv/bin/python -m benchmarks.load --work /tmp/load",
        "```",
        "",
        (
            f"on {os.cpu_count()} CPU cores (Python {platform.python_version()}), over sample markets. Seconds are those of "
            "the processor, in a process of its own for each size; the exponent is the slope of seconds over size, both as "
            "logarithms: 1 is linear, 0 is no growth. Steps of less than a second are mostly what does not grow. The load average "
            f"of the machine at the end was {os.getloadavg()[0]:.0f}: above the number of cores, processes take the caches from "
            "each other, and the largest sizes suffer most."
        ),
        "",
        f"![seconds and memory by size]({PNG})",
    ]
    rows = exponents(whole(table))
    for case, (_, what) in CASES.items():
        sizes = sorted(table.loc[table["case"] == case, "size"].unique())
        if not sizes:
            continue
        text += ["", f"## {what[0].upper()}{what[1:]}", ""]
        text += [f"| step, s | {' | '.join(f'{size:,}' for size in sizes)} | exponent |"]
        text += [f"|---|{'---:|' * (len(sizes) + 1)}"]
        for row in rows[rows["case"] == case].itertuples(index=False):
            cells = [f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in row[2 : 2 + len(sizes)]]
            text.append(f"| {row.step} | {' | '.join(cells)} | {row.exponent:.2f} |")
    return "\n".join(text) + "\n"


def draw(table: pd.DataFrame, path: Path) -> None:
    """Seconds of all steps and peak memory of each case, over size, as multiples of the smallest."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    every = whole(table)
    for axis, step, title in zip(
        axes, ("all", "peak memory, MB"), ("processor seconds", "peak memory"), strict=True
    ):
        for case, (_, what) in CASES.items():
            part = every[(every["case"] == case) & (every["step"] == step)].sort_values("size")
            if len(part):
                axis.plot(part["size"] / part["size"].min(), part["seconds"], marker="o", label=what)
        axis.set(xscale="log", yscale="log", xlabel="size, times the smallest", title=title)
        axis.set_xticks([1, 2, 4], ["1", "2", "4"])
        axis.plot([1, 4], [axis.get_ylim()[0] * 1.1, axis.get_ylim()[0] * 4.4], "k:", label="linear")
        axis.minorticks_off()
    axes[0].set_ylabel("s")
    axes[1].set_ylabel("MB")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of markets and runs; 3 GB")
    parser.add_argument("--out", type=Path, default=Path("reports/load"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--point", nargs=2, metavar=("CASE", "SIZE"), help="measure this alone and print it")
    given = parser.parse_args()
    work = given.work.absolute()
    if given.point is not None:
        case, size = given.point
        seconds = {"days": days, "stocks": stocks, "files": files, "runs": runs}[case](work, int(size))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        sys.stdout.write("\n" + json.dumps({"seconds": seconds, "peak_mb": round(peak)}) + "\n")
        return 0
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(out / CSV) if (out / CSV).is_file() else pd.DataFrame(columns=["case"])
    for case in given.cases:
        for size in CASES[case][0]:
            point = pd.DataFrame(measure(case, size, work))
            old = table if table.empty else table[(table["case"] != case) | (table["size"] != size)]
            table = point if old.empty else pd.concat([old, point], ignore_index=True)
            table.to_csv(out / CSV, index=False)
            sys.stderr.write(f"{case} {size}: {point['seconds'].sum():.1f} s, {point['peak_mb'].max()} MB\n")
    (out / PAGE).write_text(page(table), encoding="utf-8")
    draw(table, out / PNG)
    rows = exponents(table)
    worse = rows[(rows["exponent"] > LIMIT) & (rows[rows.columns[-2]] > SECONDS)]
    for row in worse.itertuples(index=False):
        sys.stderr.write(f"worse than linear: {row.case}, {row.step}: exponent {row.exponent:.2f}\n")
    return 1 if len(worse) else 0


if __name__ == "__main__":
    sys.exit(main())
