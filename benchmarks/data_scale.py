"""Panels up to a whole market: time and peak memory from the store to the first batch, over stocks times years.

    python benchmarks/data_scale.py --markets /tmp/markets

Each point is a sample market of so many stocks and years, made in `--markets` where it is not there yet. What a
workflow prepares of it, with its labels, processors and segments, is measured three times, each in a process of its
own that has done nothing else: without a cache, as a first run that also leaves what it prepared in the cache, and
from the cache. The files of the store are read once before. Time counts from the store to the features and labels of
the first training day; imports and `qlib.init` are apart, but the peak is that of the process, with all of them.

Points that were measured with the same code are kept in the CSV and not measured again; `--again` measures all. Then
time and memory are fitted as straight lines over stocks times days, and a page, a table and a picture are written.

`--qlib` measures Qlib's own Alpha360 handler too, at small sizes, and says what a line through them gives for a whole
market: an extrapolation, for no machine here could hold it.

Exit status: 0 when every bar is met at the largest point, 1 when one is missed, 2 when there was nothing to measure.
"""

from __future__ import annotations

import argparse
import csv
import logging
import multiprocessing
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from qlib_ext.checks import UserError

# numpy, pandas, torch and qlib are imported in the processes that are measured: one inherits the peak of what starts it.

STOCKS, YEARS = (300, 1000, 2500, 5000), (4, 8, 16)
LAST_YEAR = 2020
# At the largest point, on 2 cores: of the first batch, of its process, and from the cache.
SECONDS, GIGABYTES, CACHED_SECONDS = 40.0, 4.0, 3.0
QLIB_POINTS = ((100, 4), (200, 4), (300, 4))
CSV, PNG, PAGE, QLIB_CSV = "scale.csv", "scale.png", "README.md", "qlib.csv"


@dataclass(frozen=True)
class Point:
    """What was measured of one market.

    Attributes
    ----------
    stocks, years
        The sample market's.
    days, instruments
        Of the panel: D, and S with the three indices.
    rows, fitted_rows
        Stocks and days with a close, and those of the training segment, of which 360 medians and deviations are.
    seconds, cpu_seconds, gigabytes
        From the store to the first batch, and the peak of its process; 10^9 bytes.
    imports_gigabytes
        The part of the peak that imports alone take.
    writing_seconds
        Where what was prepared is also written to the cache.
    cached_seconds, cached_gigabytes
        From the cache.
    cache_gigabytes
        Size of the entry on disk.
    load
        Load average of the machine before.
    code
        Digest of the code that was measured.
    """

    stocks: int
    years: int
    days: int
    instruments: int
    rows: int
    fitted_rows: int
    seconds: float
    cpu_seconds: float
    gigabytes: float
    imports_gigabytes: float
    writing_seconds: float
    cached_seconds: float
    cached_gigabytes: float
    cache_gigabytes: float
    load: float
    code: str

    @property
    def million_cells(self) -> float:
        """Stocks times days."""
        return self.instruments * self.days / 1e6

    @property
    def thousand_stocks(self) -> float:
        """Which is what the number of files in the store goes with."""
        return self.instruments / 1e3


@dataclass(frozen=True)
class QlibPoint:
    """Qlib's own Alpha360 handler on one market: rows of its table, and what it took."""

    stocks: int
    years: int
    rows: int
    seconds: float
    gigabytes: float
    imports_gigabytes: float


@dataclass(frozen=True)
class Line:
    """A straight line through points, by least squares."""

    start: float
    slope: float
    r_squared: float
    largest_residual: float

    def at(self, x: float) -> float:
        """Its value at x."""
        return self.start + self.slope * x

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> Line:
        """Fit; `largest_residual` is the largest distance of a point to the line, in the unit of y."""
        n = len(x)
        mean_x, mean_y = sum(x) / n, sum(y) / n
        spread = sum((value - mean_x) ** 2 for value in x)
        if not spread:
            raise UserError(f"a line needs points at two sizes at least, found {n} at one")
        slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
        start = mean_y - slope * mean_x
        residuals = [b - (start + slope * a) for a, b in zip(x, y, strict=True)]
        total = sum((value - mean_y) ** 2 for value in y)
        explained = 1 - sum(r**2 for r in residuals) / total if total else 1.0
        return cls(start, slope, explained, max(map(abs, residuals)))


def peak_gigabytes() -> float:
    """Peak resident memory of this process so far, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def in_a_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run `work` in a process that has done nothing else."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(work, *arguments).result()


def make_market(root: Path, stocks: int, years: int) -> None:
    """Write the sample market, unless it is there already."""
    from qlib_ext.market.synthetic.sample import SampleMarket

    SampleMarket(stocks=stocks, start=f"{LAST_YEAR + 1 - years}-01-01", end=f"{LAST_YEAR}-12-31").write(root)


def segments(years: int) -> dict[str, list[str]]:
    """Five eighths of the years to train, one to validate, two to test, as the workflows have it of 16."""
    first = LAST_YEAR + 1 - years
    train = first + max(1, years * 5 // 8)
    valid = max(train + 1, first + years * 6 // 8)
    return {
        "train": [f"{first}-01-01", f"{train - 1}-12-31"],
        "valid": [f"{train}-01-01", f"{valid - 1}-12-31"],
        "test": [f"{valid}-01-01", f"{LAST_YEAR}-12-31"],
    }


def measure(root: str, years: int, cache: str | None) -> dict[str, float]:
    """From the store to the first day's panel, as a workflow has it."""
    import qlib

    import qlib_ext.data.dataset
    from qlib_ext.data.handlers.panel import LABELS

    qlib.init(provider_uri=root, region="cn", kernels=1, logging_level=logging.WARNING)
    imports = peak_gigabytes()
    began, cpu = time.perf_counter(), time.process_time()
    days = segments(years)
    processors = "qlib_ext.data.processors"
    handler = {
        "class": "qlib_ext.data.handlers.panel.PanelHandler",
        "kwargs": {
            "instruments": "all",
            "fit_start_time": days["train"][0],
            "fit_end_time": days["train"][1],
            "labels": LABELS,
            "infer_processors": [{"class": f"{processors}.momentum_line.MomentumLine"}],
            "learn_processors": [{"class": f"{processors}.cross_section_norm.CrossSectionNorm"}],
        },
    }
    dataset = qlib_ext.data.dataset.DailyPanelDataset(
        handler, days, benchmark="SH000300", record_fields=["change"], cache=cache
    )
    first = dataset.panels("train")[0]
    checksum = float(first.features.sum()) + float(first.labels["RETURN"].nansum())
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    peak = peak_gigabytes()
    panel = dataset.handler.panel
    fitted = dataset.handler.features.median is not None
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "gigabytes": peak,
        "imports_gigabytes": imports,
        "checksum": checksum if fitted else float("nan"),
        "days": len(panel.calendar),
        "instruments": len(panel.instruments),
        "rows": int(panel.present.sum()),
        "fitted_rows": int(panel.present[panel.calendar <= days["train"][1]].sum()),
    }


def measure_qlib(root: str, years: int) -> dict[str, float]:
    """From the store to the first day of Qlib's own table, with the processors of its Alpha360 benchmarks."""
    warnings.simplefilter("ignore")  # what pandas and numpy have to say to Qlib
    import qlib
    from qlib.contrib.data.handler import Alpha360

    qlib.init(provider_uri=root, region="cn", kernels=1, logging_level=logging.WARNING)
    imports, began = peak_gigabytes(), time.perf_counter()
    days = segments(years)
    handler = Alpha360(
        instruments="all",
        start_time=days["train"][0],
        end_time=days["test"][1],
        fit_start_time=days["train"][0],
        fit_end_time=days["train"][1],
        infer_processors=[
            {"class": "RobustZScoreNorm", "kwargs": {"fields_group": "feature", "clip_outlier": True}},
            {"class": "Fillna", "kwargs": {"fields_group": "feature"}},
        ],
    )
    labels = handler.fetch(col_set="label", data_key="learn")
    first = labels.index[0][0]
    handler.fetch(slice(first, first), col_set=["feature", "label"], data_key="learn")
    return {
        "seconds": time.perf_counter() - began,
        "gigabytes": peak_gigabytes(),
        "imports_gigabytes": imports,
        "rows": len(labels),
    }


def warm(root: Path) -> None:
    """Read the files, so that they come from memory."""
    for path in root.rglob("*.day.bin"):
        path.read_bytes()


def code() -> str:
    """Digest of the sources that prepare panels."""
    from qlib_ext.data.cache import code_digest

    return code_digest()[:12]


def measure_point(markets: Path, stocks: int, years: int, code: str) -> Point:
    """Three processes, one after the other."""
    root = markets / f"{stocks}x{years}"
    in_a_fresh_process(make_market, root, stocks, years)
    warm(root)
    load = os.getloadavg()[0]
    fresh = in_a_fresh_process(measure, str(root), years, None)
    folder = Path(tempfile.mkdtemp(prefix="cache-", dir=markets))
    try:
        writing = in_a_fresh_process(measure, str(root), years, str(folder))
        cached = in_a_fresh_process(measure, str(root), years, str(folder))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder)
    if not fresh["checksum"] == writing["checksum"] == cached["checksum"]:
        raise UserError(f"the cache gave another first batch than the store at {root}: {fresh} and {cached}")
    return Point(
        stocks=stocks,
        years=years,
        writing_seconds=writing["seconds"],
        cached_seconds=cached["seconds"],
        cached_gigabytes=cached["gigabytes"],
        cache_gigabytes=size / 1e9,
        load=load,
        code=code,
        **{key: value for key, value in fresh.items() if key != "checksum"},
    )


def read(path: Path, kind: type[Any]) -> list[Any]:
    """The rows of a CSV as `kind`."""
    if not path.is_file():
        return []
    types = {field.name: {"int": int, "float": float, "str": str}[str(field.type)] for field in fields(kind)}
    with path.open(encoding="utf-8", newline="") as file:
        return [kind(**{name: types[name](row[name]) for name in types}) for row in csv.DictReader(file)]


def write(path: Path, rows: Sequence[Any], kind: type[Any]) -> None:
    """Rows of `kind` as a CSV, in one step."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(kind)], lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(row).items()})
    new.replace(path)


def judge(point: Point) -> list[tuple[str, float, float]]:
    """Each bar at the largest point: what, found, at most."""
    return [
        ("store to first batch, s", point.seconds, SECONDS),
        ("peak memory of the process, GB", point.gigabytes, GIGABYTES),
        ("from the cache, s", point.cached_seconds, CACHED_SECONDS),
    ]


def draw(points: Sequence[Point], lines: dict[str, Line], path: Path) -> None:
    """Time, memory and time from the cache, with the lines through them."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from qlib_ext.report.figures import COLOURS, GRID, QUIET, to_png

    figure = Figure(figsize=(11, 3.9), layout="constrained")
    shown = {
        "seconds": "store to first batch, s",
        "gigabytes": "peak memory of the process, GB",
        "cached_seconds": "from the cache, s",
    }
    scales = {"million_cells": "stocks × days, millions", "thousand_stocks": "stocks, thousands"}
    stocks = sorted({point.stocks for point in points})
    colours = dict(zip(stocks, COLOURS, strict=False))
    years = sorted({point.years for point in points})
    marks = dict(zip(years, "osD^v", strict=False))
    for axes, (name, title) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        scale = scale_of(name)
        for point in points:
            axes.plot(
                getattr(point, scale),
                getattr(point, name),
                marks.get(point.years, "o"),
                color=colours.get(point.stocks, QUIET),
                markersize=7,
                zorder=3,
            )
        if name in lines:
            line, end = lines[name], max(getattr(point, scale) for point in points)
            axes.plot([0, end], [line.at(0), line.at(end)], color=QUIET, linewidth=1.2, zorder=2)
            axes.annotate(
                f"{line.start:.2f} + {line.slope:.3f} x, R² {line.r_squared:.4f}",
                (0.04, 0.95),
                xycoords="axes fraction",
                verticalalignment="top",
            )
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel(scales[scale])
        axes.set_xlim(0, axes.get_xlim()[1] * 1.04)
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.15)
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color=colours.get(n, QUIET), marker="o", linestyle="", label=f"{n:,} stocks")
        for n in stocks
    ]
    handles += [
        Line2D([], [], color=QUIET, marker=marks.get(y, "o"), linestyle="", label=f"{y} years") for y in years
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    path.write_bytes(to_png(figure, dpi=130))


def page(points: Sequence[Point], qlib: Sequence[QlibPoint], lines: dict[str, Line]) -> str:
    """The page that goes with the table and the picture."""
    largest = max(points, key=lambda point: point.million_cells)
    text = [
        "# Panels up to a whole market",
        "",
        "Made by",
        "",
        "```sh",
        ".venv/bin/python benchmarks/data_scale.py --markets /tmp/markets --qlib",
        "```",
        "",
        (
            f"on {os.cpu_count()} CPU cores (Python {platform.python_version()}, numpy {version('numpy')}, pandas "
            f"{version('pandas')}, torch {version('torch')}, pyqlib {version('pyqlib')}), over sample markets. Each figure "
            "is of a process of its own: from the store to the features and labels of the first training day, imports "
            "apart in the time and included in the peak memory. The files of the store had been read once before."
        ),
        "",
        (
            f"The load average of the machine before a point was {min(p.load for p in points):.1f} to "
            f"{max(p.load for p in points):.1f}: above the number of cores, time on the clock is that of waiting too, and "
            "CPU seconds say more."
        ),
        "",
        f"## The largest: {largest.stocks:,} stocks, {largest.years} years, {largest.rows:,} rows",
        "",
        "| | found | at most | |",
        "|---|---:|---:|---|",
        *(
            f"| {name} | {found:.2f} | {most:g} | {'met' if found <= most else 'MISSED'} |"
            for name, found, most in judge(largest)
        ),
        "",
        "## All",
        "",
        f"![time, memory and time from the cache]({PNG})",
        "",
        (
            "| stocks | years | stocks × days, millions | first batch, s | of which CPU, s | peak, GB | and written to the "
            "cache, s | from the cache, s | its peak, GB | entry, GB |"
        ),
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {p.stocks:,} | {p.years} | {p.million_cells:.2f} | {p.seconds:.2f} | {p.cpu_seconds:.2f} | "
            f"{p.gigabytes:.2f} | {p.writing_seconds:.2f} | {p.cached_seconds:.2f} | {p.cached_gigabytes:.2f} | "
            f"{p.cache_gigabytes:.2f} |"
            for p in points
        ),
        "",
        f"All columns of every point are in [{CSV}]({CSV}).",
    ]
    if lines:
        text += [
            "",
            "## Linear in stocks × days",
            "",
            (
                "Straight lines through the points above, by least squares; x is stocks × days in millions. What a start "
                "from the cache takes is a look at every file of the store, so there x is stocks in thousands."
            ),
            "",
            "| | line | R² | largest distance of a point |",
            "|---|---|---:|---:|",
        ]
        units = {
            "seconds": ("first batch", "s"),
            "cpu_seconds": ("of which CPU", "s"),
            "gigabytes": ("peak", "GB"),
            "cached_seconds": ("from the cache", "s"),
        }
        for name, (title, unit) in units.items():
            line = lines[name]
            text.append(
                f"| {title}, {unit} | {line.start:.2f} + {line.slope:.4f} x | {line.r_squared:.4f} | "
                f"{line.largest_residual:.2f} {unit} |"
            )
    if len(qlib) > 1:
        memory = Line.through([p.rows for p in qlib], [p.gigabytes for p in qlib])
        seconds = Line.through([p.rows for p in qlib], [p.seconds for p in qlib])
        text += [
            "",
            "## Qlib's own table",
            "",
            (
                "Qlib's Alpha360 handler with the processors of its own benchmarks, on the same sample markets at sizes that "
                "this machine can hold:"
            ),
            "",
            "| stocks | years | rows | seconds | peak, GB |",
            "|---:|---:|---:|---:|---:|",
            *(
                f"| {p.stocks:,} | {p.years} | {p.rows:,} | {p.seconds:.1f} | {p.gigabytes:.2f} |"
                for p in qlib
            ),
            "",
            (
                f"The line through these gives {memory.at(largest.rows):,.0f} GB and {seconds.at(largest.rows) / 60:,.0f} "
                f"minutes for the {largest.rows:,} rows of the largest market. **That is an extrapolation over a factor of "
                f"{largest.rows / max(p.rows for p in qlib):.0f}, and was not measured.** The 360 features of its rows alone, "
                f"as float32, are {largest.rows * 360 * 4 / 1e9:.0f} GB."
            ),
        ]
    return "\n".join(text) + "\n"


def fit(points: Sequence[Point]) -> dict[str, Line]:
    """Lines over what a quantity grows with; none where all points are of one number of stocks."""
    if len({point.stocks for point in points}) < 2:
        return {}
    names = ("seconds", "cpu_seconds", "gigabytes", "cached_seconds")
    return {
        name: Line.through(
            [getattr(point, scale_of(name)) for point in points], [getattr(point, name) for point in points]
        )
        for name in names
    }


def scale_of(name: str) -> str:
    """What a quantity grows with."""
    return "thousand_stocks" if name == "cached_seconds" else "million_cells"


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--markets", type=Path, required=True, help="directory of the sample markets; 3 GB for all"
    )
    parser.add_argument("--out", type=Path, default=Path("reports/data_scale"))
    parser.add_argument("--stocks", type=int, nargs="+", default=list(STOCKS))
    parser.add_argument("--years", type=int, nargs="+", default=list(YEARS))
    parser.add_argument("--again", action="store_true", help="measure points that are there already too")
    parser.add_argument("--qlib", action="store_true", help="measure Qlib's own handler at small sizes; 4 GB")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Measure what is missing, write the page, and say by the exit status whether every bar is met."""
    arguments, console = _arguments(given), Console()
    out: Path = arguments.out
    markets: Path = arguments.markets.expanduser().resolve()
    try:
        if min(arguments.years) < 3:
            raise UserError(f"`--years` must be at least 3, one a segment, found {min(arguments.years)}")
        for directory in (out, markets):
            directory.mkdir(parents=True, exist_ok=True)
        measured = code()
        asked = sorted((n, y) for n in arguments.stocks for y in arguments.years)
        old = {(p.stocks, p.years): p for p in read(out / CSV, Point)}
        points = {
            size: point
            for size, point in old.items()
            if size in asked and point.code == measured and not arguments.again
        }
        for stocks, years in asked:
            if (stocks, years) in points:
                console.print(f"{stocks} stocks, {years} years: there already")
                continue
            point = measure_point(markets, stocks, years, measured)
            points[stocks, years] = point
            console.print(
                f"{stocks} stocks, {years} years: {point.seconds:.2f} s, {point.gigabytes:.2f} GB; from the cache "
                f"{point.cached_seconds:.2f} s"
            )
            write(out / CSV, [points[size] for size in sorted(points)], Point)
        qlib = read(out / QLIB_CSV, QlibPoint)
        if arguments.qlib and (arguments.again or not qlib):
            qlib = []
            for stocks, years in QLIB_POINTS:
                root = markets / f"{stocks}x{years}"
                in_a_fresh_process(make_market, root, stocks, years)
                warm(root)
                found = in_a_fresh_process(measure_qlib, str(root), years)
                qlib.append(QlibPoint(stocks=stocks, years=years, **found))
                console.print(
                    f"Qlib, {stocks} stocks, {years} years: {qlib[-1].seconds:.1f} s, {qlib[-1].gigabytes:.2f} GB"
                )
            write(out / QLIB_CSV, qlib, QlibPoint)
    except (UserError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 2
    ordered = [points[size] for size in sorted(points)]
    lines = fit(ordered)
    draw(ordered, lines, out / PNG)
    (out / PAGE).write_text(page(ordered, qlib, lines), encoding="utf-8")
    largest = max(ordered, key=lambda point: point.million_cells)
    for name, found, most in judge(largest):
        console.print(f"{name}: {found:.2f}, at most {most:g}: {'met' if found <= most else 'MISSED'}")
    return 0 if all(found <= most for _, found, most in judge(largest)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
