"""Deep shared network: plain layers that all tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from qlib_ext.checks import UserError, between, brief, integer
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import Backbone


class DSN(Backbone):
    """Fully connected layers on the flattened window, shared by all tasks.

    Source: the baseline DSN of "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt",
    section IV.B: shared layers below task-specific ones, with a simple extraction of features. That is hard
    parameter sharing (Caruana, Multitask Learning, 1997). With s_0 the T × F values of a window::

        s_l = dropout(ReLU(W_l s_{l-1} + b_l)),  l = 1, ..., L

    The task-specific layers are the tasks' heads; `qlib_ext.model.heads.mlp.MLPHead` has a hidden layer for each task.

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset.
    hidden_size
        E, size of the last shared layer.
    layer_sizes
        Sizes of the layers before it, in order; none is allowed.
    dropout
        Probability of dropping a value after each layer, in training.

    Shapes
    ------
    panel.features `[N, T, F]` -> `[N, E]`. Stocks do not see each other: permuting them permutes the output.

    Departures
    ----------
    The paper gives neither the kind of the shared layers nor their number and sizes.
    """

    stocks_see_each_other = False

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        layer_sizes: Sequence[int] = (256,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        integer("hidden_size", hidden_size, 1)
        between("dropout", dropout, 0, 1, open_high=True)
        if not isinstance(layer_sizes, (list, tuple)):
            raise UserError(f"`layer_sizes` must be a list of sizes, found {brief(layer_sizes)}")
        for i, size in enumerate(layer_sizes):
            integer(f"layer_sizes[{i}]", size, 1)
        self.out_features = hidden_size
        sizes = [lookback_days * num_features, *layer_sizes, hidden_size]
        layers = (nn.Linear(size, following) for size, following in pairwise(sizes))
        self.layers = nn.Sequential(
            *(part for layer in layers for part in (layer, nn.ReLU(), nn.Dropout(dropout)))
        )

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        return self.layers(panel.features.flatten(1))  # [N, E]
