"""Graph attention over the stocks of a day."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from qlib_ext.checks import between
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone, full_precision
from qlib_ext.model.backbones.recurrent import last_state, recurrent


class GATs(Backbone):
    """A recurrent network, then one graph attention layer in which every stock of the day sees every other.

    Source: Veličković et al., Graph Attention Networks, 2018, Equations 1-4, on the complete graph of a day's stocks, in the
    form of Qlib's GATs, which MiM-StocR uses (section 4.1).

    With h_i the last hidden state of stock i, and a₁, a₂, W, V, b, c learned::

        e_ij = LeakyReLU(a₁ᵀ(W h_i + b) + a₂ᵀ(W h_j + b))
        p_ij = exp(e_ij) / Σ_k exp(e_ik)
        z_i  = LeakyReLU(V (Σ_j p_ij h_j + h_i) + c)

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        E. 128 as the authors' code has it; Qlib's default is 64.
    num_layers
        Layers of the recurrent part.
    dropout
        Probability of dropping a value between those layers, in training.
    rnn
        The recurrent part: `GRU` or `LSTM`.
    negative_slope
        Slope of both LeakyReLUs below 0. 0.01 as in Qlib; 0.2 in the source.

    Shapes
    ------
    panel.features `[N, T, F]` -> `[N, E]`. Permuting the stocks permutes the output; a single stock attends to itself.

    Notes
    -----
    Nothing of size N × N is made, see `attend`. The attention layer runs in float32 or better whatever precision
    autocast asks for: rounded scores would blur who attends to whom.

    Departures
    ----------
    From the source: one head; what is averaged is h_j, as in Qlib, and not W h_j; W has a bias; the average is added
    to h_i and passes a linear layer. From Qlib: a is drawn as in the source (Glorot), not from a standard normal.
    """

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        rnn: str = "GRU",
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.rnn = recurrent(rnn, num_features, hidden_size, num_layers, dropout)
        self.negative_slope = between("negative_slope", negative_slope, 0, 1)
        self.out_features = hidden_size
        self.transform = nn.Linear(hidden_size, hidden_size)
        self.attention = nn.Parameter(torch.empty(1, 2 * hidden_size))  # a₁, then a₂
        nn.init.xavier_uniform_(self.attention)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        state = last_state(self.rnn, panel.features)  # [N, E]
        with full_precision(state):
            state = state.float()
            receiver, sender = (self.transform(state) @ self.attention.view(2, -1).T).unbind(1)  # [N], [N]
            context = attend(state, receiver, sender, self.negative_slope)  # [N, E]
            return leaky_relu(self.output(context + state), self.negative_slope)  # [N, E]


def attend(values: Tensor, receiver: Tensor, sender: Tensor, negative_slope: float) -> Tensor:
    r"""Average `values` under the weights softmax_j(LeakyReLU(u_i + v_j)), in O(N log N) time and O(N) memory.

    For a fixed i the score has two branches, and which one j takes depends on v_j alone::

        exp(LeakyReLU(u_i + v_j)) = exp(u_i) exp(v_j)      where v_j > -u_i
                                  = exp(s u_i) exp(s v_j)  elsewhere

    So with the stocks in ascending order of v, both the weighted sum of values and the sum of weights are, for every
    i, one suffix sum and one prefix sum that end at the same place, found by bisection. Every exponent is taken
    against its largest value, so that none is above 0 and the sum of weights is at least 1, however large the scores.
    A suffix is the total less a prefix; in float64 this costs no digit that a float32 result would show.

    Parameters
    ----------
    values
        `[N, E]`, what is averaged.
    receiver, sender
        `[N]`, u and v: what stock i adds to its own scores, and stock j to the scores of others.
    negative_slope
        s, between 0 and 1.

    Returns
    -------
    Tensor
        `[N, E]` in the type of `values`. NaN as with a dense softmax: in `values` or `sender` it reaches every row,
        in `receiver` its own.
    """
    size = values.shape[1]
    u, v = receiver.double(), sender.double()
    v, order = v.sort(stable=True)
    end = torch.searchsorted(v.detach(), -u.detach(), right=True)  # [N], first j of the upper branch
    highest = v[-1].detach()  # the shift of a softmax, which has no gradient
    v = v - highest  # at most 0
    u = u + highest  # the highest score of each i, before LeakyReLU
    shift = leaky_relu(u, negative_slope).detach()
    weight = torch.stack([v, negative_slope * v], dim=1).exp()  # [N, 2], by branch
    summed = pad(values[order].double(), (0, 1), value=1.0)  # [N, E + 1]: values, and 1 to count weights
    prefix = (weight.unsqueeze(2) * summed.unsqueeze(1)).cumsum(dim=0)  # [N, 2, E + 1]
    prefix = pad(prefix, (0, 0, 0, 0, 1, 0))  # [N + 1, 2, E + 1], from the empty one
    upper = (u - shift).exp().unsqueeze(1) * (prefix[-1, 0] - prefix[end, 0])  # [N, E + 1]
    lower = (negative_slope * u - shift).exp().unsqueeze(1) * prefix[end, 1]  # [N, E + 1]
    total = upper + lower
    return (total[:, :size] / total[:, size:]).to(values.dtype)
