"""Gradients of single tasks: one backward pass each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def task_gradients(
    losses: Tensor,
    shared: Sequence[nn.Parameter],
    heads: Sequence[Sequence[nn.Parameter]],
    *,
    keep_graph: bool = False,
) -> Tensor:
    """Gradient of each loss by the shared parameters; heads get their own gradients on the way.

    A parameter that a task does not depend on has the gradient 0.

    Parameters
    ----------
    losses
        `[K]`.
    shared
        Parameters of P values together.
    heads
        Parameters of the head of each of the K tasks.
    keep_graph
        Whether another backward pass follows.

    Returns
    -------
    Tensor
        `[K, P]`.
    """
    rows = []
    for k, head in enumerate(heads):
        gradients = torch.autograd.grad(
            losses[k],
            [*shared, *head],
            retain_graph=keep_graph or k < len(heads) - 1,
            materialize_grads=True,
        )
        rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients[: len(shared)]]))
        for parameter, gradient in zip(head, gradients[len(shared) :], strict=True):
            parameter.grad = gradient
    return torch.stack(rows)


def assign(gradient: Tensor, shared: Sequence[nn.Parameter]) -> None:
    """Give each parameter its part of a gradient `[P]`."""
    sizes = [parameter.numel() for parameter in shared]
    for parameter, part in zip(shared, gradient.split(sizes), strict=True):
        parameter.grad = part.view_as(parameter)


def norms_and_cosine(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Norms `[K]` of the task gradients `[K, P]`, and the mean cosine over pairs of tasks."""
    norms = torch.linalg.vector_norm(jacobian, dim=1)  # [K]
    k = len(norms)
    if k == 1:
        return norms, norms.new_zeros(())
    unit = jacobian / norms.clamp_min(torch.finfo(jacobian.dtype).tiny).unsqueeze(1)
    total = unit.sum(dim=0).square().sum() - (norms > 0).sum()  # twice the sum of cosines over pairs
    return norms, total / (k * (k - 1))


@contextmanager
def repeatable_convolutions(network: nn.Module) -> Iterator[None]:
    """Let CUDA take only such gradients of convolutions as are the same every time; else a resumed run could differ.

    A network without convolutions is left alone.
    """
    before = torch.backends.cudnn.deterministic
    if any(isinstance(module, nn.Conv1d) for module in network.modules()):
        torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
