"""The one epoch loop: every backbone, task and balancer is trained here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from qlib_ext.checks import UserError, duration
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.model import checkpoint
from qlib_ext.model.augment import augmented
from qlib_ext.model.balancers.base import Aggregator, Balancer, Weighting
from qlib_ext.model.batch_norm import renew_statistics
from qlib_ext.model.checkpoint import CheckpointFolder, TrainingState
from qlib_ext.model.evaluator import Evaluator
from qlib_ext.model.gradients import assign, repeatable_convolutions, task_gradients, trainable
from qlib_ext.model.memory import oom_as_user_error
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.phase_state import PhaseState
from qlib_ext.model.selection import validation_score
from qlib_ext.model.step_log import StepLog, check_measured
from qlib_ext.model.task import Task, daily_losses
from qlib_ext.terminal import bar, visible

logger = logging.getLogger(__name__)

Epoch = dict[str, float]
# A weighting needs no gradient of a single task; every so many days they are taken all the same, to be logged.
LOOK_EVERY = 20
# Steps whose losses are read together: to read them waits for all that the device has still to do.
READ_EVERY = 50
WORTH_TELLING = 30.0  # seconds that the rest of a training takes


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

    *Averaging.* Where the options name an average of the weights, that is what is measured after an epoch, on train and on
    validation, what the balancer hears of, and what is kept; the weights that are trained go on from where they are.
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
        self.evaluator = Evaluator(self.network, self.tasks, options.precision)
        self.shared = trainable(network.backbone)
        names = [task.name for task in self.tasks]
        self.phases = options.plan(names)
        balancer.setup(names)
        self.epoch = 0
        self.history: list[Epoch] = []
        self.checkpoint_path: Path | None = None
        self._begin(0)

    def _begin(self, number: int) -> None:
        """Go over to a phase: its tasks, and nothing of the optimizer, the balancer and the scores of the one before."""
        phase = self.phases[number]
        self.trained = [task for task in self.tasks if task.name in phase.tasks]
        self.heads = [trainable(self.network.heads[task.name]) for task in self.trained]
        self.phase = PhaseState(
            phase,
            number,
            len(self.phases),
            self.epoch,
            self.network,
            self.options.plateau,
            self.options.averaging,
        )
        if len(self.phases) > 1:
            self.balancer.begin_phase(phase.tasks)

    def fit(
        self,
        train: DailyPanels,
        valid: DailyPanels,
        *,
        folder: CheckpointFolder | None = None,
        resume: bool = False,
        keep_epochs: bool = False,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    ) -> list[Epoch]:
        """Train, and leave the best weights in the network; `best_network` has them too where several are averaged.

        Parameters
        ----------
        train, valid
            Days to learn from and to choose the best epoch by.
        folder
            Where to keep a checkpoint after every epoch; None keeps none.
        resume
            Take up the newest unfinished checkpoint of `folder`, where there is one.
        keep_epochs
            Keep the weights of every epoch in `folder` too.
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
            room, a checkpoint cannot be written, or another process trains the one that would be taken up, or that one lacks
            the weights of an epoch that `keep_epochs` wants.
        NonFiniteError
            If a loss is not finite, in a step or after an epoch; the last checkpoint is whole, and from before it.
        """
        days = self._labelled(train, "training", "train")
        if len(days) < len(train):
            logger.info(
                "%d of %d training days lack a task's labels and are left out",
                len(train) - len(days),
                len(train),
            )
        valid_days = self._labelled(valid, "validation", "valid")
        if folder is None:
            return self._train(train, days, valid, valid_days, keep_epochs, on_epoch)
        self.checkpoint_path = (self._resume(folder) if resume else None) or folder.new_path()
        with checkpoint.claimed(self.checkpoint_path):
            if keep_epochs:
                checkpoint.check_kept(self.checkpoint_path, self.epoch)
            return self._train(train, days, valid, valid_days, keep_epochs, on_epoch)

    def _train(
        self,
        train: DailyPanels,
        days: np.ndarray,
        valid: DailyPanels,
        valid_days: np.ndarray,
        keep_epochs: bool,
        on_epoch: Callable[[Epoch], None],
    ) -> list[Epoch]:
        """All epochs that are left, with a checkpoint after each where there is a path for it."""
        for record in self.history:
            on_epoch(record)
        begun = self.epoch
        while True:
            while not self.phase.is_over(self.epoch):
                on_epoch(self._run_epoch(train, days, valid, valid_days))
                if self.epoch == begun + 1:
                    self._tell_how_long()
                if self.checkpoint_path is not None:
                    weights = self.evaluator.network.state_dict() if keep_epochs else None
                    checkpoint.save(self.checkpoint_path, self._state(), epoch_weights=weights)
            self.phase.restore_best(self.network, self.epoch)
            if self.phase.number == len(self.phases) - 1:
                return self.history
            self._begin(self.phase.number + 1)

    def best_network(self) -> nn.Module:
        """The network with the best weights, after `fit`: `network`, or an ensemble where those of several are averaged."""
        return self.phase.best(self.network)

    def _labelled(self, panels: DailyPanels, kind: str, segment: str) -> np.ndarray:
        """Positions of the days that have labels for every task."""
        days = panels.labelled(tuple(task.label for task in self.tasks))
        if not len(days):
            raise UserError(
                f"no {kind} day has labels for every task: check the labels and the `{segment}` segment"
            )
        return days

    def _run_epoch(
        self, train: DailyPanels, days: np.ndarray, valid: DailyPanels, valid_days: np.ndarray
    ) -> Epoch:
        """Train on every day once, measure, and choose."""
        self.phase.set_learning_rate(self.epoch)
        record: Epoch = {"epoch": self.epoch, **self.phase.conditions()}
        record.update({f"balance/{name}": value for name, value in self.balancer.report().items()})

        started = time.perf_counter()
        with repeatable_convolutions(self.network), oom_as_user_error(f"training epoch {self.epoch}"):
            record.update(self._train_epoch(train, days))
        trained = time.perf_counter()
        with oom_as_user_error(f"measuring epoch {self.epoch}"):
            judged = self._averaged(train, days)
            train_losses = self.evaluator.losses(train, days)
            valid_losses, valid_scores = self.evaluator.losses_and_scores(valid, valid_days)
        for segment, losses in (("train", train_losses), ("valid", valid_losses)):
            check_measured(segment, losses, self.epoch)
            record.update({f"{segment}/loss/{name}": value for name, value in losses.items()})
        record.update({f"valid/{name}": value for name, value in valid_scores.items()})

        record["valid/score"] = score = self._selection_score(record) if judged else float("nan")
        record["seconds/train"] = trained - started
        record["seconds/evaluate"] = time.perf_counter() - trained
        record["best"] = float(self.phase.note(self.epoch, score, self.evaluator.network))
        self.balancer.end_epoch(train_losses, valid_losses)
        self.history.append(record)
        self.epoch += 1
        return record

    def _tell_how_long(self) -> None:
        """Say after the first epoch how long the rest takes at most; nothing of one that is over in a moment."""
        took = self.history[-1]["seconds/train"] + self.history[-1]["seconds/evaluate"]
        left = self.phase.first_epoch + self.phase.phase.epochs - self.epoch
        left += sum(phase.epochs for phase in self.phases[self.phase.number + 1 :])
        if left and took * left >= WORTH_TELLING:
            logger.info(
                "An epoch took %s: %s more take %s at most, and fewer where the validation gets no better",
                duration(took),
                left,
                duration(took * left),
            )

    def _averaged(self, train: DailyPanels, days: np.ndarray) -> bool:
        """Let the evaluator measure the average of the weights; False where the epoch cannot be chosen."""
        averaging = self.phase.averaging
        averaging.end_epoch(self.network)
        judged = averaging.judged(self.network)
        self.evaluator.network = self.network if judged is None else judged
        if self.evaluator.network is not self.network:
            renew_statistics(self.evaluator.network, (train[int(position)] for position in days))
        return judged is not None

    def _train_epoch(self, train: DailyPanels, days: np.ndarray) -> Epoch:
        """One step a day; what the log of the epoch says of their gradients."""
        self.network.train()
        self.phase.set_weight_decay(self.balancer.weight_decay)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(days)
        names = [task.name for task in self.trained]
        log = StepLog(names, type(self.balancer).__name__, self.epoch, train.dates)
        shown = bar(order, desc=visible(self._progress()), unit="day", leave=False, mininterval=1.0)
        try:
            for step, position in enumerate(shown, start=1):
                self.phase.set_learning_rate(self.epoch + (step - 1) / len(days))
                log.add(position, *self._step(train, int(position)))
                if step % READ_EVERY == 0:
                    shown.set_postfix_str(log.read(), refresh=False)
        except Exception:
            log.read()  # a loss that is not finite, not read yet, comes first
            raise
        log.read()
        return log.gradients()

    def _step(self, train: DailyPanels, position: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Train on a day; its losses `[K]`, what the balancer made of them, and gradients `[K, P]` where they were made."""
        panel = augmented(
            train[position], self.options.augmentations, seed=self.seed, epoch=self.epoch, position=position
        )
        losses = daily_losses(self.trained, self.network(panel, self.options.precision), panel)  # [K]
        transformed = self.balancer.transform(losses)
        jacobian = None
        if isinstance(self.balancer, Aggregator):
            jacobian = self._jacobian(transformed)
            assign(self.balancer.aggregate(jacobian), self.shared)
        else:
            if position % LOOK_EVERY == 0:
                jacobian = self._jacobian(transformed, keep_graph=True)
            self.phase.optimizer.zero_grad(set_to_none=True)
            (self.balancer.weights(losses.detach()) @ transformed).backward()
        self.phase.optimizer.step()
        self.phase.averaging.end_step(self.network)
        self.balancer.end_step(partial(self._losses_after, panel))
        return losses, transformed, jacobian

    @torch.no_grad()
    def _losses_after(self, panel: DailyPanel) -> Tensor:
        return daily_losses(self.trained, self.network(panel, self.options.precision), panel)

    def _jacobian(self, losses: Tensor, keep_graph: bool = False) -> Tensor:
        return task_gradients(losses, self.shared, self.heads, keep_graph=keep_graph)

    def _progress(self) -> str:
        """What stands before the bar: the epoch, and what the last one and the best one reached on validation."""
        now = f"epoch {self.epoch}{self.phase.name}"
        if not self.history:
            return now
        best = f", best epoch {self.phase.best_epoch}" if self.phase.best_epoch >= 0 else ""
        return f"{now} (valid RankIC {self.history[-1]['valid/rank_ic']:.4f}{best})"

    def _selection_score(self, record: Epoch) -> float:
        """The validation score, higher is better; NaN, which is never the best, where RankIC is undefined."""
        weights = self.balancer.loss_weights()
        return validation_score(
            self.phase.phase.selection,
            record,
            self.history[self.phase.first_epoch :],
            {task.name: weights[task.name] for task in self.trained},
            [task.name for task in self.trained if task.classification],
        )

    def _state(self) -> TrainingState:
        """All that the next epoch depends on."""
        balancer_tensors, balancer_values = self.balancer.state()
        return TrainingState(
            epoch=self.epoch,
            tensors={
                "network": dict(self.network.state_dict()),
                "balancer": balancer_tensors,
                "random": checkpoint.random_state(self.device),
                **self.phase.tensors(),
            },
            values={
                "history": self.history,
                "balancer": balancer_values,
                "threads": torch.get_num_threads(),
                **self.phase.values(),
            },
        )

    def _resume(self, folder: CheckpointFolder) -> Path | None:
        """Take up the newest unfinished checkpoint; None where there is none."""
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
        self.phase.load(state.tensors, state.values, self.device)
        self.network.load_state_dict(state.tensors["network"])
        tensors = {name: value.to(self.device) for name, value in state.tensors.get("balancer", {}).items()}
        self.balancer.load_state(tensors, state.values["balancer"])
        checkpoint.set_random_state(state.tensors["random"], self.device)
        self.epoch = state.epoch
        self.history = state.values["history"]
        logger.info("RESUME: taking up %s after %d epochs", path, self.epoch)
        checkpoint.compare_threads(state.values.get("threads"), self.device)
        return path

    def _has_finished(self, state: TrainingState) -> bool:
        """Whether nothing was left to train when `state` was saved."""
        values = state.values
        phase = self.phases[values["phase"]]
        last = values["phase"] == len(self.phases) - 1
        return last and phase.is_over(values["first_epoch"], state.epoch, values["best_epoch"])
