"""What is measured, worked out again from the network's predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from qlib_ext.model.evaluator import Evaluator
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.task import Task

MLP = {"class": "qlib_ext.model.heads.mlp.MLPHead", "kwargs": {"hidden_size": 4, "dropout": 0.3}}


@pytest.fixture
def measured(make_panels):
    def change(arrays):
        arrays["present"][2, 1:] = False  # one stock: no correlation
        arrays["RETURN"][3, :] = np.nan  # no label: not in the losses, its classes still count

    torch.manual_seed(0)
    tasks = [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", CrossEntropy(), MLP, classes=5)]
    backbone = {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 4, "dropout": 0.5}}
    network = MultiTaskNetwork(backbone, tasks, num_features=6, lookback_days=4).train()
    panels = make_panels(days=6, seed=1, change=change)
    evaluator = Evaluator(network, tasks, "float32")
    days = panels.labelled(("RETURN", "MOMENTUM"))
    return evaluator, panels, days, *evaluator.losses_and_scores(panels, days)


def predictions(evaluator, panels):
    evaluator.network.eval()
    with torch.no_grad():
        return [evaluator.network(panel) for panel in panels]


def test_losses_are_means_over_days_in_evaluation_mode(measured):
    evaluator, panels, days, losses, _ = measured
    assert days.tolist() == [0, 1, 4, 5]
    found = predictions(evaluator, panels)
    for task in evaluator.tasks:
        daily = [task.daily_loss(found[day][task.name], panels[day]).item() for day in days]
        assert losses[task.name] == pytest.approx(np.mean(daily), rel=1e-6)


def test_of_some_days(measured):
    evaluator, panels, days, losses, _ = measured
    assert evaluator.losses(panels, days) == losses
    halves = [evaluator.losses(panels, part) for part in (days[:2], days[2:])]
    for name, loss in losses.items():
        assert np.mean([half[name] for half in halves]) == pytest.approx(loss)


def test_ic_and_rank_ic_are_means_over_days_on_raw_labels(measured):
    evaluator, panels, _, _, scores = measured
    ic, rank_ic = [], []
    for panel, found in zip(panels, predictions(evaluator, panels), strict=True):
        label, score = panel.raw_labels["RETURN"].numpy(), found["score"].numpy()
        known = ~np.isnan(label)
        if known.sum() > 1:
            ic.append(stats.pearsonr(score[known], label[known]).statistic)
            rank_ic.append(stats.spearmanr(score[known], label[known]).statistic)
    assert len(ic) == 4
    assert scores["ic"] == pytest.approx(np.mean(ic), rel=1e-4)
    assert scores["rank_ic"] == pytest.approx(np.mean(rank_ic), rel=1e-6)


def test_accuracy_is_the_share_of_all_labelled_stocks(measured):
    evaluator, panels, _, _, scores = measured
    classes = [found["momentum"].argmax(dim=1).numpy() for found in predictions(evaluator, panels)]
    labels = np.concatenate([panel.raw_labels["MOMENTUM"].numpy() for panel in panels])
    known = ~np.isnan(labels)
    expected = (np.concatenate(classes)[known] == labels[known]).mean()
    assert scores["accuracy/momentum"] == pytest.approx(expected)
