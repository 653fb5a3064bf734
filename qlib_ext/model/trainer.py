"""The one epoch loop: every backbone, task and balancer is trained here."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from qlib_ext import checks
from qlib_ext.checks import UserError
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.metrics.cross_section import pearson, spearman
from qlib_ext.model import checkpoint, schedule
from qlib_ext.model.augment import Augmenter
from qlib_ext.model.balancers.base import Aggregator, Balancer, Weighting
from qlib_ext.model.checkpoint import CheckpointFolder, TrainingState
from qlib_ext.model.memory import oom_as_user_error
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.schedule import SCORE, SELECTIONS, Phase, Plateau
from qlib_ext.model.task import Task

logger = logging.getLogger(__name__)

Epoch = dict[str, float]
# A weighting needs no gradient of a single task; every so many days they are taken all the same, to be logged.
LOOK_EVERY = 20


@dataclass(frozen=True)
class TrainerOptions:
    """How to train.

    Attributes
    ----------
    n_epochs
        Epochs at most, of each phase where there are several.
    patience
        Stop after this many epochs without a better validation score.
    learning_rate
        Of Adam.
    precision
        `float32`, or `bfloat16` for the backbone under autocast (parameters, heads, losses and optimizer stay
        float32).
    selection
        Validation score, higher is better: `rank_ic`, the mean daily RankIC on raw labels; `authors`, the sum over the
        tasks of the relative gain in RankIC and in accuracy over the first epoch; or `loss`, minus the sum of the
        trained tasks' validation losses, each times its constant weight under the balancer (1 where it has none). An
        epoch without a RankIC (all scores of a day equal, on every day) has no score by the first two and is never the
        best.
    phases
        The training in parts, one after the other: mappings with `tasks` (names, or `all`) and where they differ from
        the fields above `epochs`, `patience`, `learning_rate` and `selection`. None: all tasks at once.
    plateau
        Lower the learning rate where the validation score gets no better: a mapping of `Plateau`'s `factor`, `patience`
        and `min_learning_rate`. None: it stays.
    augmentations
        Random changes of the training windows, `{class, kwargs}` each, applied in this order.
    """

    n_epochs: int = 100
    patience: int = 30
    learning_rate: float = 2e-4
    precision: str = "float32"
    selection: str = "rank_ic"
    phases: Sequence[Mapping[str, Any]] | None = None
    plateau: Mapping[str, Any] | None = None
    augmentations: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        checks.integer("n_epochs", self.n_epochs, 1)
        checks.integer("patience", self.patience, 1)
        checks.above("learning_rate", self.learning_rate, 0)
        checks.one_of("precision", self.precision, ("float32", "bfloat16"))
        checks.one_of("selection", self.selection, SELECTIONS)
        schedule.check(self.phases)
        Plateau.of(self.plateau)
        Augmenter(self.augmentations, 0, torch.device("cpu"))

    def plan(self, tasks: Sequence[str]) -> tuple[Phase, ...]:
        """The phases of a training of these tasks, at least one."""
        default = Phase(tuple(tasks), self.n_epochs, self.patience, self.learning_rate, self.selection)
        return schedule.plan(self.phases, tasks, default)


class NonFiniteError(UserError, FloatingPointError):
    """A loss, or a score, that is no number: the message says where, and what to do about it."""


class Trainer:
    """Train a network's tasks together, day by day, under a balancer.

    One batch is one trading day. Each epoch visits the training days once, in an order that the seed and the epoch
    decide; then train and validation are measured in evaluation mode. The weights of the best validation score are
    kept. Source: MiM-StocR, Algorithm 1 and section 4.1; phases, learning rate and augmentations: "Collaborative
    Optimization in Financial Data Mining Through Deep Learning and ResNeXt", section III.

    Parameters
    ----------
    network, tasks, balancer
        What to train.
    options
        How.
    seed
        Decides the order of the days. Seeding torch itself, before the network is made, is the caller's.
    device
        Where.

    Notes
    -----
    The optimizer is Adam with coupled L2, set by the balancer each epoch. Days on which a task has fewer than two
    labels are left out, and counted in the log. The test segment is never seen here. Norms and cosine of the tasks'
    gradients are means over all days of an epoch under an aggregator, over every 20th under a weighting.

    *Phases.* A phase trains the shared parameters and the heads of its tasks, on the same days as any other; other heads
    stay as they are, to the last bit. It has an optimizer, a balancer's state, a learning rate, a best epoch and a
    patience of its own. Its best weights begin the next phase, and those of the last are the training's. Losses of
    all tasks are measured in all phases. Epochs count on from phase to phase.

    *Augmentations* change the windows of a step. What is measured after an epoch, on train too, is measured without.
    """

    def __init__(
        self,
        network: MultiTaskNetwork,
        tasks: Sequence[Task],
        balancer: Balancer,
        options: TrainerOptions,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        if not isinstance(balancer, (Weighting, Aggregator)):
            raise UserError(
                f"a balancer must be a Weighting or an Aggregator, found {type(balancer).__name__}"
            )
        self.network = network.to(device)
        self.tasks = list(tasks)
        self.balancer = balancer
        self.options = options
        self.seed = seed
        self.device = device
        self.shared = _trainable(network.backbone)
        self.head_parameters = {task.name: _trainable(network.heads[task.name]) for task in self.tasks}
        self.augment = Augmenter(options.augmentations, seed, device)
        names = [task.name for task in self.tasks]
        self.phases = options.plan(names)
        balancer.setup(names)
        self._sizes = [parameter.numel() for parameter in self.shared]
        self.epoch = 0
        self.history: list[Epoch] = []
        self.checkpoint_path: Path | None = None
        self._begin(0)

    # ---- the loop -------------------------------------------------------------------------------------------------

    def fit(
        self,
        train: DailyPanels,
        valid: DailyPanels,
        *,
        folder: CheckpointFolder | None = None,
        resume: bool = False,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    ) -> list[Epoch]:
        """Train, and leave the best weights in the network.

        Parameters
        ----------
        train, valid
            Days to learn from and to choose the best epoch by.
        folder
            Where to keep a checkpoint after every epoch; None keeps none.
        resume
            Take up the newest unfinished checkpoint of `folder`, where there is one.
        on_epoch
            Called with the epoch's record: after every epoch, and on resuming with every epoch of the past.

        Returns
        -------
        list of dict
            One record an epoch, as in `history`.

        Raises
        ------
        UserError
            If no training or validation day has labels for all tasks, no epoch has a validation score, the device has no
            room, or a checkpoint cannot be written.
        NonFiniteError
            If a loss is not finite, in a step or after an epoch; the last checkpoint is whole, and from before it.
        """
        days = train.labelled(tuple(task.label for task in self.tasks))
        if not len(days):
            raise UserError(
                "no training day has labels for every task: check the labels and the `train` segment"
            )
        if len(days) < len(train):
            logger.info(
                "%d of %d training days lack a task's labels and are left out",
                len(train) - len(days),
                len(train),
            )
        valid_days = valid.labelled(tuple(task.label for task in self.tasks))
        if not len(valid_days):
            raise UserError(
                "no validation day has labels for every task: check the labels and the `valid` segment"
            )
        path = self._resume(folder) if folder is not None and resume else None
        if path is None and folder is not None:
            path = folder.new_path()
        self.checkpoint_path = path
        for record in self.history:
            on_epoch(record)
        while True:
            while not self._is_over(self.phase, self.first_epoch, self.epoch, self.best_epoch):
                record = self._run_epoch(train, days, valid, valid_days)
                on_epoch(record)
                if path is not None:
                    checkpoint.save(path, self._state())
            self._take_best()
            if self.phase == len(self.phases) - 1:
                return self.history
            self._begin(self.phase + 1)

    def _begin(self, phase: int) -> None:
        """Go over to a phase: its tasks, and nothing of the optimizer, the balancer and the scores of the one before."""
        this = self.phases[phase]
        self.phase = phase
        self.first_epoch = self.epoch
        self.trained = [task for task in self.tasks if task.name in this.tasks]
        self.network.zero_grad(
            set_to_none=True
        )  # without a gradient, heads at rest take no step and no decay
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=this.learning_rate, fused=True)
        plateau = Plateau.of(self.options.plateau)
        self.plateau = None if plateau is None else plateau.scheduler(self.optimizer)
        if len(self.phases) > 1:
            self.balancer.begin_phase(this.tasks)
        self.best_epoch = -1
        self.best_score = -np.inf
        self.best_weights: dict[str, Tensor] = {}

    def _take_best(self) -> None:
        """Put the phase's best weights into the network."""
        told = f" of phase {self.phase} ({self._trained_names()})" if len(self.phases) > 1 else ""
        if self.best_epoch < 0:
            raise UserError(
                f"no epoch of {self.epoch - self.first_epoch}{told} has a validation score, so no weights can be chosen: "
                "on every day of `valid` all scores or all labels of the task `score` are equal; lower `learning_rate`, "
                "or look at the labels"
            )
        self.network.load_state_dict(self.best_weights)
        logger.info("best epoch%s %d, validation score %.4f", told, self.best_epoch, self.best_score)

    def _trained_names(self) -> str:
        return ", ".join(task.name for task in self.trained)

    def _is_over(self, phase: int, first_epoch: int, epoch: int, best_epoch: int) -> bool:
        """Whether a phase that began at `first_epoch`, and whose best epoch is `best_epoch` (-1: none), ends here."""
        since_best = epoch - (best_epoch + 1 if best_epoch >= 0 else first_epoch)
        this = self.phases[phase]
        return epoch - first_epoch >= this.epochs or since_best >= this.patience

    def _run_epoch(
        self, train: DailyPanels, days: np.ndarray, valid: DailyPanels, valid_days: np.ndarray
    ) -> Epoch:
        record: Epoch = {"epoch": self.epoch}
        if len(self.phases) > 1:
            record["phase"] = float(self.phase)
        if len(self.phases) > 1 or self.plateau is not None:
            record["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        record.update({f"balance/{name}": value for name, value in self.balancer.report().items()})
        started = time.perf_counter()
        with _repeatable_convolutions(self.network), oom_as_user_error(f"training epoch {self.epoch}"):
            record.update(self._train_epoch(train, days))
        trained = time.perf_counter()
        with oom_as_user_error(f"measuring epoch {self.epoch}"):
            train_losses = self.losses(train, days)
            valid_losses, valid_scores = self._validate(valid, valid_days)
        self._check_epoch({"train": train_losses, "valid": valid_losses})
        record.update({f"train/loss/{name}": value for name, value in train_losses.items()})
        record.update({f"valid/loss/{name}": value for name, value in valid_losses.items()})
        record.update({f"valid/{name}": value for name, value in valid_scores.items()})
        score = self._selection_score(record)
        record["valid/score"] = score
        record["seconds/train"] = trained - started
        record["seconds/evaluate"] = time.perf_counter() - trained
        record["best"] = float(score > self.best_score)
        self.balancer.end_epoch(train_losses, valid_losses)
        if self.plateau is not None:
            self.plateau.step(score)
        if score > self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
            self.best_weights = {
                name: value.detach().clone() for name, value in self.network.state_dict().items()
            }
        self.history.append(record)
        self.epoch += 1
        return record

    def _train_epoch(self, train: DailyPanels, days: np.ndarray) -> Epoch:
        self.network.train()
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.balancer.weight_decay
        order = np.random.default_rng([self.seed, self.epoch]).permutation(days)
        norms = torch.zeros(len(self.trained), device=self.device)
        cosine = torch.zeros((), device=self.device)
        bar = tqdm(order, desc=self._progress(), unit="day", leave=False, mininterval=1.0)
        totals = np.zeros(len(self.trained))
        looks = 0
        for step, position in enumerate(bar, start=1):
            losses, gradients = self._step(train, int(position))
            totals += losses
            if gradients is not None:
                norms += gradients[0]
                cosine += gradients[1]
                looks += 1
            if step % 20 == 0:
                shown = zip(self.trained, totals / step, strict=True)
                bar.set_postfix_str(
                    " ".join(f"{task.name} {value:.4f}" for task, value in shown), refresh=False
                )
        if not looks:
            return {}
        record = {
            f"gradient/norm/{task.name}": float(norm) / looks
            for task, norm in zip(self.trained, norms, strict=True)
        }
        if len(self.trained) > 1:
            record["gradient/cosine"] = float(cosine) / looks
        return record

    def _progress(self) -> str:
        """What stands before the bar: the epoch, and what the last one and the best one reached on validation."""
        now = f"epoch {self.epoch}" + (f" of phase {self.phase}" if len(self.phases) > 1 else "")
        if not self.history:
            return now
        best = f", best epoch {self.best_epoch}" if self.best_epoch >= 0 else ""
        return f"{now} (valid RankIC {self.history[-1]['valid/rank_ic']:.4f}{best})"

    def _step(self, train: DailyPanels, position: int) -> tuple[np.ndarray, tuple[Tensor, Tensor] | None]:
        panel = self.augment(train[position], self.epoch, position)
        losses = self._daily_losses(panel, self._predict(panel), self.trained)  # [K]
        transformed = self.balancer.transform(losses)
        values, balanced = torch.stack([losses.detach(), transformed.detach()]).cpu().numpy()
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"a loss is not finite on {panel.date:%Y-%m-%d} in epoch {self.epoch} ({self._named(values)}): lower "
                "`learning_rate`, or look for infinite prices that day; resuming starts from the last whole epoch"
            )
        if not np.isfinite(balanced).all():
            raise NonFiniteError(
                f"{type(self.balancer).__name__} makes a loss not finite on {panel.date:%Y-%m-%d} in epoch "
                f"{self.epoch} ({self._named(values)}): a balancer that takes logarithms needs losses of at least 0"
            )
        gradients = None
        if isinstance(self.balancer, Aggregator):
            jacobian = self._jacobian(transformed)  # [K, P]
            gradients = _gradient_statistics(jacobian)
            self._assign(self.balancer.aggregate(jacobian))
        else:
            if position % LOOK_EVERY == 0:
                gradients = _gradient_statistics(self._jacobian(transformed, keep_graph=True))
            self.optimizer.zero_grad(set_to_none=True)
            (self.balancer.weights(losses.detach()) @ transformed).backward()
        self.optimizer.step()
        self.balancer.end_step(partial(self._losses_after, panel))
        return values, gradients

    @torch.no_grad()
    def _losses_after(self, panel: DailyPanel) -> Tensor:
        return self._daily_losses(panel, self._predict(panel), self.trained)

    def _named(self, values: np.ndarray) -> str:
        return ", ".join(f"{task.name} {value}" for task, value in zip(self.trained, values, strict=True))

    def _check_epoch(self, losses: Mapping[str, Mapping[str, float]]) -> None:
        """Stop before weights that the last step has spoilt reach a checkpoint."""
        for segment, by_task in losses.items():
            for name, value in by_task.items():
                if not np.isfinite(value):
                    raise NonFiniteError(
                        f"the loss of task {name} on `{segment}` is not finite after epoch {self.epoch} ({value}): "
                        "lower `learning_rate`, or look for infinite prices; resuming starts from the epoch before"
                    )

    def _jacobian(self, transformed: Tensor, keep_graph: bool = False) -> Tensor:
        """One backward pass a task: rows of shared gradients `[K, P]`; heads get their own gradients on the way.

        A parameter that a task does not depend on has the gradient 0.
        """
        rows = []
        last = len(self.trained) - 1
        for k, task in enumerate(self.trained):
            head = self.head_parameters[task.name]
            gradients = torch.autograd.grad(
                transformed[k],
                [*self.shared, *head],
                retain_graph=keep_graph or k < last,
                materialize_grads=True,
            )
            rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients[: len(self.shared)]]))
            for parameter, gradient in zip(head, gradients[len(self.shared) :], strict=True):
                parameter.grad = gradient
        return torch.stack(rows)

    def _assign(self, gradient: Tensor) -> None:
        for parameter, part in zip(self.shared, gradient.split(self._sizes), strict=True):
            parameter.grad = part.view_as(parameter)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.options.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    # ---- measuring ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def losses(self, panels: DailyPanels, days: Sequence[int] | np.ndarray) -> dict[str, float]:
        """Mean daily loss of each task over `days`, in evaluation mode."""
        self.network.eval()
        totals = torch.zeros(len(self.tasks), device=self.device, dtype=torch.float64)
        for position in days:
            panel = panels[int(position)]
            totals += self._daily_losses(panel, self._predict(panel))
        return {task.name: float(total) / len(days) for task, total in zip(self.tasks, totals, strict=True)}

    def _predict(self, panel: DailyPanel) -> dict[str, Tensor]:
        """Predictions of a day by task, the backbone in the precision of the training."""
        with self._autocast():
            embedding = self.network.embed(panel)  # [N, D]
        return self.network.predict_heads(embedding)

    def _daily_losses(
        self, panel: DailyPanel, predictions: Mapping[str, Tensor], tasks: Sequence[Task] | None = None
    ) -> Tensor:
        """Losses `[K]` of a day, of all tasks or of some."""
        return torch.stack(
            [
                task.daily_loss(predictions[task.name], panel.labels[task.label])
                for task in (self.tasks if tasks is None else tasks)
            ]
        )

    @torch.inference_mode()
    def _validate(
        self, valid: DailyPanels, labelled: np.ndarray
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Losses of each task over the days `labelled`; IC, RankIC and accuracies of all days on raw labels."""
        self.network.eval()
        days = set(labelled.tolist())
        totals = torch.zeros(len(self.tasks), device=self.device, dtype=torch.float64)
        score = np.full((len(valid), len(valid.instruments)), np.nan, np.float32)
        hits = {task.name: [0, 0] for task in self.tasks if task.classification}
        for position in range(len(valid)):
            panel = valid[position]
            predictions = self._predict(panel)
            if position in days:
                totals += self._daily_losses(panel, predictions)
            score[position, valid.columns(position).cpu().numpy()] = predictions[SCORE].cpu().numpy()
            for name, count in hits.items():
                target = panel.raw_labels[self._label(name)]
                known = ~target.isnan()
                count[0] += int((predictions[name].argmax(dim=1)[known] == target[known]).sum())
                count[1] += int(known.sum())
        losses = {task.name: float(total) / len(days) for task, total in zip(self.tasks, totals, strict=True)}
        scores = {f"accuracy/{name}": right / max(1, known) for name, (right, known) in hits.items()}
        label = valid.raw_matrix(self._label(SCORE))
        scores["ic"] = _mean_of_days(pearson(score, label))
        scores["rank_ic"] = _mean_of_days(spearman(score, label))
        return losses, scores

    def _label(self, name: str) -> str:
        return next(task.label for task in self.tasks if task.name == name)

    def _selection_score(self, record: Mapping[str, float]) -> float:
        """The validation score, higher is better; NaN, which is never the best, where RankIC is undefined."""
        selection = self.phases[self.phase].selection
        if selection == "rank_ic":
            return record["valid/rank_ic"]
        if selection == "loss":
            weights = self.balancer.loss_weights()
            return -sum(weights[task.name] * record[f"valid/loss/{task.name}"] for task in self.trained)
        past = (epoch for epoch in self.history[self.first_epoch :] if np.isfinite(epoch["valid/rank_ic"]))
        first = next(past, record)  # the phase's first, unless its scores were all equal
        score = _relative_gain(record["valid/rank_ic"], first["valid/rank_ic"])
        for task in self.trained:
            if task.classification:
                key = f"valid/accuracy/{task.name}"
                score += _relative_gain(record[key], first[key])
        return score

    # ---- resuming -------------------------------------------------------------------------------------------------

    def _state(self) -> TrainingState:
        balancer_tensors, balancer_values = self.balancer.state()
        optimizer = {
            f"{index}/{name}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        return TrainingState(
            epoch=self.epoch,
            tensors={
                "network": dict(self.network.state_dict()),
                "best": self.best_weights,
                "optimizer": optimizer,
                "balancer": balancer_tensors,
                "random": checkpoint.random_state(self.device),
            },
            values={
                "history": self.history,
                "best_epoch": self.best_epoch,
                "best_score": float(self.best_score),
                "balancer": balancer_values,
                "phase": self.phase,
                "first_epoch": self.first_epoch,
                "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
                "plateau": {} if self.plateau is None else self.plateau.state_dict(),
                "threads": torch.get_num_threads(),
            },
        )

    def _resume(self, folder: CheckpointFolder) -> Path | None:
        # A checkpoint does not say itself whether it is finished: a longer run continues a shorter one.
        found = folder.newest_unfinished(self._has_finished)
        if found is None:
            logger.info(
                "RESUME: no unfinished checkpoint of this configuration and data in %s; a fresh run",
                folder.folder,
            )
            return None
        path, state = found
        checkpoint.reopen(path)
        self._begin(state.values["phase"])
        self.first_epoch = state.values["first_epoch"]
        self.network.load_state_dict(state.tensors["network"])
        self.best_weights = {
            name: value.to(self.device) for name, value in state.tensors.get("best", {}).items()
        }
        by_parameter: dict[int, dict[str, Tensor]] = {}
        for key, value in state.tensors["optimizer"].items():
            index, _, name = key.partition("/")
            by_parameter.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        groups[0]["lr"] = state.values["learning_rate"]
        self.optimizer.load_state_dict({"state": by_parameter, "param_groups": groups})
        if self.plateau is not None:
            self.plateau.load_state_dict(state.values["plateau"])
        tensors = {name: value.to(self.device) for name, value in state.tensors.get("balancer", {}).items()}
        self.balancer.load_state(tensors, state.values["balancer"])
        checkpoint.set_random_state(state.tensors["random"], self.device)
        self.epoch = state.epoch
        self.history = state.values["history"]
        self.best_epoch, self.best_score = state.values["best_epoch"], state.values["best_score"]
        logger.info("RESUME: taking up %s after %d epochs", path, self.epoch)
        self._compare_threads(state.values.get("threads"))
        return path

    def _compare_threads(self, before: int | None) -> None:
        now = torch.get_num_threads()
        strict = "STRICT" in os.environ.get("MKL_CBWR", "").upper()
        if self.device.type == "cpu" and before not in (None, now) and not strict:
            logger.warning(
                "this training was begun with %d threads and goes on with %d: sums may differ in their last bits from those "
                "of a run that was not interrupted; OMP_NUM_THREADS=%d goes on as before",
                before,
                now,
                before,
            )

    def _has_finished(self, state: TrainingState) -> bool:
        """Whether nothing was left to train when `state` was saved."""
        phase = state.values["phase"]
        first_epoch, best_epoch = state.values["first_epoch"], state.values["best_epoch"]
        return phase == len(self.phases) - 1 and self._is_over(phase, first_epoch, state.epoch, best_epoch)


@contextmanager
def _repeatable_convolutions(network: nn.Module) -> Iterator[None]:
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


def _gradient_statistics(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Norms `[K]` of the task gradients, and the mean cosine over pairs of tasks."""
    norms = torch.linalg.vector_norm(jacobian, dim=1)  # [K]
    k = len(norms)
    if k == 1:
        return norms, norms.new_zeros(())
    unit = jacobian / norms.clamp_min(torch.finfo(jacobian.dtype).tiny).unsqueeze(1)
    total = unit.sum(dim=0).square().sum() - (norms > 0).sum()  # twice the sum of cosines over pairs
    return norms, total / (k * (k - 1))


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _mean_of_days(daily: np.ndarray) -> float:
    """Mean of the days that have a value, NaN where none has."""
    return float("nan") if np.isnan(daily).all() else float(np.nanmean(daily))


def _relative_gain(value: float, first: float) -> float:
    """Gain over `first`, relative where `first` is not 0."""
    return (value - first) / abs(first) if first else value - first
