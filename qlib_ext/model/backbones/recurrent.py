"""The recurrent part that several backbones begin with, and the backbone that is nothing else."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from qlib_ext.checks import between, integer, one_of
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import MOST_LAYERS, Backbone

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"GRU": nn.GRU, "LSTM": nn.LSTM}


def recurrent(
    cell: str, input_size: int, hidden_size: int, num_layers: int, dropout: float
) -> nn.GRU | nn.LSTM:
    """Build a stacked recurrent network over windows `[N, T, input_size]`, its arguments checked.

    Parameters
    ----------
    cell
        `GRU` or `LSTM`.
    input_size
        Size of a day's input.
    hidden_size
        Size of a hidden state.
    num_layers
        Number of layers.
    dropout
        Probability of dropping a value between layers, in training; it needs two layers.

    Raises
    ------
    UserError
        If an argument is out of its range.
    """
    one_of("rnn", cell, CELLS)
    integer("hidden_size", hidden_size, 1)
    integer("num_layers", num_layers, 1, MOST_LAYERS)
    between("dropout", dropout, 0, 1, open_high=True)
    return CELLS[cell](input_size, hidden_size, num_layers, batch_first=True, dropout=dropout)


def last_state(rnn: nn.GRU | nn.LSTM, features: Tensor) -> Tensor:
    """The top layer's hidden states `[N, E]` on the last day of windows `[N, T, F]`."""
    states, _ = rnn(features)  # [N, T, E]
    return states[:, -1]  # [N, E]


class Recurrent(Backbone):
    """A stacked recurrent network over each stock's window; the embedding is the top layer's last hidden state.

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        E. 128 as the authors of MiM-StocR have it; Qlib's default is 64.
    num_layers
        Number of layers.
    dropout
        Probability of dropping a value between layers, in training.

    Shapes
    ------
    panel.features `[N, T, F]` -> `[N, E]`. Stocks do not see each other: permuting them permutes the output.
    """

    stocks_see_each_other = False

    @property
    @abstractmethod
    def cell(self) -> str:
        """A key of `CELLS`."""

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.rnn = recurrent(self.cell, num_features, hidden_size, num_layers, dropout)
        self.out_features = hidden_size

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        return last_state(self.rnn, panel.features)
