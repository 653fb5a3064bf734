"""One trading day as a model sees it: plain torch, no Qlib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

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
    market_status
        `[M]` float32, finite: features of the whole market, known at the close of `date`. None where the dataset names
        none.
    rows
        Label name -> what `labelled` says of it, found beforehand so that a step need not wait for the device.
    """

    date: pd.Timestamp
    features: Tensor
    instruments: Tensor
    market_value: Tensor | None
    labels: Mapping[str, Tensor]
    raw_labels: Mapping[str, Tensor]
    concepts: Tensor | None = None
    market_status: Tensor | None = None
    rows: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.features.shape[0]

    def labelled(self, name: str) -> Tensor:
        """Positions `[n]` int64 of the stocks that have the label `name`."""
        if name in self.rows:
            return self.rows[name]
        return torch.nonzero(~self.labels[name].isnan()).squeeze(1)  # waits for the device


class DailyPanels:
    """The days of one segment, gathered one at a time from the market on the device that trains.

    A sequence: `len(panels)` days, `panels[i]` is a `DailyPanel`. Nothing is held per day but the positions of
    its stocks, so a segment costs the market once, however long the windows.

    Parameters
    ----------
    features
        A fitted feature set.
    padded
        The market as the feature set reads it, float32; its device is that of the panels.
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
    market_status
        `[D, M]` float32, finite; None where there is none.
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
        market_status: np.ndarray | None = None,
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
        self._has_label: dict[str, np.ndarray] = {}
        self._market_value = None if market_value is None else _segment(market_value, days, self.device)
        self._concepts = concepts
        self._market_status = None if market_status is None else _segment(market_status, days, self.device)

    def __len__(self) -> int:
        return len(self.days)

    def __getitem__(self, position: int) -> DailyPanel:
        day = int(self.days[position])
        stocks = np.flatnonzero(self._present[day])
        columns = _upload(stocks, self.device)
        return DailyPanel(
            date=self.calendar[day],
            features=self.features.gather(self.padded, day, columns),  # [N, T, F]
            instruments=columns,
            market_value=None if self._market_value is None else self._market_value[position, columns],
            labels={name: values[position, columns] for name, values in self._labels.items()},
            raw_labels={name: values[position, columns] for name, values in self._raw_labels.items()},
            concepts=None if self._concepts is None else self._concepts(day, columns),
            market_status=None if self._market_status is None else self._market_status[position],
            rows={
                name: _upload(np.flatnonzero(self._known(name)[position, stocks]), self.device)
                for name in self._labels
            },
        )

    def __iter__(self) -> Iterator[DailyPanel]:
        return (self[position] for position in range(len(self)))

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The days of the segment."""
        return self.calendar[self.days]

    def labelled(self, names: tuple[str, ...], minimum: int = 2) -> np.ndarray:
        """Positions of the days on which each of the labels `names` is there for at least `minimum` stocks."""
        keep = np.ones(len(self), dtype=bool)
        for name in names:
            keep &= self._known(name).sum(axis=1) >= minimum
        return np.flatnonzero(keep)

    def _known(self, name: str) -> np.ndarray:
        """Where a stock of the day's panel has the label `name`, `[days, S]` bool."""
        if name not in self._has_label:
            there = ~self._labels[name].isnan().cpu().numpy()
            self._has_label[name] = self._present[self.days] & there
        return self._has_label[name]

    def matrix(self, name: str) -> np.ndarray:
        """Label `name` as training sees it, `[days, S]`, NaN for stocks that are not in the day's panel."""
        return self._matrix(self._labels[name])

    def raw_matrix(self, name: str) -> np.ndarray:
        """Raw label `name` as `[days, S]`, NaN for stocks that are not in the day's panel."""
        return self._matrix(self._raw_labels[name])

    def scattered(self, values: np.ndarray) -> np.ndarray:
        """Values of every stock of every day, in the order of `index`, as `[days, S]` with NaN elsewhere."""
        there = self._present[self.days]
        matrix = np.full(there.shape, np.nan, values.dtype)
        matrix[there] = values
        return matrix

    def _matrix(self, values: Tensor) -> np.ndarray:
        return np.where(self._present[self.days], values.cpu().numpy(), np.float32(np.nan))

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


def _upload(values: np.ndarray, device: torch.device) -> Tensor:
    """A small array on the device, without waiting for what the device has still to do."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
