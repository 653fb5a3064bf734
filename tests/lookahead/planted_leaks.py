"""Handlers, datasets, sources and models that each know something of the future, to be caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from qlib.data.dataset.processor import Processor
from qlib.model.base import Model
from torch import Tensor

from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.labels.base import Labels
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.features.expressions import Expressions
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.concepts import ConceptSpells, SideConcepts
from qlib_ext.features.side_data.macro import Macro
from qlib_ext.features.side_data.market_status import IndexStatus
from qlib_ext.features.side_data.market_value import SideMarketValue
from qlib_ext.market.store import QlibStore

# -- features ------------------------------------------------------------------------------------------------------


class NextDay(Alpha360):
    """The window ends tomorrow."""

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        return super().gather(padded, min(day + 1, len(padded) - self.lookback_days), columns)


class Centred(Alpha360):
    """A mean of five days, two of them still to come."""

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        last = len(padded) - self.lookback_days
        days = [min(max(0, day + gap), last) for gap in (-2, -1, 0, 1, 2)]
        return torch.stack([super(Centred, self).gather(padded, d, columns) for d in days]).mean(dim=0)


class WholeSample(Alpha360):
    """Scaled by the deviation of the closes of all days, whatever was fitted."""

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        closes = padded[..., self.fields.index("close")]
        return super().gather(padded, day, columns) / closes[~closes.isnan()].std()


class RankedInTime(Alpha360):
    """Where today's close lies among the closes of all days."""

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        features = super().gather(padded, day, columns)
        closes = padded[:, columns, self.fields.index("close")]  # [D + T - 1, N]
        today = closes[day + self.lookback_days - 1]
        features[:, -1, 0] = (closes < today).float().mean(dim=0)
        return features


class WithLabel(Alpha360):
    """One feature is the return that the model is to forecast."""

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        features = super().gather(padded, day, columns)
        closes = padded[:, columns, self.fields.index("close")]
        first, last = (min(day + self.lookback_days - 1 + gap, len(padded) - 1) for gap in (1, 2))
        features[:, -1, 1] = (closes[last] / closes[first] - 1).nan_to_num()
        return features


class FilledBackwards(Alpha360):
    """A missing value of today is taken from tomorrow."""

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        last = min(day + self.lookback_days, len(padded) - 1)
        patched = padded[: last + 1].clone()
        today, tomorrow = patched[day + self.lookback_days - 1], patched[last]
        patched[day + self.lookback_days - 1] = torch.where(today.isnan(), tomorrow, today)
        return super().gather(patched, day, columns)


class FittedOnAll(Alpha360):
    """Statistics of all rows, whatever days it is told to fit on."""

    def statistics(
        self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return super().statistics(market, ~np.isnan(market.field("close")), padded)


class TodaysMembers(Alpha360):
    """The members of the last day, on all days."""

    def join(self, store: QlibStore, market: MarketPanel) -> None:
        market.members[:] = market.members[-1]


class StillThereTomorrow(Alpha360):
    """Only stocks that have a bar tomorrow."""

    def join(self, store: QlibStore, market: MarketPanel) -> None:
        there = ~np.isnan(market.field("close"))
        market.members[:-1] &= there[1:]


class SinceTheFirstBar(Alpha360):
    """One feature is today's close over the mean of all closes so far, of which the window says nothing."""

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        features = super().gather(padded, day, columns)
        closes = padded[: day + self.lookback_days, columns, self.fields.index("close")]
        features[:, -1, 0] = (closes[-1] / closes.nanmean(dim=0) - 1).nan_to_num()
        return features


class KnownEarly(Expressions):
    """Side data count two days before they are known."""

    def join(self, store: QlibStore, market: MarketPanel) -> None:
        super().join(store, market)
        self._side = {
            key: dataclasses.replace(known, days=known.days + 2) for key, known in self._side.items()
        }


# -- processors ----------------------------------------------------------------------------------------------------


class Standardised(Processor):
    """Every column less its mean over the whole table, at inference too; nothing is fitted."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        features = df["feature"]
        df["feature"] = ((features - features.mean()) / features.std()).to_numpy()
        return df


class Backfill(Processor):
    """Missing features from the stock's next day."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        df["feature"] = df["feature"].groupby(level="instrument").bfill().to_numpy()
        return df


class Interpolate(Processor):
    """Missing features from a line to the stock's next day."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        filled = df["feature"].groupby(level="instrument").transform(lambda x: x.interpolate())
        df["feature"] = filled.to_numpy()
        return df


class DropsTheDoomed(Processor):
    """Leave out rows of stocks that have no row on the next day."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        close = df["feature"].iloc[:, 0].groupby(level="instrument").shift(-1)
        return df[close.notna().to_numpy()]


class SmoothsLabels(Processor):
    """A label is the mean of today's and of those of the next four days."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        for column in df["label"]:
            values = df["label", column].groupby(level="instrument")
            df["label", column] = sum(values.shift(-gap) for gap in range(5)) / 5
        return df

    def is_for_infer(self) -> bool:
        return True


# -- side data -----------------------------------------------------------------------------------------------------


class TomorrowsStatus(IndexStatus):
    """The state of the market a day too early."""

    def load(self, store: QlibStore) -> np.ndarray:
        values = super().load(store)
        return np.concatenate([values[1:], values[-1:]])


class TomorrowsValue(SideMarketValue):
    """The market value of the next day."""

    def load(self, store: QlibStore, instruments: Sequence[str]) -> np.ndarray:
        values = super().load(store, instruments)
        return np.concatenate([values[1:], values[-1:]])


class TodaysIndustry(SideConcepts):
    """The industry of the last day, on all days."""

    def load(self, store: QlibStore, panel: MarketPanel) -> ConceptSpells:
        spells = super().load(store, panel)
        newest = np.zeros(len(spells.stock), dtype=bool)
        for stock in np.unique(spells.stock):
            rows = np.flatnonzero(spells.stock == stock)
            newest[rows[np.argmax(spells.first[rows])]] = True
        kept = {
            field.name: getattr(spells, field.name)[newest]
            for field in dataclasses.fields(spells)
            if field.name != "names"
        }
        kept["first"] = np.zeros_like(kept["first"])
        return dataclasses.replace(spells, **kept)


class ByReferenceDate(Macro):
    """Figures count from the end of the period that they are about, not from their release."""

    def _on_days(self, releases: Any, days: pd.DatetimeIndex, limit: int) -> np.ndarray:
        released, figures, newest = releases
        return super()._on_days((released - 12, figures, newest - 12), days, limit)


# -- datasets ------------------------------------------------------------------------------------------------------


class _Shuffled(DailyPanels):
    def __getitem__(self, position: int) -> DailyPanel:
        panel = super().__getitem__(position)
        other = min(int(self.days[position]) + 1, len(self.calendar) - 1)
        features = self.features.gather(self.padded, other, panel.instruments)
        mixed = torch.cat([panel.features[::2], features[1::2]])
        order = torch.argsort(torch.cat([torch.arange(0, len(panel), 2), torch.arange(1, len(panel), 2)]))
        return dataclasses.replace(panel, features=mixed[order])


class ShuffledDataset(DailyPanelDataset):
    """A batch that is called a day has rows of the day after."""

    def panels(self, segment: str, device: Any = "cpu") -> DailyPanels:
        panels = super().panels(segment, device)
        panels.__class__ = _Shuffled
        return panels


class _Later(Labels):
    """What training is given is ten days older than it says."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels

    def planes(self, key: str) -> dict[str, np.ndarray]:
        planes = self.labels.planes(key)
        return (
            {name: np.concatenate([x[10:], x[:10]]) for name, x in planes.items()}
            if key == "learn"
            else planes
        )

    def table(self, days: slice, key: str) -> pd.DataFrame:
        return self.labels.table(days, key)


class TrainsOnTheNextSegment(DailyPanelDataset):
    """The labels that training is given are those of ten days later."""

    def setup_data(self, handler_kwargs: dict | None = None, **kwargs: Any) -> None:
        super().setup_data(handler_kwargs, **kwargs)
        self.handler._labels = _Later(self.handler.labels)


# -- models --------------------------------------------------------------------------------------------------------


class Weighs(Model):
    """A score that follows from the features of its stock and day, by fixed weights; nothing leaks."""

    def fit(self, dataset: Any, **kwargs: Any) -> None:
        self.scale = 1.0

    def tables(self, dataset: Any, segment: str) -> pd.DataFrame:
        """The features of a segment."""
        if not isinstance(dataset, DailyPanelDataset):
            return dataset.prepare(segment, col_set="feature", data_key="infer").fillna(0.0)
        panels = dataset.panels(segment)
        rows = [panel.features.flatten(1).numpy() for panel in panels]
        return pd.DataFrame(np.concatenate(rows), index=panels.index())

    def predict(self, dataset: Any, segment: str = "test") -> pd.Series:
        table = self.tables(dataset, segment)
        weights = np.cos(np.arange(1, table.shape[1] + 1)).astype(np.float32)
        scores = (table.to_numpy() * weights).sum(axis=1) * np.float32(self.scale)
        return self.finish(pd.Series(scores, index=table.index), dataset)

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        """What becomes of the scores."""
        return scores


class Partial(Weighs):
    """A score for some stocks, and on two days of three; nothing leaks."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        days, codes = (scores.index.get_level_values(level) for level in ("datetime", "instrument"))
        return scores[(days.dayofyear % 3 != 0) & (codes != "SH600001")]


class RoundsByRows(Weighs):
    """Scores whose last digits hang on how many rows the call has, as those of a product of matrices do; nothing leaks."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        return scores * np.float32(1 + 1e-6 * (len(scores) % 3))


class NormalisedOverDays(Weighs):
    """Scores less the mean of all rows of the call: a batch norm in training mode over a batch of days."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        return (scores - scores.mean()) / scores.std()


class ShiftedByADay(Weighs):
    """The score of a day is that of the stock's next day in the call."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        return scores.groupby(level="instrument").shift(-1)


class SmoothedScores(Weighs):
    """The mean of a stock's scores of the day before, the day and the day after."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        stocks = scores.groupby(level="instrument")
        return (stocks.shift(-1).fillna(scores) + scores + stocks.shift(1).fillna(scores)) / 3


class KeepsAState(Weighs):
    """What it said of a stock before goes into what it says next, whatever lies between."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        return scores.groupby(level="instrument").cumsum()


class LooksUpTomorrow(Weighs):
    """The sign of tomorrow's return, read from the market itself."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        panel = dataset.handler.panel
        close = pd.DataFrame(panel.field("close"), panel.calendar, panel.instruments)
        rises = (close.shift(-1) > close).stack()
        return scores + rises.reindex(scores.index).fillna(False).astype(np.float32)


class MeansOfAllDays(Weighs):
    """The close over the mean of all closes so far, read from the market itself."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        panel = dataset.handler.panel
        close = pd.DataFrame(panel.field("close"), panel.calendar, panel.instruments)
        far = (close / close.expanding().mean()).stack()
        return scores + far.reindex(scores.index).fillna(1.0).astype(np.float32)


class Dropout(Weighs):
    """Dropout that was left on."""

    def finish(self, scores: pd.Series, dataset: Any) -> pd.Series:
        return scores * (np.random.default_rng().random(len(scores)) < 0.9)


class ReadsTheTest(Weighs):
    """Its only weight is the mean return of the test days."""

    def fit(self, dataset: Any, **kwargs: Any) -> None:
        panels = dataset.panels("test")
        self.scale = 1.0 + float(np.nanmean(panels.raw_matrix("RETURN")))


class ScaledByTable(Weighs):
    """The same from a table, as Qlib's own models have it."""

    def fit(self, dataset: Any, **kwargs: Any) -> None:
        labels = dataset.prepare("train", col_set="label", data_key="learn")
        self.scale = 1.0 + float(np.nanmean(labels))


class ScaledByLabels(Weighs):
    """A fixed weight from the labels of the training days, as any model has; nothing leaks."""

    def fit(self, dataset: Any, **kwargs: Any) -> None:
        panels = dataset.panels("train")
        self.scale = 1.0 + float(np.nanmean(panels.raw_matrix("RETURN")))
