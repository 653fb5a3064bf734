"""A model's forecasts of each year held: LightGBM on prices and volumes, fitted on the years before; or scores of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import pandas as pd

from benchmarks.sectors.selection import Window
from qlib_ext.data.labels.horizon import HorizonReturn
from qlib_ext.data.score_file import on_trading_days, read_scores
from qlib_ext.features.engine.evaluation import evaluate
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats, rank

MONTH = 20  # trading days that a forecast is of
EVERY = 5  # days of training of which one is taken: neighbours say nearly the same
FEATURES = (
    *(f"$close / Ref($close, {days}) - 1" for days in (5, 20, 60, 120, 250)),
    *(f"Std($close / Ref($close, 1) - 1, {days})" for days in (20, 60, 250)),
    "Skew($close / Ref($close, 1) - 1, 60)",
    "$close / Max($close, 250)",
    "$close / Min($close, 250)",
    "Mean($volume, 20) / Mean($volume, 120)",
    "Corr($close / Ref($close, 1), $volume / Ref($volume, 1), 60)",
)
MODEL: dict[str, Any] = {
    "n_estimators": 200,
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_child_samples": 200,
    "subsample": 0.8,
    "subsample_freq": 1,
    "colsample_bytree": 0.6,
    "random_state": 0,
    "n_jobs": 1,
    "verbose": -1,
}


@dataclass(frozen=True)
class Forecasts:
    """Forecasts as they were made, and what became of them.

    Attributes
    ----------
    by_year
        Year held -> `[D, S]` forecasts as formed at each close, on the days from the last of training to the last but one of the
        year; NaN elsewhere.
    realised
        `[D, S]` what they foretell: the return from the next close over `MONTH` days, less the mean of the universe.
    said
        What the forecasts are, as a sentence.
    """

    by_year: dict[int, Floats]
    realised: Floats
    said: str


def fitted(store: QlibStore, universe: str, windows: Sequence[Window], rules: str) -> Forecasts:
    """Forecasts by LightGBM, fitted anew for each year on the days of training whose label was known by their end.

    Parameters
    ----------
    store, universe
        Whose members are learned from and forecast.
    windows
        The years.
    rules
        The exchange's, by which the label can be bought and sold.
    """
    panel = MarketPanel.load(store, universe, ["close", "volume"])
    label = HorizonReturn(MONTH, less="universe", rules=rules)
    days = slice(0, len(panel.calendar))
    realised = label.values(panel, store).of(days).astype(np.float64)
    features = np.stack([_ranked(evaluate(one, panel), panel.members) for one in FEATURES], axis=-1)
    found = {}
    for window in windows:
        trained = np.arange(window.first, window.last + 1 - label.horizon_days, EVERY)
        x, y = features[trained], realised[trained]
        there = panel.members[trained] & np.isfinite(y)
        model = lightgbm.LGBMRegressor(**MODEL).fit(x[there], _cut(y[there]))
        held = slice(window.last, window.end)
        planes = np.full(realised.shape, np.nan)
        rows = np.isfinite(panel.field("close")[held])
        planes[held][rows] = model.predict(features[held][rows])
        found[window.year] = planes
    said = (
        f"Forecasts are LightGBM's, of the return over the {MONTH} days from the next close less the mean of the universe, from the "
        f"ranks of {len(FEATURES)} figures of prices and volumes; fitted anew at the end of each training, on all members of the "
        "universe and on days whose label was known by then."
    )
    return Forecasts(found, realised, said)


def of_file(path: str, store: QlibStore, universe: str, windows: Sequence[Window], rules: str) -> Forecasts:
    """Forecasts that a file brings."""
    panel = MarketPanel.load(store, universe, ["close", "volume"])
    given = read_scores(path, store)
    scores, told = on_trading_days(given.scores, store.calendar, path)
    table = scores.unstack("instrument").reindex(index=panel.calendar, columns=[*panel.instruments])
    realised = HorizonReturn(MONTH, less="universe", rules=rules).values(panel, store)
    found = {}
    for window in windows:
        planes = np.full(table.shape, np.nan)
        held = slice(window.last, window.end)
        planes[held] = table.to_numpy(dtype=np.float64)[held]
        found[window.year] = planes
    said = " ".join([f"Forecasts are the scores of `{path.rpartition('/')[2]}`.", *given.notes, *told])
    return Forecasts(found, realised.of(slice(0, len(panel.calendar))).astype(np.float64), said)


def month_starts(calendar: pd.DatetimeIndex, window: Window) -> list[int]:
    """Places of the days at whose close a month of the year held is decided on: the last ones before each month."""
    months = calendar.to_period("M")
    return [day - 1 for day in range(window.begin, window.end + 1) if months[day] != months[day - 1]]


def _ranked(plane: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Places among the members of the day, from -0.5 to 0.5; of another stock, where it would stand among them."""
    inside = np.where(members & np.isfinite(plane), plane, np.nan)
    count = np.isfinite(inside).sum(axis=1, keepdims=True)
    places = (rank(inside) - 0.5) / np.maximum(count, 1) - 0.5
    for day in np.flatnonzero((np.isfinite(plane) & ~members).any(axis=1)):
        others = np.isfinite(plane[day]) & ~members[day]
        known = np.sort(inside[day][np.isfinite(inside[day])])
        places[day, others] = np.searchsorted(known, plane[day, others]) / max(len(known), 1) - 0.5
    return places.astype(np.float32)


def _cut(label: Floats) -> Floats:
    """Without its outermost hundredths, which single stocks decide."""
    low, high = np.quantile(label, [0.01, 0.99])
    return np.clip(label, low, high)
