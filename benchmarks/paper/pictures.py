"""Figures 2 to 5 of the paper."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.lines
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.grid.plan import Budget, Cell, Grid
from qlib_ext.model.losses import approx_ndcg
from qlib_ext.report import figures

OURS = "MiM-StocR"
COLOURS = (*figures.COLOURS, "#b03a5b", "#5f6b2e", "#8a9199", "#2b2b2b", "#c9a227")


def losses(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Train (dashed) and validation losses of each task by epoch, a colour a method; the kept epoch marked."""
    tasks = dict.fromkeys(
        column.rpartition("/")[2]
        for history in histories.values()
        for column in history
        if column.startswith("train/loss/")
    )
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 3.4))
        grid = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(grid, tasks, strict=True):
            for (method, history), colour in zip(histories.items(), _colours(histories), strict=True):
                if f"train/loss/{task}" not in history:
                    continue
                width = 2.2 if method == OURS else 1.2
                axes.plot(
                    history["epoch"], history[f"train/loss/{task}"], "--", color=colour, linewidth=width * 0.7
                )
                valid = history[f"valid/loss/{task}"]
                axes.plot(history["epoch"], valid, color=colour, linewidth=width, label=method)
                kept = history.loc[history["best"], "epoch"].max()
                axes.plot(kept, valid[history["epoch"] == kept], "o", color=colour, markersize=5)
            axes.set_title(f"loss of {task}")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = {
            method: mpl.lines.Line2D([], [], color=colour)
            for method, colour in zip(histories, _colours(histories), strict=True)
        }
        figure.legend([*lines.values()], [*lines], loc="outside upper center", ncols=min(6, len(lines)))
    return figure


def balance(histories: Mapping[str, pd.DataFrame]) -> Figure | None:
    """V, beta and weight decay of CQB by epoch, norms of the task gradients and their cosine; None without CQB."""
    history = histories.get(OURS)
    if history is None or not any(column.startswith("balance/V/") for column in history):
        return None
    panels = {
        "V": [c for c in history if c.startswith("balance/V/")],
        "forgetting rate": [c for c in history if c.startswith("balance/beta/")],
        "weight decay": [c for c in history if c == "balance/weight_decay"],
        "gradient norm": [c for c in history if c.startswith("gradient/norm/")],
        "cosine of the gradients": [c for c in history if c == "gradient/cosine"],
    }
    lines = {
        title: {
            column.rpartition("/")[2]: pd.Series(history[column].to_numpy(), index=history["epoch"])
            for column in columns
        }
        for title, columns in panels.items()
        if columns
    }
    return figures.by_epoch(lines, best=int(history.loc[history["best"], "epoch"].max()))


def cumulative(daily: Mapping[str, pd.DataFrame]) -> Figure:
    """Compounded return after cost of every method, and of the index."""
    lines: dict[str, pd.Series] = {}
    for method, table in daily.items():
        lines[method] = (1.0 + table["return"] - table["cost"]).cumprod() - 1.0
    index = next(iter(daily.values()))["benchmark"]
    lines["index"] = (1.0 + index).cumprod() - 1.0
    colours = [*_colours(daily), figures.INK]
    return figures.over_time(lines, ylabel="cumulative return", colours=colours, percent=True, height=3.6)


def adaptive_k(grid: Grid, universe: str, store: Path) -> np.ndarray | None:
    """K of each training day of a universe `[days]`, from its momentum labels; None where the store is gone."""
    import qlib

    from qlib_ext.build import build
    from qlib_ext.data.dataset import DailyPanelDataset

    if not store.is_dir():
        print(f"Figure 5 of {universe} is left out: there is no store at {store}", file=sys.stderr)
        return None
    job = grid.job(
        Cell(universe, "LSTM", OURS, 0),
        Budget(),
        store=store,
        tracking_uri="sqlite:///unused.db",
        fingerprint="",
    )
    qlib.init(provider_uri=str(store), region=job.config["qlib_init"]["region"], kernels=1)
    dataset = build(job.config["task"]["dataset"], DailyPanelDataset, name="dataset")
    labels = dataset.panels("train").raw_matrix("MOMENTUM")
    days = [row[~np.isnan(row)] for row in labels]
    return np.array([int(approx_ndcg.adaptive_k(torch.from_numpy(row).long())) for row in days if len(row)])


def histogram(values: np.ndarray) -> Figure:
    """How many days had which k."""
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 2.8))
        axes = figure.add_subplot()
        axes.hist(values, bins=min(60, max(10, len(np.unique(values)))), color=figures.BLUE)
        axes.set_xlabel("k")
        axes.set_ylabel("training days")
    return figure


def _colours(methods: Mapping[str, object]) -> list[str]:
    """One a method; ours is always the purple one of the paper."""
    rest = iter([colour for colour in COLOURS if colour != figures.PURPLE] * 3)
    return [figures.PURPLE if method == OURS else next(rest) for method in methods]
