"""Pictures of sectors: what was earned, how stocks go together, and what each method makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from benchmarks.sectors.kept import SectorYear
from benchmarks.sectors.tables import PLAIN
from qlib_ext.portfolio.optimisers.frontier import frontier
from qlib_ext.report import figures
from qlib_ext.report.charts import Heatmap, Lines

ACROSS = 4  # maps beside each other
COMPONENTS = 3
YEAR = 250
NEAR = 0.08  # of the picture: names of points so near to each other are written below each other


def wealth(daily: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Compounded return after cost of some methods, the same money in each sector of a year."""
    lines = {method: (1.0 + daily[method]).cumprod() - 1.0 for method in (PLAIN, *methods) if method in daily}
    chart = Lines(
        series=lines,
        colours=(figures.INK,),
        ylabel="cumulative return",
        percent=True,
        height=380,
        alt="Compounded return after cost of the methods",
        caption="",
    )
    return figures.drawn(chart)


def sharpes(table: pd.DataFrame) -> Figure:
    """Sharpe ratio of the days held by sector and method, less that of equal weight."""
    values = table.pivot(index="sector", columns="method", values="sharpe")[[*table["method"].unique()]]
    values = values.sub(values[PLAIN], axis=0).drop(columns=PLAIN).T  # methods have the longer names
    chart = Heatmap(
        values=values,
        digits=1,
        height=28 * len(values) + 130,
        alt="Sharpe ratio of each method less that of equal weight, by sector",
        caption="",
    )
    return figures.drawn(chart)


def correlations(found: Sequence[SectorYear]) -> Figure:
    """A map of each sector's correlations on the days of training."""
    rows = -(-len(found) // ACROSS)
    colours = LinearSegmentedColormap.from_list("correlation", figures.DIVERGING)
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 2.3 * rows + 0.4))
        grid = np.ravel(figure.subplots(rows, ACROSS, squeeze=False))
        for axes in grid[len(found) :]:
            axes.set_visible(False)
        drawn = None
        for axes, one in zip(grid, found, strict=False):
            own = np.array(one.correlation)
            inner = own[np.triu_indices(len(own), 1)]
            drawn = axes.imshow(own, vmin=-1, vmax=1, cmap=colours)
            axes.set_title(f"{one.sector}: {inner.mean():.2f}", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks(range(len(one.codes)), one.codes, fontsize=5)
            axes.grid(visible=False)
        if drawn is not None:
            figure.colorbar(drawn, ax=[*grid[: len(found)]], shrink=0.5, aspect=40, location="bottom")
    return figure


def components(one: SectorYear) -> Figure:
    """The first principal components of a sector's correlation, and the share of the variance that each explains."""
    values, vectors = np.linalg.eigh(np.array(one.correlation))
    order = np.argsort(values)[::-1][:COMPONENTS]
    vectors = vectors[:, order] * np.where(vectors[:, order].sum(axis=0) < 0, -1.0, 1.0)
    names = [f"{k + 1}: {values[place] / values.sum():.0%}" for k, place in enumerate(order)]
    chart = Heatmap(
        values=pd.DataFrame(vectors.T, index=names, columns=one.codes),
        digits=2,
        height=190,
        alt=f"Principal components of {one.sector}",
        caption="",
    )
    return figures.drawn(chart)


def weights(one: SectorYear) -> Figure:
    """What each method holds of a sector's stocks on the first day of the year."""
    table = pd.DataFrame({method: held.weights for method, held in one.held.items()}).reindex(one.codes).T
    chart = Heatmap(
        values=table.fillna(0.0),
        diverging=False,
        percent=True,
        digits=0,
        height=26 * len(table) + 90,
        alt=f"Weights of each method in {one.sector}",
        caption="",
    )
    return figures.drawn(chart)


def efficient(one: SectorYear) -> Figure:
    """The efficient frontier of a sector's stocks on the days of training, with its stocks and the methods beside it."""
    volatility, mean = np.array(one.volatility), np.array(one.mean)
    covariance = np.array(one.correlation) * np.outer(volatility, volatility)
    covariance += 1e-9 * np.trace(covariance) * np.eye(len(mean))  # what six digits have left of it
    line = frontier(mean, covariance, np.zeros(len(mean)), np.ones(len(mean)), 1.0)
    steps = np.linspace(0.0, 1.0, 20)[:, None]
    path = np.concatenate(
        [(1 - steps) * a + steps * b for a, b in zip(line.weights[:-1], line.weights[1:], strict=True)]
        or [line.weights]
    )
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 4.6))
        axes = figure.add_subplot()
        across, up = _places(path, mean, covariance)
        axes.plot(across, up, color=figures.BLUE, label="efficient frontier")
        axes.plot(volatility * YEAR**0.5, mean * YEAR, "o", color=figures.QUIET, markersize=4, label="stocks")
        own = np.array([[held.weights.get(code, 0.0) for code in one.codes] for held in one.held.values()])
        own_across, own_up = _places(own, mean, covariance)
        axes.plot(own_across, own_up, ".", color=figures.ORANGE, markersize=7, label="methods")
        room = NEAR * np.array([np.ptp(across), np.ptp(up)]).clip(1e-9)
        for at, names in _together(np.column_stack([own_across, own_up]), [*one.held], room):
            axes.annotate(
                names, (at[0], at[1]), xytext=(6, -3), textcoords="offset points", fontsize=6.5, va="top"
            )
        axes.set_xlabel("volatility a year, on the days of training")
        axes.set_ylabel("mean return a year")
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
        axes.legend(loc="lower right")
    return figure


def forecast_months(months: Mapping[str, pd.Series]) -> Figure:
    """What was forecast and what came, by month: the better half of each sector's stocks less the other half."""
    chart = Lines(
        series=months,
        ylabel="better half less the other",
        percent=True,
        height=300,
        alt="Forecast and realised difference of the halves of the sectors, by month",
        caption="",
    )
    return figures.drawn(chart)


def _together(points: np.ndarray, names: Sequence[str], room: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """Places, and the names of all points near each; a name would cover another."""
    found: list[tuple[np.ndarray, list[str]]] = []
    for point, name in zip(points, names, strict=True):
        for at, others in found:
            if (np.abs(point - at) <= room).all():
                others.append(name)
                break
        else:
            found.append((point, [name]))
    return [(at, "\n".join(others)) for at, others in found]


def _places(weights: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Volatility and mean a year of portfolios `[M, N]`."""
    variance = np.einsum("mi,ij,mj->m", weights, covariance, weights)
    return np.sqrt(variance * YEAR), weights @ mean * YEAR
