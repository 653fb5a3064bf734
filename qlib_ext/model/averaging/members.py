"""Several networks whose predictions are averaged, as one; and their weights, as those of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.averaging.base import copied

MEMBERS = "members"


class NetworkEnsemble(nn.Module):
    """M networks of one shape, whose predictions of a day are averaged.

    Values, such as scores, are averaged as z-scores of the day, on the mean scale of the members, so that losses of values
    keep their meaning; classes by their probabilities. With p[m, n] what member m predicts of stock n, and μ and σ mean and
    deviation over the stocks::

        z[m, n] = (p[m, n] - μ[m]) / σ[m]
        p[n] = mean(μ) + mean(σ) mean over m of z[m, n]

    Parameters
    ----------
    members
        The networks; from a panel to predictions by task.

    Shapes
    ------
    As of a member: `[N]` of values, logits `[N, C]` of classes.

    Notes
    -----
    A single member predicts what it predicts alone, to the last bit. One whose values of a day are all equal has no say in
    the order of that day.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, panel: DailyPanel, precision: str = "float32") -> dict[str, Tensor]:
        """Predictions by task."""
        found = [member(panel, precision) for member in self.members]
        if len(found) == 1:
            return found[0]
        together = {name: torch.stack([each[name] for each in found]) for name in found[0]}
        return {
            name: mean_of_values(values) if values.dim() == 2 else mean_of_classes(values)
            for name, values in together.items()
        }


def mean_of_values(values: Tensor) -> Tensor:
    """From `[M, N]` to `[N]`: the mean of the z-scores, on the mean scale."""
    deviation, mean = torch.std_mean(values, dim=1, keepdim=True, correction=0)  # [M, 1]
    scores = (values - mean) / deviation.clamp_min(torch.finfo(values.dtype).tiny)
    return mean.mean() + deviation.mean() * scores.mean(dim=0)


def mean_of_classes(logits: Tensor) -> Tensor:
    """From logits `[M, N, C]` to those of the mean probabilities `[N, C]`."""
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))


def number_of_members(weights: Mapping[str, Tensor]) -> int:
    """How many members an ensemble has whose weights these are; 0 for a network alone."""
    return len({name.split(".")[1] for name in weights if name.startswith(f"{MEMBERS}.")})


def newest_member(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the newest member; those of a network alone are its own."""
    prefix = f"{MEMBERS}.{number_of_members(weights) - 1}."
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return found or dict(weights)


def shaped(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """What can hold the weights: the network itself, or an ensemble of copies of it."""
    number = number_of_members(weights)
    return NetworkEnsemble([copied(network) for _ in range(number)]) if number else network
