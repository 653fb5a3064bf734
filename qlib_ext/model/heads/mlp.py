"""A layer of hidden units before the linear one."""

from __future__ import annotations

from torch import Tensor, nn

from qlib_ext.checks import between, integer
from qlib_ext.config.rebuildable import Rebuildable


class MLPHead(Rebuildable, nn.Module):
    """A multilayer perceptron with one hidden layer from a stock's embedding to a task's prediction.

    Source: the task heads of the ResNeXt multi-task paper, Eq. 1-3.

    Parameters
    ----------
    in_features
        Size E of the embedding.
    out_features
        Number of predictions a stock: 1 for a regression, the number of classes for a classification.
    hidden_size
        Number of hidden units, each with a ReLU.
    dropout
        Share of hidden units that are dropped in training, in [0, 1).

    Shapes
    ------
    ``[N, E] -> [N, out_features]``; with one output ``[N, E] -> [N]``.
    """

    def __init__(
        self, in_features: int, out_features: int, hidden_size: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.in_features = integer("in_features", in_features, 1)
        self.out_features = integer("out_features", out_features, 1)
        self.hidden_size = integer("hidden_size", hidden_size, 1)
        self.dropout = between("dropout", dropout, 0, 1, open_high=True)
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden_size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, out_features),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the prediction of each stock of ``[N, E]``."""
        out = self.layers(embedding)  # [N, out_features]
        return out.squeeze(-1) if self.out_features == 1 else out
