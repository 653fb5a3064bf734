"""What every augmentation promises."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from qlib_ext.checks import between
from qlib_ext.config.rebuildable import Rebuildable


class Augmentation(Rebuildable, ABC):
    """A random change of the windows of a training day; labels stay out of its reach.

    Each stock is changed or left as it is, by a draw of its own. A changed window holds nothing of later days than the
    window did, day by day: what stands at day τ depends on days up to τ.

    Parameters
    ----------
    probability
        With which a stock's window is changed, in (0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = float(between("probability", probability, 0, 1, open_low=True))

    def __call__(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Change some of the windows `[N, T, F]` of a day, by draws of `generator`; the argument stays as it is."""
        draw = torch.rand(len(features), generator=generator, device=features.device)  # [N]
        chosen = (draw < self.probability)[:, None, None]
        return torch.where(chosen, self.change(features, generator), features)

    @abstractmethod
    def change(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """All windows `[N, T, F]`, changed; every draw comes from `generator`, on the windows' device."""
