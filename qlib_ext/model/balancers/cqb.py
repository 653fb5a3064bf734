"""Converge-based Quad-Balancing (CQB)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from qlib_ext.checks import at_least, between, instance, integer, one_of
from qlib_ext.model.balancers.db_mtl import DBMTL


class CQB(DBMTL):
    r"""Balance losses, gradients, forgetting rates and weight decay by how each task converges.

    Source: MiM-StocR, section 3.3, Equations 10-15 and Algorithm 1.

    The step is that of `DBMTL`, with a forgetting rate of each task. Per step and task k, with g_k the gradient of
    log(L_k + 1e-8) on the shared parameters:

    .. math::
        \hat g_k &\leftarrow \beta_k \hat g_k + (1 - \beta_k) g_k  \qquad \text{(10)} \\
        \tilde g &= \max_j \lVert\hat g_j\rVert \sum_k \hat g_k / \lVert\hat g_k\rVert  \qquad \text{(11)}

    The average starts at the first gradient. Heads take the gradient of log(L_k + 1e-8).

    Per epoch n and task, with b = `window`, from train and validation losses measured the same way:

    .. math::
        \Delta L &= L_{n-1} - \mathrm{mean}(L_{n-2b}, \ldots, L_{n-b-1})  \qquad \text{(13)} \\
        V_n &= \Delta L_{valid} / \Delta L_{train}  \qquad \text{(12)} \\
        \beta_n &= \beta^{\mathrm{sigmoid}(V_n)}  \qquad \text{(14)} \\
        decay_n &= decay \cdot \mathrm{sigmoid}(-\mathrm{mean}_k V_n)  \qquad \text{(15)}

    V is 1 until 2b epochs are there.

    Parameters
    ----------
    beta
        Initial forgetting rate, in (0, 1).
    decay
        Initial weight decay, coupled L2 on all parameters.
    window
        b, in epochs.
    beta_rule
        `power` is Equation 14; `product` is beta * sigmoid(V), as Algorithm 1 prints it, which contradicts the text
        (the forgetting rate would fall when overfitting grows).
    rising_train
        What to do with V where the training loss did not fall, so that the ratio's sign misleads (both losses
        rising would read as healthy): `keep` the previous V, or take the `ratio` as printed.
    balance_beta, balance_decay
        False gives the paper's ablations (Table 3): beta fixed, decay fixed.

    Notes
    -----
    A task whose averaged gradient is zero adds nothing to the step; a task with a loss that is not finite is the
    trainer's to stop at.

    Departures
    ----------
    Algorithm 1 takes V of epoch e - 1 for the decay and for beta of epoch e; here both take the V made
    from all epochs that are finished when epoch n begins, which is the same; Equation 15 prints V of n - 1 for the
    decay alone. Equation 13's list is read as the b epochs from n - 2b to n - b - 1, both included, and its L is that of
    the last finished epoch. The authors' code compares the second last one, so that its V lags one epoch behind, and
    measures the classification after an epoch by half its cross-entropy; here the losses are those that are trained.
    Where the training loss did not fall, V keeps its value (`rising_train`); the paper has no rule for it.
    """

    def __init__(
        self,
        beta: float = 0.5,
        decay: float = 1e-3,
        window: int = 6,
        beta_rule: str = "power",
        rising_train: str = "keep",
        balance_beta: bool = True,
        balance_decay: bool = True,
    ) -> None:
        super().__init__(between("beta", beta, 0, 1, open_low=True, open_high=True))
        self.decay = float(at_least("decay", decay, 0))
        self.window = integer("window", window, 1)
        self.beta_rule = one_of("beta_rule", beta_rule, ("power", "product"))
        self.rising_train = one_of("rising_train", rising_train, ("keep", "ratio"))
        self.balance_beta = instance("balance_beta", balance_beta, bool)
        self.balance_decay = instance("balance_decay", balance_decay, bool)
        self._reset()

    def _reset(self) -> None:
        self._history: dict[str, dict[str, list[float]]] = {
            segment: {task: [] for task in self.tasks} for segment in ("train", "valid")
        }
        self.converge_rate = dict.fromkeys(self.tasks, 1.0)
        self._apply()

    def _apply(self) -> None:
        rates = self.converge_rate
        self._forget_by({task: self._beta(rate) for task, rate in rates.items()})
        mean = sum(rates.values()) / len(rates) if rates else 1.0
        self.weight_decay = self.decay * _sigmoid(-mean) if self.balance_decay else self.decay

    def _beta(self, rate: float) -> float:
        if not self.balance_beta:
            return self.beta
        return self.beta ** _sigmoid(rate) if self.beta_rule == "power" else self.beta * _sigmoid(rate)

    def setup(self, tasks: Sequence[str]) -> None:
        """Start every task at V = 1."""
        super().setup(tasks)
        self._reset()

    def end_epoch(self, train: Mapping[str, float], valid: Mapping[str, float]) -> None:
        """Update V, and from it the forgetting rates and the weight decay of the next epoch."""
        for task in self.tasks:
            self._history["train"][task].append(float(train[task]))
            self._history["valid"][task].append(float(valid[task]))
            if len(self._history["train"][task]) >= 2 * self.window:
                change_train = self._change(self._history["train"][task])
                change_valid = self._change(self._history["valid"][task])
                misleads = change_train >= 0 if self.rising_train == "keep" else change_train == 0
                if not misleads:
                    self.converge_rate[task] = change_valid / change_train
        self._apply()

    def _change(self, losses: list[float]) -> float:
        before = losses[-2 * self.window : -self.window]
        return losses[-1] - sum(before) / len(before)

    def report(self) -> dict[str, float]:
        """V and beta of each task, and the weight decay."""
        values = {f"V/{task}": rate for task, rate in self.converge_rate.items()}
        values.update({f"beta/{task}": beta for task, beta in self.task_beta.items()})
        return {**values, "weight_decay": self.weight_decay}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The averaged gradients, the losses so far and V; copies, which later steps leave alone."""
        tensors, _ = super().state()
        return tensors, copy.deepcopy({"history": self._history, "converge_rate": self.converge_rate})

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up where `state` was taken."""
        super().load_state(tensors, values)
        self._history, self.converge_rate = copy.deepcopy((values["history"], values["converge_rate"]))
        self._apply()


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
