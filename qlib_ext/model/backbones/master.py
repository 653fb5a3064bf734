"""MASTER: attention over the days of each stock, over the stocks of each day, and a gate by the state of the market."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from qlib_ext.checks import UserError, between, integer
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.backbones.gated import MarketGate
from qlib_ext.model.backbones.transformer import sinusoids


class MASTER(Backbone):
    """Market-guided stock transformer.

    Source: Li et al., MASTER: Market-Guided Stock Transformer for Stock Price Forecasting, AAAI 2024, and the settings that
    the authors published with it.

    With x the features of stock u on day t of its window, m those of the market, p sinusoidal positions, and all
    matrices learned::

        gate         x̃_ut = F softmax((W m + b) / β) ∘ x_ut
        input        y_ut = V x̃_ut + c + p_t
        intra-stock  h_u  = Attention over the T days of stock u, of y_u
        inter-stock  z_t  = Attention over the N stocks, of h_t: each day of the window by itself
        aggregation  λ_ut = softmax_t(z_utᵀ L z_uT);  embedding_u = Σ_t λ_ut z_ut

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset. T is 8 in the source.
    hidden_size
        E, a multiple of both numbers of heads.
    num_heads
        Of the attention over days.
    num_stock_heads
        Of the attention over stocks.
    dropout
        Probability of dropping a value, in training, of what attention and feed-forward parts give.
    beta
        Temperature of the gate: 5 for CSI300 and 2 for CSI800 in the source. None leaves the gate out.
    num_market
        M; from the dataset.

    Shapes
    ------
    panel.features `[N, T, F]` and panel.market_status `[M]` -> `[N, E]`. Permuting the stocks permutes the output.

    Raises
    ------
    UserError
        For arguments out of range; if there is a gate, and the dataset has no features of the market.

    Notes
    -----
    A step takes memory in proportion to N: torch's fused attention makes no matrix of N × N. Its time grows as N² T. A
    training step on 5,000 stocks, 8 days and 158 features at E = 64 takes 348 MB beyond the model and the features
    (`python benchmarks/step_cost.py stocks`).

    Departures
    ----------
    From the authors' code: no dropout of attention weights, for which torch would make the whole N × N matrix on a CPU;
    scores over days are divided by √(E / heads) as those over stocks are; the aggregation has one matrix L, as in the
    paper, where the code has Lᵀ L.
    """

    positions: Tensor

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 256,
        num_heads: int = 4,
        num_stock_heads: int = 2,
        dropout: float = 0.5,
        beta: float | None = 5.0,
        num_market: int = 0,
    ) -> None:
        super().__init__()
        integer("hidden_size", hidden_size, 1)
        between("dropout", dropout, 0, 1, open_high=True)
        for name, heads in (("num_heads", num_heads), ("num_stock_heads", num_stock_heads)):
            integer(name, heads, 1)
            if hidden_size % heads:
                raise UserError(
                    f"`hidden_size` must be a multiple of `{name}` ({heads}), found {hidden_size}"
                )
        self.out_features = hidden_size
        self.gate = None if beta is None else MarketGate(num_market, num_features, beta)
        self.input = nn.Linear(num_features, hidden_size)
        self.register_buffer("positions", sinusoids(lookback_days, hidden_size), persistent=False)
        self.over_days = Attention(hidden_size, num_heads, dropout)
        self.over_stocks = Attention(hidden_size, num_stock_heads, dropout)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)  # L

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        features = panel.features if self.gate is None else self.gate(panel)  # [N, T, F]
        states = self.input(features) + self.positions  # [N, T, E]
        states = self.over_days(states)  # [N, T, E]
        states = self.over_stocks(states.transpose(0, 1)).transpose(0, 1)  # [N, T, E]
        scores = self.key(states) @ states[:, -1:].transpose(1, 2)  # [N, T, 1], by the last day
        return (scores.softmax(dim=1) * states).sum(dim=1)  # [N, E]


class Attention(nn.Module):
    """Self-attention and a feed-forward part, each added to its own normalised input.

    With LN a layer normalisation, and q, k, v linear in y::

        y = LN(x);  a = y + softmax(q kᵀ / √(E / heads)) v
        b = LN(a);  output = b + B ReLU(A b)

    Parameters
    ----------
    size
        E.
    num_heads
        Parts of q, k and v that attend apart; what they give stands side by side.
    dropout
        Probability of dropping a value of what is added, and of the hidden layer.

    Shapes
    ------
    `[B, L, E]` -> `[B, L, E]`: each of B batches attends along its L entries.
    """

    def __init__(self, size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(size)
        self.projection = nn.Linear(size, 3 * size, bias=False)  # q, k and v
        self.dropout = nn.Dropout(dropout)
        self.norm_between = nn.LayerNorm(size)
        self.feedforward = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, size), nn.Dropout(dropout)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Mixed states `[B, L, E]`."""
        states = self.norm(states)
        states = states + self.dropout(self._attend(states))
        states = self.norm_between(states)
        return states + self.feedforward(states)

    def _attend(self, states: Tensor) -> Tensor:
        parts = self.projection(states).unflatten(2, (3, self.num_heads, -1))  # [B, L, 3, heads, E / heads]
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()  # [B, heads, L, E / heads] each
        return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # [B, L, E]
