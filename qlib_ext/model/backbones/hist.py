"""HIST: what a stock shares with predefined and with hidden concepts, and what is its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from qlib_ext.checks import one_of
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone, full_precision
from qlib_ext.model.backbones.recurrent import last_state, recurrent

SHORTEST = 1e-6  # a vector shorter than this has no direction
TIE = 1e-6  # cosines this close to the highest are as high


class HIST(Backbone):
    """Concept-oriented shared information: the sum of three parts, each worked out on what the one before left over.

    Source: Xu et al., HIST: A Graph-based Framework for Stock Trend Forecasting via Mining Concept-Oriented Shared
    Information, 2021. With h_i the last hidden state of a recurrent network, cos the cosine, and each
    module with linear layers of its own::

        predefined   e_k = Σ_i c_i h_i / Σ_i c_i, over the stocks i of concept k, c_i their market values
                     s_i = M Σ_k softmax_k(cos(h_i, e_k)) e_k;  y_i = LeakyReLU(F s_i);  r_i = h_i - B s_i
        hidden       every stock is the beginning of a concept, to which the stocks belong that are nearest to it:
                     n(i) = argmax_{j≠i} cos(r_i, r_j), if that is above 0;  e'_k = r_k + Σ_{i: n(i)=k} cos(r_i, r_k) r_i
                     s'_i, y'_i from r_i and the concepts with such a stock, as above;  r'_i = r_i - B' s'_i
        individual   y''_i = LeakyReLU(G r'_i)
        embedding_i  = y_i + y'_i + y''_i

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        E. 128 as the authors of MiM-StocR have it; 64 in the source's code and in Qlib.
    num_layers
        Layers of the recurrent part.
    dropout
        Probability of dropping a value between those layers, in training.
    rnn
        The recurrent part: `GRU` or `LSTM`.
    correct_concepts
        Form each predefined concept a second time, from all stocks of the day, weighted by softmax_i(h_iᵀ e_k): the
        source's way to let stocks into a concept that its list left out. Off, as in Qlib.

    Shapes
    ------
    panel.features `[N, T, F]`, and where they are there panel.concepts `[N, G]` and panel.market_value `[N]` ->
    `[N, E]`. Permuting the stocks permutes the output.

    Notes
    -----
    What is missing:

    - no concepts, or none that has a stock this day: y = 0 and r = h, the hidden concepts alone;
    - a concept without a stock this day takes no part; a stock without a concept attends to all concepts, as all do;
    - no market values: all stocks weigh alike;
    - no hidden concept, as with a single stock: y' = 0 and r' = r.

    Stocks that are nearest alike share the place of the nearest in equal parts, so that their order does not matter.
    Everything after the recurrent part runs in float32 whatever precision autocast asks for: rounding changes who is
    the nearest.

    Departures
    ----------
    From the authors' code: one nearest neighbour, as in Qlib, and not three; the weights of a concept sum to 1, where
    the code adds 1 to the sum of market values; whether a concept has stocks is counted, where the code asks whether
    its vector sums to 0; without a concept nothing is shared, where the code would share the biases of its layers.
    """

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        rnn: str = "GRU",
        correct_concepts: bool = False,
    ) -> None:
        super().__init__()
        self.rnn = recurrent(rnn, num_features, hidden_size, num_layers, dropout)
        self.correct_concepts = bool(one_of("correct_concepts", correct_concepts, (False, True)))
        self.out_features = hidden_size
        self.predefined = SharedInformation(hidden_size)
        self.hidden = SharedInformation(hidden_size)
        self.individual = _linear(hidden_size)

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        state = last_state(self.rnn, panel.features)  # [N, E]
        with full_precision(state):
            state = state.float()
            concepts = predefined_concepts(state, panel.concepts, panel.market_value)  # [G', E]
            if self.correct_concepts:
                concepts = (state @ concepts.T).softmax(dim=0).T @ state  # [G', E]
            predefined, explained = self.predefined(state, concepts)  # [N, E] each
            residual = state - explained
            hidden, explained = self.hidden(residual, hidden_concepts(residual))  # [N, E] each
            individual = leaky_relu(self.individual(residual - explained))  # [N, E]
            return predefined + hidden + individual


class SharedInformation(nn.Module):
    """From stocks and concepts to what each stock shares with them: one part to predict with, one that explains it.

    Parameters
    ----------
    size
        E.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mix = _linear(size)  # M
        self.forecast = _linear(size)  # F
        self.backcast = _linear(size)  # B

    def forward(self, state: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """LeakyReLU(F s) and B s, `[N, E]` each, of states `[N, E]` and concepts `[G, E]`; zeros where G = 0."""
        if not len(concepts):
            nothing = torch.zeros_like(state)
            return nothing, nothing
        weight = (_unit(state) @ _unit(concepts).T).softmax(dim=1)  # [N, G]
        shared = self.mix(weight @ concepts)  # [N, E]
        return leaky_relu(self.forecast(shared)), self.backcast(shared)


def predefined_concepts(state: Tensor, concepts: Tensor | None, market_value: Tensor | None) -> Tensor:
    """Means `[G', E]` of states `[N, E]` over the stocks of each concept that has some, weighted by market value."""
    if concepts is None:
        return state[:0]
    concepts = concepts[:, concepts.sum(dim=0) > 0]  # [N, G']
    weight = concepts if market_value is None else concepts * market_value.unsqueeze(1)  # [N, G']
    return (weight / weight.sum(dim=0)).T @ state


def hidden_concepts(residual: Tensor) -> Tensor:
    """Sums `[G', E]` of each stock that is another's nearest and of the stocks that it is nearest to, by cosine."""
    unit = _unit(residual)
    cosine = unit @ unit.T  # [N, N]
    with torch.no_grad():  # who is nearest to whom has no gradient
        others = cosine.detach().clone().fill_diagonal_(-math.inf)
        highest = others.amax(dim=1, keepdim=True)  # [N, 1]
        nearest = ((others >= highest - TIE) & (others > 0)).float()  # [N, N], row i: the nearest to stock i
        member = nearest / nearest.sum(dim=1, keepdim=True).clamp_min(1)
        kept = member.sum(dim=0) > 0  # [N]
        member = member + kept.float().diag()
    return (cosine * member)[:, kept].T @ residual


def _unit(vectors: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / length.clamp_min(SHORTEST)


def _linear(size: int) -> nn.Linear:
    layer = nn.Linear(size, size)
    nn.init.xavier_uniform_(layer.weight)  # as in the authors' code
    return layer
