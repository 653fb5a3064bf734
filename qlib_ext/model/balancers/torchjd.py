"""Any aggregator or scalarizer of TorchJD."""

from __future__ import annotations

import importlib.util
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qlib_ext.checks import UserError, above, brief
from qlib_ext.config.build import build, locate
from qlib_ext.model.balancers.base import Aggregator, Balancer, Weighting
from qlib_ext.model.balancers.module_state import capture, restore

# They weigh tasks by the products of gradients of two independent batches; a step has one.
TWO_BATCHES = ("MoDoWeighting", "SDMGradWeighting")


class TorchJD(Balancer, ABC):
    """A method of TorchJD, named by its dotted class: what `TorchJDAggregator` and `TorchJDScalarizer` share.

    Source: Quinton and Rey (2024), "Jacobian Descent for Multi-Objective Optimization", whose library TorchJD holds
    some thirty published methods; it comes with the extra `qlib-ext[torchjd]`.

    Parameters
    ----------
    method
        `{class, kwargs}` such as `{class: torchjd.aggregation.UPGrad}`. In `kwargs` a list of numbers stands for a
        tensor, one number a task in the order of the workflow (`pref_vector`, `weights`), and a mapping with
        `class` for an object. The number of tasks (`n_tasks`, `shape`) is filled in.
    weight_decay
        Constant coupled L2 on the model's parameters.

    Raises
    ------
    UserError
        From the constructor if TorchJD is not there or the class is of another kind; from `setup` if the method does not
        take its arguments or the number of tasks, or a resumed run could not take it up. To find out, `setup` takes a
        few steps with a method that is thrown away.
    FloatingPointError
        If the method gives a gradient or a weight that is not finite, as some do for a gradient of zero.

    Notes
    -----
    *State.* What a method holds between steps (averages, weights, its own optimizer) is saved and taken up bit for
    bit. *Randomness* (PCGrad, GradVac, GradDrop, Random) is drawn from torch's generators, which the run seeds and
    its checkpoints hold. *Order.* PCD takes the first task of the workflow for its main one.
    """

    family: str  # TorchJD's own base class of the methods

    def __init__(self, method: Mapping[str, Any], weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        if importlib.util.find_spec("torchjd") is None:
            raise UserError("TorchJD needs the package torchjd, found none: pip install 'qlib-ext[torchjd]'")
        if not isinstance(method, Mapping) or "class" not in method:
            raise UserError(
                f"`method` must be a mapping with `class` and, where needed, `kwargs`, found {brief(method)}"
            )
        if not issubclass(locate(method["class"], name="method"), locate(self.family, name="method")):
            raise UserError(
                f"`method.class` of {type(self).__name__} must be a {self.family}, found {method['class']}: "
                "TorchJDAggregator takes an Aggregator, TorchJDScalarizer a Scalarizer; a Weighting goes into the "
                "`kwargs` of torchjd.aggregation.WeightedAggregator or GramianWeightedAggregator"
            )
        self.method = method
        self._forget()

    def setup(self, tasks: Sequence[str]) -> None:
        """Check that the method works with the tasks, and that it can be resumed."""
        super().setup(tasks)
        self._forget()
        try:
            with torch.random.fork_rng(devices=[]):  # a look at the method draws no random number
                self._rehearse(self._made_up(0))
                self._rehearse(self._made_up(1))
                state, random = self.state(), torch.get_rng_state()
                straight = self._rehearse(self._made_up(2))
                self.load_state(*state)
                torch.set_rng_state(random)
                resumed = self._rehearse(self._made_up(2))
        except UserError:
            raise
        except ImportError as error:
            raise UserError(f"{error}; pip install 'qlib-ext[torchjd]' brings all of it") from error
        except (ValueError, TypeError, RuntimeError, IndexError, ArithmeticError) as error:
            raise UserError(
                f"`method` {self.method['class']} does not work with {len(self.tasks)} tasks: {error}"
            ) from error
        if not torch.equal(straight, resumed):
            raise UserError(
                f"`method` {self.method['class']} holds between steps what a resumed run could not take up: "
                "take another method"
            )
        self._forget()

    @abstractmethod
    def _made_up(self, step: int) -> Tensor:
        """Something to rehearse on: gradients `[K, P]` or losses `[K]`."""

    @abstractmethod
    def _rehearse(self, given: Tensor) -> Tensor:
        """What the method makes of gradients or losses, and then the end of the step and of an epoch."""

    def _forget(self) -> None:
        self._module: nn.Module | None = None  # made in the first step, on the device that trains
        self._taken_up: tuple[dict[str, Tensor], dict[str, Any]] = {}, {}

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
                raise UserError(
                    f"a list in `method.kwargs` must hold numbers, one a task, found {brief(value)}"
                )
            return torch.tensor(value, dtype=torch.get_default_dtype())
        if isinstance(value, Mapping):
            kind = locate(value.get("class", ""), name="method.kwargs")
            inner = {key: self._argument(item) for key, item in (value.get("kwargs") or {}).items()}
            return build({**value, "kwargs": inner}, kind, name="method.kwargs")
        return value

    def _on(self, given: Tensor) -> nn.Module:
        """The method, made on the device of what it is first given, in the state that was taken up."""
        if self._module is None:
            self._module = self._make(given.device)
            tensors, values = self._taken_up
            if values:
                with torch.random.fork_rng(devices=[given.device] if given.is_cuda else []):
                    self._rehearse(given.clone())  # makes what only a first step makes
                restore(self._module, tensors, values["method"])
        return self._module

    def _finite(self, what: str, value: Tensor) -> Tensor:
        if not torch.isfinite(value).all():
            raise FloatingPointError(
                f"{self.method['class']} gives a {what} that is not finite: a task may have no gradient or a loss of 0"
            )
        return value

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the method has come to hold."""
        if self._module is None:
            return self._taken_up
        tensors, method = capture(self._module)
        return tensors, {"method": method}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up where `state` was taken; the method itself is made in the first step."""
        self._forget()
        self._taken_up = dict(tensors), dict(values)


class TorchJDAggregator(TorchJD, Aggregator):
    """An aggregator of TorchJD: UPGrad, PCGrad, NashMTL, MGDA, IMTLG, AlignedMTL, FairGrad, ConFIG, GradVac, ...

    It combines the `[K, P]` gradients of the tasks on the shared parameters. The trainer makes them and TorchJD combines
    them, so recurrent backbones need nothing special, on the CPU as under CUDA. Heads take the gradients of their own
    losses. MoDo and SDMGrad need gradients of two independent batches in a step and are refused.

    Parameters
    ----------
    method, weight_decay
        As of `TorchJD`.

    Examples
    --------
    ::

        balancer:
          class: qlib_ext.model.balancers.torchjd.TorchJDAggregator
          kwargs: {method: {class: torchjd.aggregation.CAGrad, kwargs: {c: 0.4}}}
    """

    family = "torchjd.aggregation.Aggregator"

    def aggregate(self, jacobian: Tensor) -> Tensor:
        """Combine `[K, P]` into `[P]`."""
        return self._finite("gradient", self._on(jacobian)(jacobian))

    def _rehearse(self, given: Tensor) -> Tensor:
        return self.aggregate(given)

    def _made_up(self, step: int) -> Tensor:
        k = len(self.tasks)
        return torch.eye(k, k + 1) + 0.1 * (torch.arange(1.0, k + 1)[:, None] + step)


class TorchJDScalarizer(TorchJD, Weighting):
    """A scalarizer of TorchJD: UW, DWA, FAMO, IMTLL, GeometricMean, STCH, ...

    It makes one number of the K losses. Its slopes by the losses are the weights of one backward pass, which is the
    same as differentiating it, heads included. DWA is told of the end of an epoch, FAMO of the losses after each step,
    for which the day is passed through the network once more.

    Parameters
    ----------
    method, weight_decay
        As of `TorchJD`.
    learning_rate
        Adam's, for the parameters of the method itself (UW, IMTLL); that of the model is the customary choice.

    Examples
    --------
    ::

        balancer:
          class: qlib_ext.model.balancers.torchjd.TorchJDScalarizer
          kwargs: {method: {class: torchjd.scalarization.UW}}
    """

    family = "torchjd.scalarization.Scalarizer"

    def __init__(
        self, method: Mapping[str, Any], learning_rate: float = 2e-4, weight_decay: float = 0.0
    ) -> None:
        self.learning_rate = float(above("learning_rate", learning_rate, 0))
        super().__init__(method, weight_decay)

    def _forget(self) -> None:
        super()._forget()
        self._weight_sum: Tensor | None = None
        self._steps = 0
        self._mean_weights: dict[str, float] = {}

    def _make(self, device: torch.device) -> nn.Module:
        module = super()._make(device)
        own = list(module.parameters())
        if own:  # held by the module, so that its state is kept with the module's
            vars(module)["own_optimizer"] = torch.optim.Adam(own, lr=self.learning_rate)
        return module

    def _slopes(self, losses: Tensor) -> Tensor:
        """Slopes `[K]` by the losses; the method's own parameters, where it has some, take their step."""
        module = self._on(losses)
        with torch.enable_grad():
            losses = losses.detach().requires_grad_()
            own = list(module.parameters())
            slopes = torch.autograd.grad(module(losses), [losses, *own], allow_unused=True)
        for parameter, slope in zip(own, slopes[1:], strict=True):
            parameter.grad = slope  # None, and left alone, where the method learns it by itself
        if any(slope is not None for slope in slopes[1:]):
            vars(module)["own_optimizer"].step()
        return self._finite("weight", slopes[0])

    def weights(self, losses: Tensor) -> Tensor:
        """Slopes `[K]` of the scalarizer by the losses."""
        weights = self._slopes(losses)
        self._weight_sum = weights.clone() if self._weight_sum is None else self._weight_sum + weights
        self._steps += 1
        return weights

    def end_step(self, losses_after: Callable[[], Tensor]) -> None:
        """Let a scalarizer that learns from what a step has done (FAMO) see the losses after it."""
        update = getattr(self._module, "update", None)
        if callable(update):
            update(losses_after())

    def end_epoch(self, train: Mapping[str, float], valid: Mapping[str, float]) -> None:
        """Let a scalarizer that counts epochs (DWA) count one."""
        if self._weight_sum is not None:
            mean = (self._weight_sum / self._steps).tolist()
            self._mean_weights = dict(zip(self.tasks, mean, strict=True))
            self._weight_sum, self._steps = None, 0
            self._count_epoch()

    def _count_epoch(self) -> None:
        step = getattr(self._module, "step", None)
        if callable(step):
            step()

    def _rehearse(self, given: Tensor) -> Tensor:
        found = self._slopes(given)
        self.end_step(lambda: 0.9 * given)
        self._count_epoch()
        return found

    def _made_up(self, step: int) -> Tensor:
        return torch.arange(1.0, len(self.tasks) + 1) + step

    def report(self) -> dict[str, float]:
        """The weight decay, and each task's mean weight over the epoch before."""
        weights = {f"weight/{task}": weight for task, weight in self._mean_weights.items()}
        return {**weights, **super().report()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the method has come to hold, and the mean weights."""
        tensors, values = super().state()
        return tensors, {**values, "weights": dict(self._mean_weights)} if values else {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up where `state` was taken."""
        super().load_state(tensors, values)
        self._mean_weights = dict(values.get("weights", {}))
