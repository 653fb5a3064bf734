"""A training day's windows as an epoch sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.augmentations.base import Augmentation


def augmented(
    panel: DailyPanel, augmentations: Sequence[Augmentation], *, seed: int, epoch: int, position: int
) -> DailyPanel:
    """The panel with its windows changed by one augmentation after the other; its labels stay.

    The seed, the epoch and the day's position decide every draw, so that a resumed run draws the same again.
    """
    if not augmentations:
        return panel
    state = np.random.SeedSequence([seed, epoch, position]).generate_state(1, np.uint64)
    generator = torch.Generator(panel.features.device).manual_seed(int(state[0]) >> 1)
    features = panel.features
    for augmentation in augmentations:
        features = augmentation(features, generator)
    return replace(panel, features=features)
