"""What every loss is, and the one way in which it reads its two arguments."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from qlib_ext.checks import UserError
from qlib_ext.config.rebuildable import Rebuildable


class Loss(Rebuildable, nn.Module, abc.ABC):
    """From one day's predictions and labels to one number, lower is better.

    The trainer drops stocks without a label before it calls a loss, and calls none on a day without any
    label: a loss never sees NaN in its target, and an empty day is an error rather than a NaN that reaches
    the weights. A loss reads no value of a tensor (`item`, `any` in an `if`, a mask as index): on a GPU each would
    wait for all that is still to be computed. The result does not depend on the order of the stocks, stays in the graph of `pred`, and is
    at least float32 whatever the precision of `pred`.

    Attributes
    ----------
    classification
        Whether `pred` holds logits ``[N, C]`` of classes; else it holds values ``[N]``.
    """

    classification: bool = False

    def __init__(self) -> None:  # torch's own takes any argument, and says so only by a TypeError
        super().__init__()

    @abc.abstractmethod
    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day.

        Parameters
        ----------
        pred
            What the task's head gives for the N stocks of the day.
        target
            Their labels ``[N]``, none missing.

        Returns
        -------
        A scalar.
        """


def as_values(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Read the arguments of a regression: both ``[N]``, of one floating type of at least float32.

    Raises
    ------
    UserError
        If `pred` is neither ``[N]`` nor ``[N, 1]``, `target` is not ``[N]``, or N is 0.
    """
    if pred.ndim == 2 and pred.shape[1] == 1:
        pred = pred[:, 0]  # left as [N, 1] it would broadcast against [N] to N x N differences
    if pred.ndim != 1:
        raise UserError(
            f"a regression loss needs predictions [N] or [N, 1], found the shape {tuple(pred.shape)}"
        )
    _one_label_each(pred, target)
    pred = at_least_float32(pred)
    return pred, target.to(pred.dtype)


def as_classes(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Read the arguments of a classification: logits ``[N, C]``, at least float32, and class indices ``[N]``.

    That the labels are whole numbers from 0 to C - 1 is checked before the training, once for all days
    (`MultiTaskModel`): to look at them here would wait for the device in every step.

    Raises
    ------
    UserError
        If `pred` is not ``[N, C]`` with at least 2 classes, `target` is not ``[N]``, or N is 0.
    """
    if pred.ndim != 2 or pred.shape[1] < 2:
        raise UserError(
            "a classification loss needs logits [N, C] of at least 2 classes, "
            f"found the shape {tuple(pred.shape)}; give the head one output a class"
        )
    _one_label_each(pred, target)
    return at_least_float32(pred), target.long()


def as_ranking(pred: Tensor, target: Tensor, classification: bool) -> tuple[Tensor, Tensor]:
    """Read the arguments of a loss that ranks: a score and a relevance of each stock, both ``[N]``.

    Of a regression these are the prediction and the label; of a classification the mean class under the
    predicted probabilities and the class itself.

    Raises
    ------
    UserError
        As `as_values` and `as_classes` do.
    """
    if not classification:
        return as_values(pred, target)
    logits, classes = as_classes(pred, target)
    return expected_class(logits), classes.to(logits.dtype)


def expected_class(logits: Tensor, worth: Tensor | None = None) -> Tensor:
    """Return the mean class of each stock ``[N]`` under the softmax of logits ``[N, C]`` (MiM-StocR, 3.2).

    Parameters
    ----------
    logits
        At least float32.
    worth
        What stands for each class in the mean ``[C]``, by default its number 0 ... C - 1.
    """
    if worth is None:
        worth = torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)  # [C]
    # Not as a matrix product: autocast would round it to a lower precision.
    return (logits.softmax(dim=-1) * worth).sum(dim=-1)  # [N]


def at_least_float32(values: Tensor) -> Tensor:
    """Return `values` in their own precision, or in float32 where that is lower (autocast)."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _one_label_each(pred: Tensor, target: Tensor) -> None:
    if target.ndim != 1 or len(target) != len(pred):
        raise UserError(
            f"a loss needs one label a stock [N], found {tuple(target.shape)} for {len(pred)} predictions"
        )
    if len(target) == 0:
        raise UserError(
            "a loss needs at least 1 labelled stock, found 0; leave out days without labels before it"
        )
