"""One trading day as a model sees it: plain torch, no Qlib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qlib_ext.features.base import FeatureSet


@dataclass(frozen=True)
class DailyPanel:
    """The N stocks of one trading day.

    Attributes
    ----------
    date
        The day t at whose close the features are known.
    features
        `[N, T, F]` float32, finite: windows of T days ending at t.
    instruments
        `[N]` int64, positions in the dataset's `instruments`.
    market_value
        `[N]` float32, above 0 and finite, as known at the close of `date`; a stock of which none is known has the
        median of the others. None where the dataset names no market value.
    labels
        Label name -> `[N]` float32 as training sees it (normalised per day), NaN where missing.
    raw_labels
        Label name -> `[N]` float32 as metrics see it, NaN where missing.
    concepts
        `[N, G]` float32, 1 where a stock belongs to a concept or an industry and 0 elsewhere, as known at the close
        of `date`; a stock may have none, and a concept may have no stock that day. None where the dataset names no
        concepts, or the store has none.
    """

    date: pd.Timestamp
    features: Tensor
    instruments: Tensor
    market_value: Tensor | None
    labels: Mapping[str, Tensor]
    raw_labels: Mapping[str, Tensor]
    concepts: Tensor | None = None

    def __len__(self) -> int:
        return self.features.shape[0]


class DailyPanels:
    """The days of one segment, gathered one at a time from the market on the device that trains.

    A sequence: `len(panels)` days, `panels[i]` is a `DailyPanel`. Nothing is held per day but the positions of
    its stocks, so a segment costs the market once, however long the windows.

    Parameters
    ----------
    features
        A fitted feature set.
    padded
        The market as the feature set reads it, `[D + T - 1, S, ...]` float32 with T - 1 empty days in front; its device
        is that of the panels.
    calendar, instruments
        The D days and S codes of the market.
    days
        Positions of the segment's days in `calendar`, ascending.
    present
        `[D, S]` bool: stocks that the universe holds that day and that have a close.
    labels, raw_labels
        Label name -> `[D, S]` float32.
    market_value
        `[D, S]` float32, above 0 and finite wherever `present`; None where there is none.
    concepts
        From the position of a day and the positions `[N]` of its stocks to their concepts `[N, G]` float32, all on
        `device`; None where there are none.
    """

    def __init__(
        self,
        *,
        features: FeatureSet,
        padded: Tensor,
        calendar: pd.DatetimeIndex,
        instruments: tuple[str, ...],
        days: np.ndarray,
        present: np.ndarray,
        labels: Mapping[str, np.ndarray],
        raw_labels: Mapping[str, np.ndarray],
        market_value: np.ndarray | None = None,
        concepts: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        self.features = features
        self.calendar = calendar
        self.instruments = instruments
        self.days = days
        self.device = padded.device
        self.padded = padded
        self._present = present
        self._labels = {name: _segment(values, days, self.device) for name, values in labels.items()}
        self._raw_labels = {name: _segment(values, days, self.device) for name, values in raw_labels.items()}
        self._market_value = None if market_value is None else _segment(market_value, days, self.device)
        self._concepts = concepts

    def __len__(self) -> int:
        return len(self.days)

    def __getitem__(self, position: int) -> DailyPanel:
        columns = self.columns(position)
        day = int(self.days[position])
        return DailyPanel(
            date=self.calendar[day],
            features=self.features.gather(self.padded, day, columns),  # [N, T, F]
            instruments=columns,
            market_value=None if self._market_value is None else self._market_value[position, columns],
            labels={name: values[position, columns] for name, values in self._labels.items()},
            raw_labels={name: values[position, columns] for name, values in self._raw_labels.items()},
            concepts=None if self._concepts is None else self._concepts(day, columns),
        )

    def __iter__(self) -> Iterator[DailyPanel]:
        return (self[position] for position in range(len(self)))

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The days of the segment."""
        return self.calendar[self.days]

    def columns(self, position: int) -> Tensor:
        """Positions `[N]` of the day's stocks in `instruments`."""
        # found when they are asked for: a list of them for every day would be as large as a field of the market
        return torch.from_numpy(np.flatnonzero(self._present[self.days[position]])).to(self.device)

    def labelled(self, names: tuple[str, ...], minimum: int = 2) -> np.ndarray:
        """Positions of the days on which each of the labels `names` is there for at least `minimum` stocks."""
        keep = np.ones(len(self), dtype=bool)
        for name in names:
            there = self._present[self.days] & ~self._labels[name].isnan().cpu().numpy()
            keep &= there.sum(axis=1) >= minimum
        return np.flatnonzero(keep)

    def raw_matrix(self, name: str) -> np.ndarray:
        """Raw label `name` as `[days, S]`, NaN for stocks that are not in the day's panel."""
        values = self._raw_labels[name].cpu().numpy()
        matrix = np.full_like(values, np.nan)
        there = self._present[self.days]
        matrix[there] = values[there]
        return matrix

    def index(self) -> pd.MultiIndex:
        """The (datetime, instrument) of every stock of every day, in the order in which the days are gathered."""
        days, columns = np.nonzero(self._present[self.days])
        codes = np.asarray(self.instruments, dtype=object)[columns]
        return pd.MultiIndex.from_arrays([self.dates[days], codes], names=["datetime", "instrument"])


def _segment(values: np.ndarray, days: np.ndarray, device: torch.device) -> Tensor:
    # where no day is left out it is the plane itself, and no copy of it
    run = len(days) > 0 and days[-1] - days[0] + 1 == len(days)
    values = values[days[0] : days[-1] + 1] if run else values[days]
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)
