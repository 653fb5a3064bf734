"""GRU backbone."""

from __future__ import annotations

from torch import Tensor

from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.backbones.recurrent import last_state, recurrent


class GRU(Backbone):
    """Stacked GRU over each stock's window; the embedding is the top layer's last hidden state.

    Source: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation,
    2014; the recurrent part of MiM-StocR's GATs and HIST.

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        D. 128 as the authors' code has it; Qlib's default is 64.
    num_layers
        Number of layers.
    dropout
        Probability of dropping a value between layers, in training.

    Shape
    -----
    panel.features `[N, T, F]` -> `[N, D]`. Stocks do not see each other: permuting them permutes the output.
    """

    stocks_see_each_other = False

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.rnn = recurrent("GRU", num_features, hidden_size, num_layers, dropout)
        self.out_features = hidden_size

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, D]`."""
        return last_state(self.rnn, panel.features)
