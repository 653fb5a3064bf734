"""What every backbone promises."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from qlib_ext.config.build import build, locate
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.data.panel import DailyPanel

MOST_LAYERS = 1_000  # one behind the other


class Backbone(Rebuildable, nn.Module, ABC):
    """From one day's panel to one embedding a stock.

    A subclass takes `num_features` (F) and `lookback_days` (T) first: they come from the dataset, everything else
    from the workflow. One that looks at the whole market takes `num_market` (M) too. No other size may be taken for granted. What T or F are too small for is a `UserError` of
    the constructor. A workflow is checked with a backbone on torch's device `meta`: the constructor reads no value of a
    tensor. Nor does `forward`, as far as that can be: on a GPU each would wait for all that is still to be computed.

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


def build_backbone(config: Mapping[str, Any] | Backbone, *, name: str = "backbone", **sizes: int) -> Backbone:
    """Build the backbone that `config` describes, with the sizes of the dataset; `num_market` where its class takes it."""
    if isinstance(config, Mapping) and "class" in config:
        taken = inspect.signature(locate(config["class"], name=name)).parameters
        sizes = {size: value for size, value in sizes.items() if size != "num_market" or size in taken}
    return build(config, Backbone, name=name, **sizes)


def full_precision(states: Tensor) -> AbstractContextManager[Any]:
    """Compute in the precision of the arguments, whatever autocast asks for; torch has none on its device without data."""
    kind = states.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
