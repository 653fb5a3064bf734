"""Any aggregator or scalarizer of TorchJD."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qlib_ext import checks
from qlib_ext.checks import UserError
from qlib_ext.config.build import build, locate
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.balancers.module_state import capture, decode, encode, restore

# They weigh tasks by the products of gradients of two independent batches; a step has one.
TWO_BATCHES = ("MoDoWeighting", "SDMGradWeighting")


class TorchJD(Balancer):
    """A method of TorchJD, named by its dotted class.

    Source: Quinton and Rey (2024), "Jacobian Descent for Multi-Objective Optimization", whose library TorchJD holds
    some thirty published methods; it comes with the extra `qlib-ext[torchjd]`.

    An *aggregator* (UPGrad, PCGrad, NashMTL, MGDA, IMTLG, AlignedMTL, FairGrad, CAGrad, ConFIG, GradVac, ...) combines
    the `[K, P]` gradients of the tasks on the shared parameters: one backward pass a task. The trainer makes them
    and TorchJD combines them, so recurrent backbones need nothing special, on the CPU as under CUDA. Heads take the
    gradients of their own losses.

    A *scalarizer* (UW, DWA, FAMO, IMTLL, GeometricMean, STCH, ...) makes one number of the K losses. Its slopes by the
    losses are the weights of one backward pass, which is the same as differentiating it, heads included.

    Parameters
    ----------
    method
        `{class, kwargs}` such as `{class: torchjd.aggregation.UPGrad}`. In `kwargs` a list of numbers stands for a
        tensor, one number a task in the order of the workflow (`pref_vector`, `weights`), and a mapping with
        `class` for an object. The number of tasks (`n_tasks`, `shape`) is filled in.
    learning_rate
        Adam's, for the parameters of the method itself (UW, IMTLL); that of the model is the customary choice.
    weight_decay
        Constant coupled L2 on the model's parameters. The paper's baselines have none, which confounds a comparison
        with CQB.

    Raises
    ------
    UserError
        From the constructor if TorchJD is not there or the class is neither; from `setup` if the method does not
        take its arguments or the number of tasks, or holds what a resumed run could not take up. To find out, `setup`
        takes two steps with a method that is thrown away.
    FloatingPointError
        If the method gives a gradient or a weight that is not finite, as some do for a gradient of zero.

    Notes
    -----
    *State.* What a method holds between steps (averages, weights, its own optimizer) is saved and taken up bit for
    bit. *Randomness* (PCGrad, GradVac, GradDrop, Random) is drawn from torch's generators, which the run seeds and
    its checkpoints hold. *Ends.* DWA is told of the end of an epoch, FAMO of the losses after each step, for which the
    day is passed through the network once more. *Order.* PCD takes the first task of the workflow for its main one.

    MoDo and SDMGrad need gradients of two independent batches in a step and are refused.

    Examples
    --------
    ::

        balancer:
          class: qlib_ext.model.balancers.torchjd.TorchJD
          kwargs: {method: {class: torchjd.aggregation.CAGrad, kwargs: {c: 0.4}}}
    """

    def __init__(
        self, method: Mapping[str, Any], learning_rate: float = 2e-4, weight_decay: float = 0.0
    ) -> None:
        if importlib.util.find_spec("torchjd") is None:
            raise UserError("TorchJD needs the package torchjd, found none: pip install 'qlib-ext[torchjd]'")
        from torchjd.aggregation import Aggregator
        from torchjd.scalarization import Scalarizer

        if not isinstance(method, Mapping) or "class" not in method:
            raise UserError(
                f"`method` must be a mapping with `class` and, where needed, `kwargs`, found {method!r}"
            )
        kind = locate(method["class"], name="method")
        if not issubclass(kind, (Aggregator, Scalarizer)):
            raise UserError(
                f"`method.class` must be an Aggregator or a Scalarizer of TorchJD, found {method['class']}; a Weighting "
                "goes into the `kwargs` of torchjd.aggregation.WeightedAggregator or GramianWeightedAggregator"
            )
        self.method = method
        self.learning_rate = float(checks.above("learning_rate", learning_rate, 0))
        self.weight_decay = float(checks.at_least("weight_decay", weight_decay, 0))
        self.needs_jacobian = issubclass(kind, Aggregator)
        self.needs_losses_after = not self.needs_jacobian and callable(getattr(kind, "update", None))
        self._forget()

    def setup(self, tasks: Sequence[str]) -> None:
        """Check that the method works with the tasks, and that it can be resumed."""
        super().setup(tasks)
        self._forget()
        try:
            with torch.random.fork_rng(devices=[]):  # a look at the method draws no random number
                for step in range(2):
                    self._rehearse(step)
                self.state()
        except UserError:
            raise
        except ImportError as error:
            raise UserError(f"{error}; pip install 'qlib-ext[torchjd]' brings all of it") from error
        except (ValueError, TypeError, RuntimeError, IndexError, ArithmeticError) as error:
            raise UserError(
                f"`method` {self.method['class']} does not work with {len(self.tasks)} tasks: {error}"
            ) from error
        self._forget()

    def _rehearse(self, step: int) -> None:
        k = len(self.tasks)
        losses = torch.arange(1.0, k + 1) + step
        if self.needs_jacobian:
            self.aggregate(torch.eye(k, k + 1) + 0.1 * losses[:, None])
        else:
            self.weights(losses)
        if self.needs_losses_after:
            self.end_step(0.9 * losses)
        self.end_epoch({}, {})

    def _forget(self) -> None:
        self._module: nn.Module | None = None  # made in the first step, on the device that trains
        self._optimizer: torch.optim.Adam | None = None
        self._taken_up: tuple[dict[str, Tensor], dict[str, Any]] = {}, {}
        self._weight_sum: Tensor | None = None
        self._steps = 0
        self._mean_weights: dict[str, float] = {}

    def _make(self, device: torch.device) -> nn.Module:
        """A new one of the method."""
        kind = locate(self.method["class"], name="method")
        given = {
            name: len(self.tasks)
            for name in ("n_tasks", "shape")
            if name in inspect.signature(kind).parameters
        }
        with torch.device(device):  # plain attributes that hold tensors would not follow a later move
            kwargs = {key: self._argument(value) for key, value in (self.method.get("kwargs") or {}).items()}
            module = build({**self.method, "kwargs": given | kwargs}, nn.Module, name="method")
        for part in module.modules():
            if type(part).__name__ in TWO_BATCHES:
                raise UserError(
                    f"`method` must do with one batch a step, found {type(part).__name__}, which needs gradients of two"
                )
        return module

    def _argument(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            if not value or not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value):
                raise UserError(f"a list in `method.kwargs` must hold numbers, one a task, found {value!r}")
            return torch.tensor(value, dtype=torch.get_default_dtype())
        if isinstance(value, Mapping):
            kind = locate(value.get("class", ""), name="method.kwargs")
            inner = {key: self._argument(item) for key, item in (value.get("kwargs") or {}).items()}
            return build({**value, "kwargs": inner}, kind, name="method.kwargs")
        return value

    def _on(self, device: torch.device) -> nn.Module:
        """The method, made on the device of what it is first given."""
        if self._module is None:
            self._module = self._make(device)
            own = list(self._module.parameters())
            if own:
                self._optimizer = torch.optim.Adam(own, lr=self.learning_rate)
            tensors, values = self._taken_up
            restore(self._module, tensors, values.get("method", {}))
            if values.get("optimizer") is not None:
                self._optimizer = decode(values["optimizer"], tensors, self._module)
            self._device = device
        return self._module

    def aggregate(self, jacobian: Tensor) -> Tensor:
        """Combine `[K, P]` into `[P]` by the aggregator."""
        if not self.needs_jacobian:
            return super().aggregate(jacobian)
        return self._finite("gradient", self._on(jacobian.device)(jacobian))

    def weights(self, losses: Tensor) -> Tensor:
        """Slopes `[K]` of the scalarizer by the losses; its own parameters, where it has some, take their step."""
        if self.needs_jacobian:
            return super().weights(losses)
        module = self._on(losses.device)
        with torch.enable_grad():
            losses = losses.detach().requires_grad_()
            own = list(module.parameters())
            slopes = torch.autograd.grad(module(losses), [losses, *own], allow_unused=True)
        for parameter, slope in zip(own, slopes[1:], strict=True):
            parameter.grad = slope  # None, and left alone, where the method learns it by itself
        if self._optimizer is not None and any(slope is not None for slope in slopes[1:]):
            self._optimizer.step()
        weights = self._finite("weight", slopes[0])
        self._weight_sum = weights.clone() if self._weight_sum is None else self._weight_sum + weights
        self._steps += 1
        return weights

    def _finite(self, what: str, value: Tensor) -> Tensor:
        if not torch.isfinite(value).all():
            raise FloatingPointError(
                f"{self.method['class']} gives a {what} that is not finite: a task may have no gradient or a loss of 0"
            )
        return value

    def end_step(self, losses: Tensor) -> None:
        """Let a scalarizer that learns from what a step has done (FAMO) see the losses after it."""
        update: Callable[[Tensor], None] = self._on(losses.device).update  # type: ignore[assignment]
        update(losses)

    def end_epoch(self, train: Mapping[str, float], valid: Mapping[str, float]) -> None:
        """Let a scalarizer that counts epochs (DWA) count one."""
        if self._weight_sum is not None:
            mean = (self._weight_sum / self._steps).tolist()
            self._mean_weights = dict(zip(self.tasks, mean, strict=True))
            self._weight_sum, self._steps = None, 0
            step = getattr(self._module, "step", None)
            if callable(step):
                step()

    def report(self) -> dict[str, float]:
        """The weight decay, and of a scalarizer each task's mean weight over the epoch before."""
        weights = {f"weight/{task}": weight for task, weight in self._mean_weights.items()}
        return {**weights, "weight_decay": self.weight_decay}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the method has come to hold."""
        if self._module is None:
            return self._taken_up
        tensors, method = capture(self._module, self._make(self._device))
        optimizer = None if self._optimizer is None else encode(self._optimizer, "optimizer", tensors)
        return tensors, {"method": method, "optimizer": optimizer, "weights": dict(self._mean_weights)}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up where `state` was taken; the method itself is made in the first step."""
        self._forget()
        self._taken_up = dict(tensors), dict(values)
        self._mean_weights = dict(values.get("weights", {}))
