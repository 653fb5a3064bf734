"""Noise on every value."""

from __future__ import annotations

import torch
from torch import Tensor

from qlib_ext.checks import above
from qlib_ext.model.augmentations.base import Augmentation


class Jitter(Augmentation):
    """Add independent Gaussian noise to every day and field.

    Source: "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt", section III (the
    addition of noise); with z standard normal::

        x'[n, τ, f] = x[n, τ, f] + sigma z[n, τ, f]

    Parameters
    ----------
    sigma
        Standard deviation of the noise, in units of the features, which the dataset has normalised.
    probability
        With which a stock's window is changed.

    Departures
    ----------
    The paper says smooth noise and no more; this is white.
    """

    def __init__(self, sigma: float = 0.03, probability: float = 0.5) -> None:
        super().__init__(probability)
        self.sigma = float(above("sigma", sigma, 0))

    def change(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Windows `[N, T, F]` with noise."""
        noise = torch.empty_like(features).normal_(generator=generator)
        return features + self.sigma * noise
