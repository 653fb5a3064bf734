"""A single linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from qlib_ext.checks import integer
from qlib_ext.config.rebuildable import Rebuildable


class LinearHead(Rebuildable, nn.Module):
    """A linear layer from a stock's embedding to a task's prediction.

    Parameters
    ----------
    in_features
        Size E of the embedding.
    out_features
        Number of predictions a stock: 1 for a regression, the number of classes for a classification.

    Shapes
    ------
    ``[N, E] -> [N, out_features]``; with one output ``[N, E] -> [N]``.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = integer("in_features", in_features, 1)
        self.out_features = integer("out_features", out_features, 1)
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the prediction of each stock of ``[N, E]``."""
        out = self.linear(embedding)  # [N, out_features]
        return out.squeeze(-1) if self.out_features == 1 else out
