"""Our panels against Qlib's own Alpha360 table: time to the first batch, peak memory, largest difference.

    python benchmarks/data_prep.py --store ../shared/market/cn

Both sides prepare the same thing from the same store: Alpha360 of a universe under RobustZScoreNorm with clipping and
Fillna, fitted on the training days, with the return label ranked a day, up to the features and labels of the first
training day. Each side runs in a process of its own, started anew, one after the other, so that its peak memory is
its own. Time counts from the store to the first batch; the imports and `qlib.init` before it are shown apart. The
files of the store are read once before, so that no side pays for a cold disk.

The difference is over every number of every row that both have, a day at a time: Qlib's process writes its table to
a temporary file (1 GB for CSI300 2010-2020), and a third process gathers our windows beside it.

Exit status: 0 when every bar is met, 1 when one is missed, 2 when the comparison could not be made.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qlib_ext.checks import UserError

# numpy, pandas, torch and qlib are imported in the processes that are measured: there their memory and time belong,
# and a process that is started inherits the peak of the one that starts it.

SECONDS, GIGABYTES, DIFFERENCE = 4.0, 0.8, 2e-4
FIELDS = ("close", "open", "high", "low", "vwap", "volume")
NOTHING = "-"


@dataclass(frozen=True)
class Job:
    """What both sides prepare; dates as text, both ends included."""

    store: str
    universe: str
    start: str
    end: str
    fit_end: str


class Stopwatch:
    """Seconds by stage: on the clock, and of the CPU, which on a busy machine says more about the code."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._last = time.perf_counter(), time.process_time()

    def lap(self, stage: str) -> None:
        """End `stage` here; it began where the one before ended."""
        now = time.perf_counter(), time.process_time()
        self.seconds[stage] = now[0] - self._last[0]
        self.cpu_seconds[stage] = now[1] - self._last[1]
        self._last = now


def peak_gigabytes() -> float:
    """Peak resident memory of this process so far, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def start_qlib(job: Job) -> None:
    """Qlib on the store of a job, on one core."""
    import qlib

    qlib.init(provider_uri=job.store, region="cn", kernels=1, logging_level=logging.WARNING)


def _dataset(job: Job, segments: dict[str, tuple[str, str]]) -> Any:
    from qlib_ext.data.dataset import DailyPanelDataset

    processors = "qlib_ext.data.processors"
    kwargs = {
        "instruments": job.universe,
        "fit_start_time": job.start,
        "fit_end_time": job.fit_end,
        "infer_processors": [{"class": f"{processors}.momentum_line.MomentumLine"}],
        "learn_processors": [{"class": f"{processors}.cross_section_norm.CrossSectionNorm"}],
    }
    handler = {"class": "qlib_ext.data.handlers.panel.PanelHandler", "kwargs": kwargs}
    return DailyPanelDataset(handler, segments)


def measure_ours(job: Job) -> dict[str, Any]:
    """From the store to the first day's panel."""
    watch = Stopwatch()
    import qlib_ext.data.dataset  # noqa: F401

    watch.lap("imports")
    start_qlib(job)
    watch.lap("qlib.init")
    dataset = _dataset(job, {"train": (job.start, job.fit_end)})
    day = dataset.panels("train")[0]
    total = float(day.features.sum()) + float(day.labels["RETURN"].nansum())
    watch.lap("store to first batch")
    peak = peak_gigabytes()
    rows = int(dataset.handler.panel.present.sum())
    return {
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "peak_gigabytes": peak,
        "market_rows": rows,
        "checksum": total,
    }


def measure_qlib(job: Job, folder: str) -> dict[str, Any]:
    """From the store to the first day of Qlib's table; the table is written to `folder` afterwards."""
    watch = Stopwatch()
    warnings.simplefilter("ignore")  # what pandas and numpy have to say to Qlib
    import numpy as np
    import torch
    from qlib.contrib.data.handler import Alpha360

    watch.lap("imports")
    start_qlib(job)
    watch.lap("qlib.init")
    handler = Alpha360(
        instruments=job.universe,
        start_time=job.start,
        end_time=job.end,
        fit_start_time=job.start,
        fit_end_time=job.fit_end,
        infer_processors=[
            {"class": "RobustZScoreNorm", "kwargs": {"fields_group": "feature", "clip_outlier": True}},
            {"class": "Fillna", "kwargs": {"fields_group": "feature"}},
        ],
        learn_processors=[
            {"class": "DropnaLabel"},
            {"class": "CSRankNorm", "kwargs": {"fields_group": "label"}},
        ],
    )
    first = handler.fetch(col_set="label", data_key="learn").index[0][0]
    day = handler.fetch(slice(first, first), col_set=["feature", "label"], data_key="learn")
    total = float(torch.from_numpy(day.to_numpy(dtype=np.float32)).nansum())
    watch.lap("store to first batch")
    peak = peak_gigabytes()

    features = handler.fetch(col_set="feature", data_key="infer")
    np.save(Path(folder) / "days.npy", features.index.get_level_values("datetime").to_numpy("M8[ns]"))
    np.save(Path(folder) / "instruments.npy", features.index.get_level_values("instrument").to_numpy(str))
    np.save(Path(folder) / "names.npy", np.array(features.columns, dtype=str))
    written = np.lib.format.open_memmap(
        Path(folder) / "table.npy", mode="w+", dtype=np.float32, shape=features.shape
    )
    for begin in range(0, len(features), 20_000):
        written[begin : begin + 20_000] = features.iloc[begin : begin + 20_000]
    written.flush()
    return {
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "peak_gigabytes": peak,
        "table_rows": len(features),
        "checksum": total,
    }


def compare(job: Job, folder: str) -> dict[str, Any]:
    """Every number of every row that both have, a day at a time."""
    import numpy as np

    start_qlib(job)
    dataset = _dataset(job, {"all": (job.start, job.end)})
    panel, features, panels = dataset.handler.panel, dataset.handler.features, dataset.panels("all")
    days, instruments, names = (
        np.load(Path(folder) / f"{part}.npy") for part in ("days", "instruments", "names")
    )
    if names.tolist() != features.column_names():
        raise UserError("Qlib's columns are not those of `Alpha360`, so there is nothing to compare")
    table = np.load(Path(folder) / "table.npy", mmap_mode="r")
    close = panel.field("close")
    column_of = {code: column for column, code in enumerate(panel.instruments)}
    order = np.argsort(days, kind="stable")
    starts = np.searchsorted(days[order], panel.calendar.to_numpy("M8[ns]"), side="left")
    stops = np.searchsorted(days[order], panel.calendar.to_numpy("M8[ns]"), side="right")
    position_of = {int(day): position for position, day in enumerate(panels.days)}
    largest, where, shared, ours_only, qlib_only, without_close, empty = 0.0, "", 0, 0, 0, 0, 0
    for day in np.flatnonzero((panel.calendar >= job.start) & (panel.calendar <= job.end)).tolist():
        rows = order[starts[day] : stops[day]]
        columns = [column_of.get(code, -1) for code in instruments[rows]]
        row_of = {column: row for column, row in zip(columns, rows, strict=True) if column >= 0}
        if day in position_of:
            batch = panels[position_of[day]]
            stocks = batch.instruments.tolist()
        else:
            batch, stocks = None, []
        common = [i for i, stock in enumerate(stocks) if stock in row_of]
        shared += len(common)
        ours_only += len(stocks) - len(common)
        alone = sorted(set(columns) - set(stocks))
        qlib_only += len(alone)
        if alone:
            without_close += sum(column >= 0 and np.isnan(close[day, column]) for column in alone)
            empty += int((table[[row_of[column] for column in alone if column >= 0]] == 0).all(axis=1).sum())
        if batch is None or not common:
            continue
        features = batch.features.transpose(1, 2).reshape(len(stocks), -1).numpy()[common]
        # a table that held a NaN would compare as equal to anything
        theirs = table[[row_of[stocks[i]] for i in common]]
        difference = np.nan_to_num(np.abs(features - theirs), nan=np.inf)
        if difference.max() > largest:
            row, column = np.unravel_index(difference.argmax(), difference.shape)
            largest = float(difference[row, column])
            where = f"{names[column]} of {panel.instruments[stocks[common[row]]]} on {panel.calendar[day]:%Y-%m-%d}"
    if not shared:
        raise UserError(f"no row of `{job.universe}` is in both tables, so there is nothing to compare")
    return {
        "largest_difference": largest,
        "where": where,
        "rows_shared": shared,
        "rows_only_ours": ours_only,
        "rows_only_qlib": qlib_only,
        "rows_only_qlib_without_close": int(without_close),
        "rows_only_qlib_all_zero": empty,
    }


def in_a_fresh_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run `work` in a process that has done nothing else."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(work, *arguments).result()


def warm(store: str) -> None:
    """Read the files that both sides will read, so that they come from memory for both."""
    for field in FIELDS:
        for path in Path(store).glob(f"features/*/{field}.day.bin"):
            path.read_bytes()


def measure(job: Job, console: Console, ours_only: bool = False) -> dict[str, Any]:
    """Everything that the report says, ready for JSON."""
    found: dict[str, Any] = {
        "job": asdict(job) | {"store": Path(job.store).name},
        "machine": {
            "cpus": os.cpu_count(),
            "load_average_before": [round(load, 2) for load in os.getloadavg()],
            "python": platform.python_version(),
            **{name: version(name) for name in ("pyqlib", "torch", "pandas", "numpy")},
        },
    }
    warm(job.store)
    console.print("our panels ...")
    found["ours"] = in_a_fresh_process(measure_ours, job)
    if not ours_only:
        with tempfile.TemporaryDirectory(prefix="data_prep_") as folder:
            console.print("Qlib's table (a minute or more for CSI300 2010-2020) ...")
            found["qlib"] = in_a_fresh_process(measure_qlib, job, folder)
            console.print("one beside the other ...")
            found["comparison"] = in_a_fresh_process(compare, job, folder)
    return found | {"bars": judge(found)}


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar, what was found, and whether it is met; a comparison that was not made is not judged."""
    values = {
        ("store to first batch, s", SECONDS): found["ours"]["seconds"]["store to first batch"],
        ("peak memory, GB", GIGABYTES): found["ours"]["peak_gigabytes"],
    }
    if "comparison" in found:
        values["largest difference", DIFFERENCE] = found["comparison"]["largest_difference"]
        values["rows that only ours has", 0] = found["comparison"]["rows_only_ours"]
        rest = found["comparison"]["rows_only_qlib"] - found["comparison"]["rows_only_qlib_without_close"]
        values["rows that only Qlib has though there is a close", 0] = rest
    return [
        {"name": name, "at_most": bar, "found": value, "met": value <= bar}
        for (name, bar), value in values.items()
    ]


def render(found: dict[str, Any]) -> Table:
    """The report as a table: a row a quantity, a column a side."""
    job = found["job"]
    title = f"{job['universe']} of {job['store']}, {job['start']} to {job['end']}, fitted to {job['fit_end']}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("Qlib's Alpha360", "ours", "bar", ""):
        table.add_column(name, justify="right", no_wrap=True)
    bars = {bar["name"]: bar for bar in found["bars"]}

    def row(name: str, theirs: str, ours: str) -> None:
        bar = bars.get(name)
        limit = f"at most {bar['at_most']:g}" if bar else ""
        verdict = "" if bar is None else "met" if bar["met"] else "MISSED"
        table.add_row(name, theirs, ours, limit, verdict)

    def seconds(stage: str, clock: str = "seconds") -> list[str]:
        return [f"{found[side][clock][stage]:.2f}" if side in found else NOTHING for side in ("qlib", "ours")]

    for stage in ("imports", "qlib.init", "store to first batch"):
        row(f"{stage}, s", *seconds(stage))
    row("  of which CPU, s", *seconds("store to first batch", "cpu_seconds"))
    peaks = [
        f"{found[side]['peak_gigabytes']:.2f}" if side in found else NOTHING for side in ("qlib", "ours")
    ]
    row("peak memory, GB", *peaks)
    if "comparison" in found:
        both = found["comparison"]
        row("rows that both have", f"{both['rows_shared']:,}", f"{both['rows_shared']:,}")
        row("rows that only ours has", NOTHING, f"{both['rows_only_ours']:,}")
        row("rows that only Qlib has", f"{both['rows_only_qlib']:,}", NOTHING)
        rest = bars["rows that only Qlib has though there is a close"]["found"]
        row("rows that only Qlib has though there is a close", f"{rest:,}", NOTHING)
        row("largest difference", NOTHING, f"{both['largest_difference']:.2e}")
    return table


def explain(both: dict[str, Any]) -> str:
    """Where the sides differ most, and why one has rows that the other has not."""
    largest = (
        f"The largest difference is in {both['where']}. "
        if both["where"]
        else "Every number is the same bit for bit. "
    )
    if not both["rows_only_qlib"]:
        return (
            largest
            + "In this store every member has a close on each of its days, so both sides have the same rows."
        )
    return largest + (
        f"Of the {both['rows_only_qlib']:,} rows that only Qlib has, {both['rows_only_qlib_without_close']:,} are members "
        f"without a close that day, suspended, and in {both['rows_only_qlib_all_zero']:,} every feature is 0: nothing is "
        "known of such a stock at the close, and it cannot be traded, so ours leaves it out."
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether every bar is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", required=True, help="Qlib data directory")
    parser.add_argument("--universe", default="csi300")
    parser.add_argument("--start", default="2010-01-01", help="first day of the rows, and of the fit")
    parser.add_argument("--end", default="2020-12-31", help="last day of the rows")
    parser.add_argument("--fit-end", default="2014-12-31", help="last day of the fit")
    parser.add_argument("--ours-only", action="store_true", help="leave out Qlib's side and the difference")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args(arguments)
    store = str(Path(given.store).expanduser().resolve())
    job = Job(store, given.universe, given.start, given.end, given.fit_end)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        found = measure(job, console, given.ours_only)
    except UserError as error:
        console.print(str(error), style="bold", markup=False)
        return 2
    console.print(render(found))
    if "comparison" in found:
        both = found["comparison"]
        console.print(explain(both), markup=False)
    load = found["machine"]["load_average_before"][0]
    console.print(f"{found['machine']['cpus']} CPUs; load average before the run: {load:g}", markup=False)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(bar["met"] for bar in found["bars"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
