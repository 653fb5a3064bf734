"""What several convolutional backbones share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from qlib_ext.checks import UserError, one_of

NORMS = ("group", "batch")
GROUP_CHANNELS = 16  # of a group that is normalised together
POOLINGS = ("average", "attention", "last")


def window_of(kind: str, lookback_days: int, halvings: int, way_out: str) -> int:
    """Return the T' days that T days become when they are halved, rounded up, so many times.

    Raises
    ------
    UserError
        If a window is so short that the last halving would find a single day.
    """
    needed = 2**halvings
    if lookback_days < needed:
        raise UserError(
            f"{kind} halves the window {halvings} times and needs a dataset with `lookback_days` of at least {needed}, "
            f"found {lookback_days}: take longer windows, or {way_out}"
        )
    return -(-lookback_days // needed)


def normalization(kind: str, channels: int) -> nn.Module:
    """Normalise activations `[N, channels, T]`: over a stock's own window, or over all stocks of the day.

    Parameters
    ----------
    kind
        `group`: mean and variance of each stock, over its T days and 16 channels together, or all where 16 does not
        divide them (Wu and He, Group Normalization, 2018, section 4.1). `batch`: of each channel, over all stocks and
        days of the batch; in evaluation by running means of them (Ioffe and Szegedy, 2015).
    channels
        Channels, at least 2 for `group`: a single one of a single day would have no variance.
    """
    one_of("norm", kind, NORMS)
    if kind == "batch":
        return BatchNorm(channels)
    return nn.GroupNorm(channels // GROUP_CHANNELS if channels % GROUP_CHANNELS == 0 else 1, channels)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes its running statistics where a batch holds one value a channel.

    Such a batch, a single stock whose window has shrunk to one day, has no variance; torch refuses it in training.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `[N, channels, T]`."""
        if self.training and input.shape[0] * input.shape[2] == 1:
            return batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=False,
                eps=self.eps,
            )
        return super().forward(input)


class TimePooling(nn.Module):
    """From the states of T' days to one embedding.

    Parameters
    ----------
    pooling
        `average`: the mean over days. `attention`: a weighted mean, with weights softmax_t(uᵀ tanh(V z_t + c)).
        `last`: the last day's.
    size
        E, size of a state.

    Shapes
    ------
    `[N, E, T']` -> `[N, E]`.
    """

    def __init__(self, pooling: str, size: int) -> None:
        super().__init__()
        self.pooling = one_of("pooling", pooling, POOLINGS)
        if pooling == "attention":
            half = max(1, size // 2)
            self.score = nn.Sequential(nn.Linear(size, half), nn.Tanh(), nn.Linear(half, 1, bias=False))

    def forward(self, states: Tensor) -> Tensor:
        """Pool `[N, E, T']`."""
        if self.pooling == "last":
            return states[:, :, -1]
        if self.pooling == "average":
            return states.mean(dim=2)
        weight = self.score(states.transpose(1, 2)).softmax(dim=1)  # [N, T', 1]
        return torch.bmm(states, weight.to(states.dtype)).squeeze(2)  # [N, E]
