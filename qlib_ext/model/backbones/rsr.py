"""Relational stock ranking: stocks that share concepts see each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from qlib_ext.checks import UserError, integer, one_of
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone, full_precision
from qlib_ext.model.backbones.recurrent import last_state, recurrent

STRENGTHS = ("explicit", "implicit")
NEGATIVE_SLOPE = 0.2  # of LeakyReLU, as in the authors' code


class RSR(Backbone):
    """A recurrent network, then temporal graph convolution over the relations of the day's stocks.

    Source: Feng et al., Temporal Relational Ranking for Stock Prediction, 2019: its sequential and its relational
    embedding.

    Two stocks are related where they share a concept, and each is related to itself. With h_i the last hidden state,
    a_ij the relation vector (1 for each concept that i and j share, and one more entry that is 1 where i = j)::

        explicit  g_ij = (h_iᵀ h_j) · LeakyReLU(wᵀ a_ij + b)
        implicit  g_ij = LeakyReLU(uᵀ h_i + vᵀ h_j + wᵀ a_ij + b)
        embedding_i    = [h_i ‖ Σ_j softmax_j(g_ij) h_j], j over the stocks related to i

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        H. An embedding is twice as long: E = 2 H.
    num_layers
        Layers of the recurrent part.
    dropout
        Probability of dropping a value between those layers, in training.
    rnn
        The recurrent part: `LSTM`, as in the source, or `GRU`.
    strength
        How strong a relation is: `explicit` or `implicit`, as above.
    num_concepts
        G, the number of the dataset's concepts: each then has its own weight in w. None: all weigh alike, so that
        only how many concepts two stocks share matters.

    Shapes
    ------
    panel.features `[N, T, F]`, panel.concepts `[N, G]` -> `[N, 2 H]`. Permuting the stocks permutes the output. A stock
    that shares no concept is related to itself alone: its embedding is [h_i ‖ h_i].

    Raises
    ------
    UserError
        From `forward`, if the panel has no concepts, or not `num_concepts` of them.

    Notes
    -----
    wᵀ a_ij is a product of the concept matrix with itself: N × N, and not N × N × G.

    Departures
    ----------
    The softmax over the stocks related to i stands in the authors' code for a division by their number in the paper;
    their code takes it over the other index, so that the weights of an average do not sum to 1. In the implicit form
    the LeakyReLU is taken of the sum, as in the paper; their code takes the sum of three.
    """

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        rnn: str = "LSTM",
        strength: str = "explicit",
        num_concepts: int | None = None,
    ) -> None:
        super().__init__()
        self.rnn = recurrent(rnn, num_features, hidden_size, num_layers, dropout)
        self.strength = one_of("strength", strength, STRENGTHS)
        if num_concepts is not None:
            integer("num_concepts", num_concepts, 1)
        self.num_concepts = num_concepts
        self.out_features = 2 * hidden_size
        ends = 2 * hidden_size if strength == "implicit" else 0
        kinds = num_concepts or 1
        bound = math.sqrt(6 / (ends + kinds + 2))  # Glorot's, for one output
        self.concept_weight = nn.Parameter(torch.empty(kinds).uniform_(-bound, bound))
        self.self_weight = nn.Parameter(torch.empty(()).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(()))
        if strength == "implicit":
            self.end_weights = nn.Parameter(torch.empty(2, hidden_size).uniform_(-bound, bound))  # u, v

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, 2 H]`."""
        concepts = self._concepts(panel)  # [N, G]
        state = last_state(self.rnn, panel.features)  # [N, H]
        with full_precision(state):
            state = state.float()
            itself = torch.eye(len(state), device=state.device)  # [N, N]
            related = (concepts @ concepts.T + itself) > 0  # [N, N]
            relation = (concepts * self.concept_weight) @ concepts.T + self.self_weight * itself + self.bias
            if self.strength == "explicit":
                strength = (state @ state.T) * leaky_relu(relation, NEGATIVE_SLOPE)  # [N, N]
            else:
                receiver, sender = (state @ self.end_weights.T).unbind(1)  # [N], [N]
                ends = receiver.unsqueeze(1) + sender.unsqueeze(0)  # [N, N]
                strength = leaky_relu(ends + relation, NEGATIVE_SLOPE)  # [N, N]
            weight = strength.masked_fill(~related, -math.inf).softmax(dim=1)  # [N, N]
            return torch.cat([state, weight @ state], dim=1)  # [N, 2 H]

    def _concepts(self, panel: DailyPanel) -> Tensor:
        concepts = panel.concepts
        if concepts is None:
            raise UserError(
                "RSR relates stocks by the concepts that they share, and the dataset has none: give it `concepts` (such as "
                "qlib_ext.features.side_data.concepts.CorrelationClusters), or take GATs, which relates all stocks of a day"
            )
        if self.num_concepts not in (None, concepts.shape[1]):
            raise UserError(
                f"`num_concepts` must be the number of the dataset's concepts ({concepts.shape[1]}), "
                f"found {self.num_concepts}"
            )
        return concepts
