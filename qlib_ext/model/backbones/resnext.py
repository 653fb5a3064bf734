"""ResNeXt over the days of the window."""

from __future__ import annotations

from torch import Tensor, nn

from qlib_ext.checks import UserError, between, integer
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.backbones.base import MOST_LAYERS, Backbone
from qlib_ext.model.backbones.convolution import TimePooling, normalization, window_of


class ResNeXt(Backbone):
    """Stages of residual blocks with grouped convolutions along time, pooled to one embedding a stock.

    Source: the shared part of "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt",
    section III; its block is that of Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2017,
    Figure 3(c), in one dimension. With x a block's input and each convolution followed by a normalisation::

        y = ReLU(conv1(x, width))                    one day at a time
        y = ReLU(conv3(y, width, cardinality))       three days; channels see those of their own group alone
        block(x) = ReLU(conv1(y, hidden_size) + shortcut(x))

    A stem (one convolution to `stem_channels`, normalisation, ReLU) comes before the first block. Every stage after the
    first halves the days, by stride 2 in the middle convolution and the shortcut of its first block. A shortcut is the
    input itself, or a convolution of one day where sizes differ.

    Parameters
    ----------
    num_features, lookback_days
        F and T; from the dataset. T must be at least 2^(stages - 1).
    hidden_size
        C of the paper and E of an embedding: channels that leave a block; 256 as in Xie et al., Figure 1.
    cardinality
        Groups of the middle convolution; it divides `width`.
    width
        Channels inside a block, the 128-d of the paper's Figure 1: 32 groups of 4.
    stages
        Stages; T' is T / 2^(stages - 1), rounded up.
    blocks
        Blocks of a stage.
    stem_channels
        Channels that leave the stem.
    stem_days
        Days that the stem's convolution sees, an odd number.
    pooling
        From `[T', E]` to `[E]`: `average` over days, `attention` (a weighted average, the weights learned) or `last`.
    norm
        `group`: over a stock's own window, 16 channels together. `batch`: over all stocks and days of the batch, one
        trading day, as in Xie et al.; in evaluation by running statistics.
    dropout
        Probability of dropping a value of the embedding, in training.

    Shapes
    ------
    panel.features `[N, T, F]` -> `[N, E]`. Stocks do not see each other, but for `batch` in training. Permuting the
    stocks permutes the output.

    Raises
    ------
    UserError
        If T is too short for the stages, or another argument is out of its range.

    Notes
    -----
    A batch is one trading day, whose stocks move together and share their macro figures. So `batch` takes the day's
    market away in training, and evaluation, by running means of the days seen last, does not: whole days are forecast
    too high or too low (reports/resnext has both). `group` looks at no other stock and is the same in training and in
    evaluation; it takes away what is common to a window, such as how large its moves are.

    Departures
    ----------
    The paper leaves open how many blocks there are, how many channels leave them, what normalises them and how T' days
    become one embedding; the arguments above say what is done. Xie et al. double width and channels when they halve the
    resolution; here both stay, as the paper names one number, 128. Their stem halves and pools at once, which a
    window of a few weeks does not bear. They normalise by the batch, and that is not the default here: see the notes.
    """

    stocks_see_each_other = False

    def __init__(
        self,
        num_features: int,
        lookback_days: int,
        hidden_size: int = 256,
        cardinality: int = 32,
        width: int = 128,
        stages: int = 3,
        blocks: int = 1,
        stem_channels: int = 64,
        stem_days: int = 7,
        pooling: str = "average",
        norm: str = "group",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        integer("hidden_size", hidden_size, 2)
        integer("cardinality", cardinality, 1)
        integer("width", width, 2)
        integer("stages", stages, 1, MOST_LAYERS)
        integer("blocks", blocks, 1, MOST_LAYERS)
        integer("stem_channels", stem_channels, 2)
        integer("stem_days", stem_days, 1)
        between("dropout", dropout, 0, 1, open_high=True)
        if width % cardinality:
            raise UserError(f"`width` must be a multiple of `cardinality` ({cardinality}), found {width}")
        if stem_days % 2 == 0:
            raise UserError(f"`stem_days` must be odd, to have a day in the middle, found {stem_days}")
        window_of("ResNeXt", lookback_days, stages - 1, "fewer `stages`")
        self.out_features = hidden_size
        self.stem = _convolution(num_features, stem_channels, norm, days=stem_days)
        sizes = [stem_channels] + [hidden_size] * (stages * blocks)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(
                    sizes[i],
                    hidden_size,
                    width=width,
                    cardinality=cardinality,
                    stride=2 if i and i % blocks == 0 else 1,
                    norm=norm,
                )
                for i in range(stages * blocks)
            )
        )
        self.pooling = TimePooling(pooling, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, panel: DailyPanel) -> Tensor:
        """Embeddings `[N, E]`."""
        window = panel.features.transpose(1, 2)  # [N, F, T]
        states = self.blocks(self.stem(window).relu())  # [N, E, T']
        return self.dropout(self.pooling(states))  # [N, E]


class ResidualBlock(nn.Module):
    """A bottleneck with a grouped convolution in its middle, added to its input.

    Parameters
    ----------
    in_channels, out_channels
        What comes in and what leaves.
    width, cardinality, norm
        As of `ResNeXt`.
    stride
        2 halves the days, rounded up.

    Shapes
    ------
    `[N, in_channels, T]` -> `[N, out_channels, ceil(T / stride)]`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, width: int, cardinality: int, stride: int, norm: str
    ) -> None:
        super().__init__()
        self.narrow = _convolution(in_channels, width, norm)
        self.grouped = _convolution(width, width, norm, days=3, stride=stride, groups=cardinality)
        self.widen = _convolution(width, out_channels, norm)
        same = in_channels == out_channels and stride == 1
        self.shortcut = (
            nn.Identity() if same else _convolution(in_channels, out_channels, norm, stride=stride)
        )

    def forward(self, states: Tensor) -> Tensor:
        """The next states."""
        inner = self.narrow(states).relu()  # [N, width, T]
        inner = self.grouped(inner).relu()  # [N, width, T / stride]
        return (self.widen(inner) + self.shortcut(states)).relu()  # [N, out_channels, T / stride]


def _convolution(
    in_channels: int,
    out_channels: int,
    norm: str,
    *,
    days: int = 1,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """A convolution along time that keeps the number of days but for its stride, and its normalisation."""
    layer = nn.Conv1d(
        in_channels, out_channels, days, stride=stride, padding=days // 2, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, normalization(norm, out_channels))
