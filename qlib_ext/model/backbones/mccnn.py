"""Multi-channel convolutional network: a branch of convolutions for each field."""

from __future__ import annotations

from torch import Tensor, nn

from qlib_ext.checks import UserError, between, integer
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import MOST_LAYERS, Backbone
from qlib_ext.model.backbones.convolution import window_of


class MCCNN(Backbone):
    """Convolutions along time in a branch of its own for each field, joined by a fully connected layer.

    Source: the baseline MCCNN of "Collaborative Optimization in Financial Data Mining Through Deep Learning and
    ResNeXt", section IV.B, which names no paper; the design is that of Zheng et al., Time Series Classification Using
    Multi-Channels Deep Convolutional Neural Networks, 2014. With x_f the T values of field f, and the same in each of
    `layers` layers::

        c_f       = max over two days of ReLU(conv(c_f))        from c_f = x_f on, `filters` channels
        embedding = dropout(ReLU(W [c_1 ‖ ... ‖ c_F] + b))

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset. T must be at least 2^layers.
    hidden_size
        E, size of the layer that joins the branches.
    filters
        Channels of a branch.
    filter_days
        Days that a convolution sees, an odd number.
    layers
        Convolutions of a branch, each of which halves the days (rounded up).
    dropout
        Probability of dropping a value of the embedding, in training.

    Shapes
    ------
    panel.features `[N, T, F]` -> `[N, E]`. Stocks do not see each other: permuting them permutes the output.

    Raises
    ------
    UserError
        If T is too short for the layers, or another argument is out of its range.

    Departures
    ----------
    ReLU and the maximum stand for the sigmoid and the mean of Zheng et al.; every layer of a branch has the same number
    of filters; windows are filled with zeros at their ends, so that a convolution keeps the number of days.
    """

    stocks_see_each_other = False

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 128,
        filters: int = 8,
        filter_days: int = 5,
        layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        integer("hidden_size", hidden_size, 1)
        integer("filters", filters, 1)
        integer("filter_days", filter_days, 1)
        integer("layers", layers, 1, MOST_LAYERS)
        between("dropout", dropout, 0, 1, open_high=True)
        if filter_days % 2 == 0:
            raise UserError(f"`filter_days` must be odd, to have a day in the middle, found {filter_days}")
        days = window_of("MCCNN", lookback_days, layers, "fewer `layers`")
        self.out_features = hidden_size
        # a group of a convolution is a field, so all branches run at once
        sizes = [1, *[filters] * layers]
        self.branches = nn.Sequential(
            *(
                part
                for i in range(layers)
                for part in (
                    nn.Conv1d(
                        num_features * sizes[i],
                        num_features * filters,
                        filter_days,
                        padding=filter_days // 2,
                        groups=num_features,
                    ),
                    nn.ReLU(),
                    nn.MaxPool1d(2, ceil_mode=True),
                )
            )
        )
        self.join = nn.Linear(num_features * filters * days, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        window = panel.features.transpose(1, 2)  # [N, F, T]
        branches = self.branches(window)  # [N, F * filters, T']
        return self.dropout(self.join(branches.flatten(1)).relu())  # [N, E]
