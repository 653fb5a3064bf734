"""What CQB did, and Figure 5 of the paper."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.grid.plan import Budget, Cell, Grid
from qlib_ext.model.losses import approx_ndcg
from qlib_ext.report import figures

OURS = "MiM-StocR"


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


def adaptive_k(grid: Grid, universe: str, store: Path) -> np.ndarray | None:
    """K of each training day of a universe `[days]`, from its momentum labels; None where the store is gone."""
    import qlib

    from qlib_ext.config.build import build
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
