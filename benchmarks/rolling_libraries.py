"""Rolling operators of other libraries on one plane of 704 stocks x 2,674 days, one thread.

    pip install bottleneck numbagg polars kunquant    # into an environment of their own; kunquant needs g++
    python benchmarks/rolling_libraries.py bottleneck

Prints the seconds of a first call, with what it compiles, and of a second one. They are the figures by which the engine of
`qlib_ext.features.engine` was chosen (docs/features.md); it uses none of them.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

STOCKS, DAYS, WINDOW = 704, 2674, 20
Calls = dict[str, Callable[[], Any]]


def planes() -> tuple[np.ndarray, np.ndarray]:
    """Prices and volumes `[S, D]` with 2 % missing."""
    draw = np.random.default_rng(0)
    price = np.exp(np.cumsum(draw.normal(0, 0.02, (STOCKS, DAYS)), axis=1) + 3)
    volume = np.exp(draw.normal(15, 1, price.shape))
    missing = draw.random(price.shape) < 0.02
    price[missing] = volume[missing] = np.nan
    return price, volume


def with_pandas(price: np.ndarray, volume: np.ndarray) -> Calls:
    """Stock by stock, as Qlib calls it."""
    pairs = [(pd.Series(x), pd.Series(y)) for x, y in zip(price, volume, strict=True)]

    def of(call: Callable[[Any, pd.Series], Any]) -> Callable[[], Any]:
        return lambda: [call(x.rolling(WINDOW, min_periods=1), y) for x, y in pairs]

    return {
        "mean": of(lambda r, y: r.mean()),
        "std": of(lambda r, y: r.std()),
        "max": of(lambda r, y: r.max()),
        "rank": of(lambda r, y: r.rank(pct=True)),
        "quantile": of(lambda r, y: r.quantile(0.8)),
        "corr": of(lambda r, y: r.corr(y)),
    }


def with_bottleneck(price: np.ndarray, volume: np.ndarray) -> Calls:
    """The operators that it has."""
    library = importlib.import_module("bottleneck")
    names = ("mean", "std", "max", "argmax", "rank", "median")
    return {
        name: lambda name=name: getattr(library, f"move_{name}")(price, WINDOW, min_count=1, axis=1)  # type: ignore[misc]
        for name in names
    }


def with_numbagg(price: np.ndarray, volume: np.ndarray) -> Calls:
    """The operators that it has; each is compiled when it is called first."""
    library = importlib.import_module("numbagg")
    return {
        "mean": lambda: library.move_mean(price, window=WINDOW, min_count=1),
        "std": lambda: library.move_std(price, window=WINDOW, min_count=1),
        "corr": lambda: library.move_corr(price, volume, window=WINDOW, min_count=1),
    }


def with_polars(price: np.ndarray, volume: np.ndarray) -> Calls:
    """Over stocks, in one table."""
    pl: Any = importlib.import_module("polars")
    columns = {"s": np.repeat(np.arange(STOCKS), DAYS), "x": price.ravel(), "v": volume.ravel()}
    table = pl.DataFrame(columns).with_columns(pl.col("x", "v").fill_nan(None))
    x, size = pl.col("x"), {"window_size": WINDOW, "min_samples": 1}
    found = {
        "mean": x.rolling_mean(**size),
        "std": x.rolling_std(**size),
        "max": x.rolling_max(**size),
        "rank": x.rolling_rank(**size),
        "quantile": x.rolling_quantile(0.8, interpolation="linear", **size),
        "corr": pl.rolling_corr("x", "v", **size),
    }
    return {
        name: lambda each=each: table.lazy().select(each.over("s")).collect()  # type: ignore[misc]
        for name, each in found.items()
    }


def with_kunquant(price: np.ndarray, volume: np.ndarray) -> Calls:
    """All of its Alpha158, compiled by g++ before."""
    op, alpha, stage, jit, driver, runner = (
        importlib.import_module(f"KunQuant.{name}")
        for name in ("Op", "predefined.Alpha158", "Stage", "jit.cfake", "Driver", "runner.KunRunner")
    )
    fields = ("low", "high", "close", "open", "amount", "volume")
    builder = op.Builder()
    with builder:
        data = alpha.AllData(**{name: op.Input(name) for name in fields})
        price_of = [("OPEN", data.open), ("HIGH", data.high), ("LOW", data.low)]
        made = data.build({"kbar": {}, "price": {"windows": [0], "feature": price_of}, "rolling": {}})
        for output, name in zip(*made, strict=True):
            op.Output(output, name)
    settings = driver.KunCompilerConfig(input_layout="TS", output_layout="TS")
    work = [("alpha158", stage.Function(builder.ops), settings)]
    began = time.perf_counter()
    module = jit.compileit(work, "alpha158", jit.CppCompilerConfig()).getModule("alpha158")
    Console().print(f"compiling {time.perf_counter() - began:.2f}")
    inputs = {name: np.ascontiguousarray(price.T, np.float32) for name in fields}
    executor = runner.createSingleThreadExecutor()
    return {"Alpha158": lambda: runner.runGraph(executor, module, inputs, 0, DAYS)}


LIBRARIES = {
    "pandas": with_pandas,
    "bottleneck": with_bottleneck,
    "numbagg": with_numbagg,
    "polars": with_polars,
    "kunquant": with_kunquant,
}


def main(names: list[str]) -> None:
    """Print the seconds of each operator."""
    console = Console()
    for library in names or list(LIBRARIES):
        for name, call in LIBRARIES[library](*planes()).items():
            seconds = []
            for _ in range(2):
                began = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - began)
            console.print(f"{library} {name}: {seconds[0]:.2f} s, then {seconds[1]:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
