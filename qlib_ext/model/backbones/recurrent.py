"""The recurrent part that several backbones begin with."""

from __future__ import annotations

from torch import Tensor, nn

from qlib_ext import checks

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
        D, size of a hidden state.
    num_layers
        Number of layers.
    dropout
        Probability of dropping a value between layers, in training; it needs two layers.

    Raises
    ------
    UserError
        If an argument is out of its range.
    """
    checks.one_of("rnn", cell, CELLS)
    checks.integer("hidden_size", hidden_size, 1)
    checks.integer("num_layers", num_layers, 1)
    checks.between("dropout", dropout, 0, 1, open_high=True)
    return CELLS[cell](input_size, hidden_size, num_layers, batch_first=True, dropout=dropout)


def last_state(rnn: nn.GRU | nn.LSTM, features: Tensor) -> Tensor:
    """The top layer's hidden states `[N, D]` on the last day of windows `[N, T, F]`."""
    states, _ = rnn(features)  # [N, T, D]
    return states[:, -1]  # [N, D]
