"""What CQB did, and Figure 5 of the paper."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

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


def histogram(values: np.ndarray) -> Figure:
    """How many days had which k."""
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 2.8))
        axes = figure.add_subplot()
        axes.hist(values, bins=min(60, max(10, len(np.unique(values)))), color=figures.BLUE)
        axes.set_xlabel("k")
        axes.set_ylabel("training days")
    return figure
