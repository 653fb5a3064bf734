"""Larger or smaller moves."""

from __future__ import annotations

import torch
from torch import Tensor

from qlib_ext.checks import above
from qlib_ext.model.augmentations.base import Augmentation


class Scale(Augmentation):
    """Multiply a stock's whole window by one random number.

    Source: "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt", section IV.A
    (scaling of the series); with z standard normal::

        x'[n, τ, f] = exp(sigma z[n]) x[n, τ, f]

    One number for all days and fields keeps how they relate to each other, such as high and low to close.

    Parameters
    ----------
    sigma
        Standard deviation of the factor's logarithm: about the usual change, 0.1 being a tenth.
    probability
        With which a stock's window is changed.

    Departures
    ----------
    The paper names no distribution; this one has the median 1 and no factor below 0.
    """

    def __init__(self, sigma: float = 0.1, probability: float = 0.5) -> None:
        super().__init__(probability)
        self.sigma = float(above("sigma", sigma, 0))

    def change(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Windows `[N, T, F]`, scaled."""
        z = torch.empty_like(features[:, :1, :1]).normal_(generator=generator)  # [N, 1, 1]
        return features * (self.sigma * z).exp()
