"""A gate by the state of the market, before any backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from qlib_ext.checks import UserError, above
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone, build_backbone, full_precision


class MarketGate(nn.Module):
    r"""Weigh the features of all stocks of a day, and of all days of their windows, by what the market is like.

    Source: Li et al., MASTER: Market-Guided Stock Transformer for Stock Price Forecasting, 2024, market-guided gating.

    With m the market's features of the day, and W, b learned:

    .. math:: \alpha = F \cdot \mathrm{softmax}\left(\frac{W m + b}{\beta}\right), \qquad \tilde x = \alpha \odot x

    Parameters
    ----------
    num_market, num_features
        M and F; from the dataset.
    beta
        Temperature: the lower it is, the fewer features a day has. 5 for CSI300 and 2 for CSI800 in the source.

    Shapes
    ------
    panel.features `[N, T, F]` and panel.market_status `[M]` -> `[N, T, F]`. The F weights of a day have the mean 1.

    Raises
    ------
    UserError
        If the dataset has no features of the market.

    Notes
    -----
    The weights are computed in float32 or better whatever precision autocast asks for.
    """

    def __init__(self, num_market: int, num_features: int, beta: float = 5.0) -> None:
        super().__init__()
        self.beta = above("beta", beta, 0)
        if num_market < 1:
            raise UserError(
                "a gate needs features of the market, found none: name `market_status` in the dataset, such as {class: "
                "qlib_ext.features.side_data.market_status.IndexStatus}"
            )
        self.linear = nn.Linear(num_market, num_features)

    def weights(self, market_status: Tensor) -> Tensor:
        """What the features are multiplied by, `[F]`, for the market's features `[M]`."""
        with full_precision(market_status):
            scores = self.linear(market_status.float()) / self.beta
            return scores.softmax(dim=0) * len(scores)

    def forward(self, panel: DailyPanel) -> Tensor:
        """Gated features `[N, T, F]`."""
        if panel.market_status is None:
            raise UserError(f"a gate needs the market's features of {panel.date:%Y-%m-%d}, found none")
        return panel.features * self.weights(panel.market_status)


class Gated(Backbone):
    """Any backbone, on features that a `MarketGate` weighs by what the market is like.

    Source: Li et al., MASTER: Market-Guided Stock Transformer for Stock Price Forecasting, 2024, where the backbone is
    `MASTER`, which has the gate built in.

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    backbone
        `{class, kwargs}` of a `Backbone`.
    beta
        Temperature of the gate.
    num_market
        M; from the dataset.

    Shapes
    ------
    panel.features `[N, T, F]` and panel.market_status `[M]` -> `[N, E]`, E of the backbone.

    Raises
    ------
    UserError
        If the dataset has no features of the market.
    """

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        backbone: Mapping[str, Any] | Backbone,
        beta: float = 5.0,
        num_market: int = 0,
    ) -> None:
        super().__init__()
        self.gate = MarketGate(num_market, num_features, beta)
        self.backbone = build_backbone(
            backbone,
            name="backbone.kwargs.backbone",
            num_features=num_features,
            lookback_days=lookback_days,
            num_market=num_market,
        )
        self.out_features = self.backbone.out_features
        self.stocks_see_each_other = self.backbone.stocks_see_each_other

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        return self.backbone(replace(panel, features=self.gate(panel)))
