"""Running statistics of batch normalisation for weights that no training has run with."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim.swa_utils import update_bn

from qlib_ext.data.panel import DailyPanel


def renew_statistics(network: nn.Module, panels: Iterable[DailyPanel]) -> None:
    """Compute the running means and variances of batch normalisation anew; a network without it is left alone.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018, section 3.2.

    Parameters
    ----------
    network
        With averaged weights.
    panels
        Days of training. The network sees each once, as in training, and learns nothing else of them.
    """
    update_bn(panels, network)
