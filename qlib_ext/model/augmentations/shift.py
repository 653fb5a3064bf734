"""Older windows."""

from __future__ import annotations

import torch
from torch import Tensor

from qlib_ext.checks import UserError, integer
from qlib_ext.model.augmentations.base import Augmentation


class Shift(Augmentation):
    """Move a window back in time: what was there some days ago stands on its last day.

    Source: "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt", section IV.A
    (translation of the series). With s uniform among 1, ..., max_days::

        x'[n, τ] = x[n, τ - s], and 0 on the s first days

    Never forward in time, which would put days after t into the features. 0 is what a dataset puts where a stock has no
    value: days older than the window are missing.

    Parameters
    ----------
    max_days
        Days to go back at most; fewer than the window has.
    probability
        With which a stock's window is changed.

    Raises
    ------
    UserError
        At the first window of T days or less than `max_days` + 1.

    Departures
    ----------
    The paper does not say in which direction, nor how far.
    """

    def __init__(self, max_days: int = 3, probability: float = 0.5) -> None:
        super().__init__(probability)
        self.max_days = integer("max_days", max_days, 1)

    def change(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Windows `[N, T, F]`, shifted."""
        stocks, days, _ = features.shape
        if self.max_days >= days:
            raise UserError(
                f"`max_days` of Shift must be below the window's {days} days, found {self.max_days}: "
                "shift by less, or take longer windows"
            )
        back = torch.randint(
            1, self.max_days + 1, (stocks, 1, 1), generator=generator, device=features.device
        )  # [N, 1, 1]
        source = (
            torch.arange(days, device=features.device)[:, None] - back
        )  # [N, T, 1], below 0 where missing
        shifted = features.gather(1, source.clamp_min(0).expand_as(features))
        return torch.where(source >= 0, shifted, 0.0)
