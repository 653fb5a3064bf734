"""Losses and scores of whole segments, in evaluation mode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from qlib_ext.data.panel import DailyPanels
from qlib_ext.metrics.cross_section import pearson, spearman
from qlib_ext.model.schedule import SCORE
from qlib_ext.model.task import Task, daily_losses


class Evaluator:
    """Measures a network as it stands; nothing here is augmented, dropped out or learned.

    Parameters
    ----------
    network, tasks
        What is measured: from a panel and a precision to predictions by task.
    precision
        Of the backbone, as in training.
    """

    def __init__(self, network: nn.Module, tasks: Sequence[Task], precision: str) -> None:
        self.network = network
        self.tasks = tuple(tasks)
        self.precision = precision

    @torch.inference_mode()
    def losses(self, panels: DailyPanels, days: Sequence[int] | np.ndarray) -> dict[str, float]:
        """Mean daily loss of each task over `days`."""
        self.network.eval()
        totals = torch.zeros(len(self.tasks), device=panels.device, dtype=torch.float64)
        for position in days:
            panel = panels[int(position)]
            totals += daily_losses(self.tasks, self.network(panel, self.precision), panel)
        return self._means(totals, len(days))

    @torch.inference_mode()
    def losses_and_scores(
        self, panels: DailyPanels, labelled: np.ndarray
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Losses of each task over the days `labelled`; IC, RankIC and accuracies of all days on raw labels."""
        self.network.eval()
        days = set(labelled.tolist())
        totals = torch.zeros(len(self.tasks), device=panels.device, dtype=torch.float64)
        found: list[Tensor] = []  # [N] of each day
        labels = {task.name: task.label for task in self.tasks}
        hits = {
            task.name: torch.zeros(2, dtype=torch.long, device=panels.device)
            for task in self.tasks
            if task.classification
        }
        for position in range(len(panels)):
            panel = panels[position]
            predictions = self.network(panel, self.precision)
            if position in days:
                totals += daily_losses(self.tasks, predictions, panel)
            found.append(predictions[SCORE])
            for name, count in hits.items():
                target = panel.raw_labels[labels[name]]  # [N], NaN where missing: no class is equal to it
                right = predictions[name].argmax(dim=1) == target
                count += torch.stack([right.sum(), (~target.isnan()).sum()])
        scores = {}
        for name, count in hits.items():
            right, known = count.tolist()
            scores[f"accuracy/{name}"] = right / max(1, known)
        score = panels.scattered(torch.cat(found).cpu().numpy())
        label = panels.raw_matrix(labels[SCORE])
        scores["ic"] = _mean_of_days(pearson(score, label))
        scores["rank_ic"] = _mean_of_days(spearman(score, label))
        return self._means(totals, len(days)), scores

    def _means(self, totals: Tensor, days: int) -> dict[str, float]:
        return {task.name: total / days for task, total in zip(self.tasks, totals.tolist(), strict=True)}


def _mean_of_days(daily: np.ndarray) -> float:
    """Mean of the days that have a value, NaN where none has."""
    return float("nan") if np.isnan(daily).all() else float(np.nanmean(daily))
