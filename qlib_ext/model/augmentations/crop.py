"""Shorter windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qlib_ext.checks import between
from qlib_ext.model.augmentations.base import Augmentation


class Crop(Augmentation):
    """Keep a random number of a window's last days, and take what is older for missing.

    Source: "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt", section III (random
    cropping of the series). The label belongs to the last day, so a crop ends there. With L uniform among
    ceil(shortest · T), ..., T::

        x'[n, τ] = x[n, τ] for the L last days τ, 0 for those before

    0 is what a dataset puts where a stock has no value, as before its listing: after normalisation the mean or
    the median.

    Parameters
    ----------
    shortest
        Smallest part of the window that is kept, in (0, 1].
    probability
        With which a stock's window is changed.

    Departures
    ----------
    A cropped window keeps its T days, since a backbone is made for T.
    """

    def __init__(self, shortest: float = 0.5, probability: float = 0.5) -> None:
        super().__init__(probability)
        self.shortest = float(between("shortest", shortest, 0, 1, open_low=True))

    def change(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Windows `[N, T, F]`, cropped."""
        stocks, days, _ = features.shape
        least = math.ceil(self.shortest * days)
        kept = torch.randint(
            least, days + 1, (stocks, 1, 1), generator=generator, device=features.device
        )  # [N, 1, 1]
        age = torch.arange(days - 1, -1, -1, device=features.device)[:, None]  # [T, 1], 0 on the last day
        return torch.where(age < kept, features, 0.0)
