"""Transformer encoder over the days of the window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qlib_ext.checks import UserError, between, integer, one_of
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import MOST_LAYERS, Backbone

POOLINGS = ("last", "mean")


class Transformer(Backbone):
    """Transformer encoder over each stock's window; the embedding is the last day's output, or the days' mean.

    Source: Vaswani et al., Attention Is All You Need, 2017, sections 3.1-3.5: the encoder, with sinusoidal positions.

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        E, a multiple of `num_heads`.
    num_layers
        Number of encoder layers.
    num_heads
        Attention heads of a layer.
    feedforward_size
        Hidden size of a layer's feed-forward part; four times E in the source.
    dropout
        Probability of dropping a value, in training, wherever the source does.
    pooling
        `last`: the output of day T, which attends to all others; `mean`: the mean over days.

    Shapes
    ------
    panel.features `[N, T, F]` -> `[N, E]`. Stocks do not see each other: permuting them permutes the output.

    Departures
    ----------
    A linear layer of the day's fields stands in for the embedding of a word, and is not scaled by √E. No mask: every
    day of the window is in the past of the day that is predicted.
    """

    positions: Tensor

    stocks_see_each_other = False

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        feedforward_size: int = 512,
        dropout: float = 0.1,
        pooling: str = "last",
    ) -> None:
        super().__init__()
        integer("hidden_size", hidden_size, 1)
        integer("num_layers", num_layers, 1, MOST_LAYERS)
        integer("num_heads", num_heads, 1)
        integer("feedforward_size", feedforward_size, 1)
        between("dropout", dropout, 0, 1, open_high=True)
        if hidden_size % num_heads:
            raise UserError(
                f"`hidden_size` must be a multiple of `num_heads` ({num_heads}), found {hidden_size}"
            )
        self.pooling = one_of("pooling", pooling, POOLINGS)
        self.out_features = hidden_size
        self.input = nn.Linear(num_features, hidden_size)
        self.register_buffer("positions", sinusoids(lookback_days, hidden_size), persistent=False)
        self.dropout = nn.Dropout(dropout)
        # a list, and not nn.TransformerEncoder, which starts all layers from copies of the same weights
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(hidden_size, num_heads, feedforward_size, dropout, batch_first=True)
            for _ in range(num_layers)
        )

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        states = self.dropout(self.input(panel.features) + self.positions)  # [N, T, E]
        for layer in self.layers:
            states = layer(states)
        return states[:, -1] if self.pooling == "last" else states.mean(dim=1)  # [N, E]


def sinusoids(length: int, size: int) -> Tensor:
    """Positions `[length, size]`: sin and cos of t / 10000^(2i / size) in columns 2i and 2i + 1 (section 3.5)."""
    day = torch.arange(length, dtype=torch.float64).unsqueeze(1)  # [T, 1]
    angle = day / 10_000 ** (torch.arange(0, size, 2, dtype=torch.float64) / size)  # [T, ceil(size / 2)]
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :size].float()
