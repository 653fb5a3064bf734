"""Augmentations of a training, in the order of the workflow, drawn from the seed, the epoch and the day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.augmentations.base import Augmentation


class Augmenter:
    """Change a training day's windows as a workflow says; its labels stay.

    Parameters
    ----------
    configs
        `{class, kwargs}` of augmentations, applied one after the other.
    seed
        With the epoch and the day it decides every draw, so that a resumed run draws the same again.
    device
        Where the windows are.

    Raises
    ------
    UserError
        If `configs` is no list, or one of them is no augmentation.
    """

    def __init__(
        self, configs: Sequence[Mapping[str, Any] | Augmentation], seed: int, device: torch.device
    ) -> None:
        if not isinstance(configs, (list, tuple)):
            raise UserError(f"`augmentations` must be a list, found {configs!r}")
        self.augmentations = [
            build(config, Augmentation, name=f"augmentations[{i}]") for i, config in enumerate(configs)
        ]
        self.seed = seed
        self.generator = torch.Generator(device)

    def __call__(self, panel: DailyPanel, epoch: int, position: int) -> DailyPanel:
        """The panel of the day at `position` as `epoch` trains on it."""
        if not self.augmentations:
            return panel
        state = np.random.SeedSequence([self.seed, epoch, position]).generate_state(1, np.uint64)
        self.generator.manual_seed(int(state[0]) >> 1)
        features = panel.features
        for augmentation in self.augmentations:
            features = augmentation(features, self.generator)
        return replace(panel, features=features)
