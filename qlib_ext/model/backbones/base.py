"""What every backbone promises."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from qlib_ext.checks import UserError
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.data.panel import DailyPanel


class SizeError(UserError):
    """A backbone cannot be made for windows of this T or F; with those of another dataset it may."""


class Backbone(Rebuildable, nn.Module, ABC):
    """From one day's panel to one embedding a stock.

    A subclass takes `num_features` (F) and `lookback_days` (T) first: they come from the dataset, everything else
    from the workflow. No other size may be taken for granted. What T or F are too small for is said by a `SizeError`,
    which alone may depend on them: a workflow is checked before its data are there.

    Attributes
    ----------
    out_features
        E, the size of an embedding.
    stocks_see_each_other
        Whether the embedding of a stock follows from other stocks of the day too, in evaluation. Where it does not, a
        day that the device has no room for is evaluated in parts.
    """

    out_features: int
    stocks_see_each_other: bool = True

    @abstractmethod
    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]` of the day's N stocks, in the panel's order."""
