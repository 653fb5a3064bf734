"""What side data cost: market values and concepts of a store, and the concepts of a day on the device.

    python benchmarks/side_data.py --store ../shared/market/cn --universe csi300

Each source that the store has what it takes for is loaded once, one after the other in this process, and its time and
the peak of the process's resident memory so far are told. The concepts of a day are then gathered for days spread over
the calendar, for the store's own spells and for made ones: 100 concepts, each stock in three of them at a time, 300
stocks a day. On a busy machine set OMP_NUM_THREADS=1: threads that wait for a core tell more of its other work.

Exit status: 1 if a day of the made ones takes more than half a millisecond.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.concepts import (
    ConceptGather,
    Concepts,
    ConceptSpells,
    CorrelationClusters,
    SideConcepts,
)
from qlib_ext.features.side_data.market_value import MarketValue, SideMarketValue, TrailingTradedValue, fill
from qlib_ext.market.store import QlibStore

LIMIT_MS = 0.5
MARKET_VALUES: tuple[MarketValue, ...] = (SideMarketValue(), TrailingTradedValue())
CONCEPTS: tuple[Concepts, ...] = (SideConcepts("concepts"), SideConcepts(), CorrelationClusters())


def since(clock: float, cpu: float) -> tuple[str, str]:
    """Seconds by the clock and of the processor since then: on a busy machine the second says more."""
    return f"{time.perf_counter() - clock:.1f}", f"{time.process_time() - cpu:.1f}"


def peak_gigabytes() -> float:
    """Peak of this process's resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def made_spells(days: int, stocks: int, concepts: int, each: int, seed: int = 0) -> ConceptSpells:
    """Each stock in `each` concepts at a time, which change about every year and a half."""
    draw = np.random.default_rng(seed)
    starts = np.arange(0, days, 375)
    stock, first = (grid.ravel() for grid in np.meshgrid(np.repeat(np.arange(stocks), each), starts))
    after = np.minimum(first + 375, days)
    names = tuple(f"concept {i}" for i in range(concepts))
    return ConceptSpells(names, stock, draw.integers(0, concepts, len(stock)), first, after)


def milliseconds_a_day(
    spells: ConceptSpells, present: np.ndarray, device: torch.device, repeats: int = 200
) -> float:
    """Mean time of the concepts of a day, over days spread over the calendar."""
    days, stocks = present.shape
    gather = ConceptGather(spells, days, stocks, device)
    chosen = np.flatnonzero(present.any(axis=1))[
        np.linspace(0, present.any(axis=1).sum() - 1, repeats).astype(int)
    ]
    columns = [torch.from_numpy(np.flatnonzero(present[day])).to(device) for day in chosen]
    gather(int(chosen[0]), columns[0])  # the first one pays for what is set up once
    wait(device)
    began = time.perf_counter()
    for day, column in zip(chosen, columns, strict=True):
        gather(int(day), column)
    wait(device)
    return 1e3 * (time.perf_counter() - began) / repeats


def wait(device: torch.device) -> None:
    """Return when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--universe", default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    device, console = torch.device(given.device), Console()
    store = QlibStore(given.store)
    panel = MarketPanel.load(store, given.universe, ["close"])
    days, stocks = panel.present.shape
    console.print(
        f"{given.store.name}, {given.universe}: {stocks:,} stocks, {days:,} days; gathered on {device}"
    )

    table = Table("source", "seconds", "CPU seconds", "peak GB so far", "spells", "ms a day")
    for value in MARKET_VALUES:
        if value.lacks(store) is None:
            began = time.perf_counter(), time.process_time()
            fill(value.load(store, panel.instruments), panel.present)
            name = str(value.describe(store)["source"])
            table.add_row(name, *since(*began), f"{peak_gigabytes():.2f}")
    for source in CONCEPTS:
        if source.lacks(store) is None:
            began = time.perf_counter(), time.process_time()
            spells = source.load(store, panel)
            taken = since(*began)
            assert spells is not None
            a_day = milliseconds_a_day(spells, panel.present, device)
            name = str(source.describe(store)["source"])
            count = f"{len(spells.stock):,}"
            table.add_row(name, *taken, f"{peak_gigabytes():.2f}", count, f"{a_day:.2f}")
    present = np.zeros((days, 700), dtype=bool)
    present[:, ::2][:, :300] = True
    made = made_spells(days, 700, 100, 3)
    a_day = milliseconds_a_day(made, present, device)
    table.add_row("made: 300 stocks x 100 concepts", "", "", "", f"{len(made.stock):,}", f"{a_day:.2f}")
    console.print(table)
    return int(a_day > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
