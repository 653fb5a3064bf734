"""Recurrent network with attention over the days of the window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qlib_ext.checks import integer
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.backbones.recurrent import recurrent


class ALSTM(Backbone):
    """LSTM whose embedding is its last hidden state beside an average of all of them, weighted by attention.

    Source: Qin et al., A Dual-Stage Attention-Based Recurrent Neural Network for Time Series Prediction, 2017, in the
    form of the attentive LSTM of Feng et al., Enhancing Stock Movement Prediction with Adversarial Training, 2019,
    without the adversarial training; Qlib's ALSTM is the same network.

    With x_t the fields of day t::

        h_1, ..., h_T = LSTM(tanh(W x_1 + b), ..., tanh(W x_T + b))
        p_t           = softmax_t(uᵀ tanh(V h_t + c))
        embedding     = [h_T ‖ Σ_t p_t h_t]

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        H, at least 2; V has H // 2 rows, as in Qlib. An embedding is twice as long: E = 2 H.
    num_layers
        Number of layers.
    dropout
        Probability of dropping a value between layers and in the attention, in training.
    rnn
        `LSTM`, or `GRU`, which is Qlib's default.

    Shapes
    ------
    panel.features `[N, T, F]` -> `[N, 2 H]`. Stocks do not see each other: permuting them permutes the output.
    """

    stocks_see_each_other = False

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        rnn: str = "LSTM",
    ) -> None:
        super().__init__()
        integer("hidden_size", hidden_size, 2)
        self.rnn = recurrent(rnn, hidden_size, hidden_size, num_layers, dropout)
        self.input = nn.Linear(num_features, hidden_size)
        self.attention = nn.Sequential(
            nn.Linear(hidden_size, hidden_size // 2),
            nn.Dropout(dropout),
            nn.Tanh(),
            nn.Linear(hidden_size // 2, 1, bias=False),
        )
        self.out_features = 2 * hidden_size

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, 2 H]`."""
        states, _ = self.rnn(self.input(panel.features).tanh())  # [N, T, H]
        weight = self.attention(states).softmax(dim=1)  # [N, T, 1]
        average = (weight * states).sum(dim=1)  # [N, H]
        return torch.cat([states[:, -1], average], dim=1)  # [N, 2 H]
