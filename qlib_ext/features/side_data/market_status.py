"""The state of the whole market on a day, for models that weigh features by it.

A workflow names one class for its dataset; what it gives is the same for all stocks of a day.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from qlib_ext.checks import UserError, above, instance, integer, words
from qlib_ext.features.engine.evaluation import Program
from qlib_ext.features.expressions import EPSILON, MAD_TO_STD
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.source import Source
from qlib_ext.market.codes import is_index
from qlib_ext.market.store import QlibStore

INDICES = ("SH000300", "SH000903", "SH000016")  # CSI300, CSI100 and SSE50
WINDOWS = (5, 10, 20, 30, 60)
RETURN = "$close / Ref($close, 1) - 1"


class MarketStatus(Source):
    """Where the M market features of a dataset come from.

    They are normalised robustly: less the median of the training days, over 1.4826 median absolute deviations, clipped,
    and 0 where they are missing.

    Parameters
    ----------
    names
        Of the M features.
    clip
        In deviations.

    Attributes
    ----------
    median, scale : ndarray `[M]` float32
        None before they are fitted.
    """

    def __init__(self, names: Sequence[str], clip: float = 3.0) -> None:
        self.names = tuple(names)
        self.clip = float(above("clip", clip, 0))
        self.median: np.ndarray | None = None
        self.scale: np.ndarray | None = None

    @abstractmethod
    def load(self, store: QlibStore) -> np.ndarray:
        """Market features `[D, M]` float32 over the store's calendar, not normalised; NaN where there is none.

        Those of day t follow from what was known at the close of t.
        """

    def fit(self, values: np.ndarray) -> None:
        """Fit `median` and `scale` by the features `[days, M]` of the training days.

        Raises
        ------
        UserError
            If one of them has no value on any of these days.
        """
        for name, empty in zip(self.names, np.isnan(values).all(axis=0), strict=True):
            if empty:
                raise UserError(
                    f"the market feature `{name}` must be known on some day to fit on, found none: name other indices, "
                    "or fit on other days"
                )
        median = np.nanmedian(values, axis=0)
        scale = MAD_TO_STD * np.nanmedian(np.abs(values - median), axis=0) + EPSILON
        self.restore(median.astype(np.float32), scale.astype(np.float32))

    def restore(self, median: np.ndarray, scale: np.ndarray) -> None:
        """Take statistics `[M]` that were fitted before."""
        self.median, self.scale = median, scale

    def normalised(self, values: np.ndarray) -> np.ndarray:
        """Features `[D, M]` as a model gets them: float32, finite."""
        if self.median is None or self.scale is None:
            raise RuntimeError("the market features are not fitted: call `fit` first")
        values = np.clip((values - self.median) / self.scale, -self.clip, self.clip)
        return np.nan_to_num(values, nan=0.0).astype(np.float32)


class IndexStatus(MarketStatus):
    """Return and turnover of several indices, today and over the last days.

    Source: Li et al., MASTER: Market-Guided Stock Transformer for Stock Price Forecasting, 2024: the market status vector,
    in the form in which the authors publish it.

    With r the daily return of an index and a what it was traded for, for each index and each window of d days::

        r,  Mean(r, d),  Std(r, d),  Mean(a, d) / a,  Std(a, d) / a

    Parameters
    ----------
    indices
        Codes of instruments of the store: M is their number times 1 + 4 × the number of windows.
    windows
        The d, in trading days.
    turnover
        Whether turnover is looked at too; an index may have none.
    clip
        After normalising, in deviations.

    Raises
    ------
    UserError
        For arguments out of range.

    Notes
    -----
    An index without the field `amount` has close × volume in its place: no money, but over its own value of today it says
    how much busier the market was. An index has no splits, so that its factor says nothing.

    Departures
    ----------
    CSI300, CSI100 and SSE50 by default, which Qlib's stores and the sample market have; CSI300, CSI500 and CSI800
    (SH000300, SH000905, SH000906) in the source.
    """

    way_out = "name indices that it has in `indices`, or bring others in (`qlib-ext data import`)"

    def __init__(
        self,
        indices: Sequence[str] = INDICES,
        windows: Sequence[int] = WINDOWS,
        turnover: bool = True,
        clip: float = 3.0,
    ) -> None:
        self.indices = words("indices", [code.upper() for code in words("indices", indices)])
        if not self.indices:
            raise UserError("`indices` must name at least one index, found none")
        if not isinstance(windows, (list, tuple)) or not windows:
            raise UserError(f"`windows` must be a list of different numbers of days, found {windows!r}")
        self.windows = tuple(integer(f"windows[{i}]", days, 2) for i, days in enumerate(windows))
        if len(set(self.windows)) < len(self.windows):
            raise UserError(f"`windows` must be a list of different numbers of days, found {windows!r}")
        self.turnover = instance("turnover", turnover, bool)
        self.formulas = _formulas(self.windows, turnover)
        super().__init__([f"{code}_{name}" for code in self.indices for name in self.formulas], clip)

    def lacks(self, store: QlibStore) -> str | None:
        codes = store.instruments()
        missing = [code for code in self.indices if code not in codes]
        if missing:
            there = ", ".join(code for code in codes if is_index(code)) or "none"
            return f"it has no bars of {', '.join(missing)}; of indices it has {there}"
        for code in self.indices:
            fields = set(store.fields(code))
            if "close" not in fields or (self.turnover and not fields & {"amount", "volume"}):
                return (
                    f"{code} has neither amount nor volume" if "close" in fields else f"{code} has no close"
                )
        return None

    def load(self, store: QlibStore) -> np.ndarray:
        close, volume, amount = store.read(["close", "volume", "amount"], self.indices)  # [D, indices] each
        amount = np.where(np.isnan(amount).all(axis=0), close * volume, amount)
        bars = MarketPanel(
            fields=("close", "amount"),
            calendar=store.calendar,
            instruments=self.indices,
            values=np.stack([close, amount]),
            members=np.ones(close.shape, dtype=bool),
            missing_fields=(),
        )
        found = np.full((*close.shape, len(self.formulas)), np.nan, np.float32)
        for values in Program(list(self.formulas.values())).evaluate(bars):
            found[values.days, values.stocks, values.expression] = values.plane
        found[~np.isfinite(found)] = np.nan
        return found.reshape(len(close), -1)

    def describe(self, store: QlibStore) -> dict[str, Any]:
        return {
            "source": f"bars of {', '.join(self.indices)}",
            "windows": list(self.windows),
            "turnover": self.turnover,
            "clip": self.clip,
        }


def _formulas(windows: Sequence[int], turnover: bool) -> dict[str, str]:
    """Name -> expression of the bars of one index."""
    found = {"RETURN": RETURN}
    for days in windows:
        found |= {
            f"RETURN_MEAN{days}": f"Mean({RETURN}, {days})",
            f"RETURN_STD{days}": f"Std({RETURN}, {days})",
        }
        if turnover:
            found |= {
                f"TURNOVER_MEAN{days}": f"Mean($amount, {days}) / $amount",
                f"TURNOVER_STD{days}": f"Std($amount, {days}) / $amount",
            }
    return found
