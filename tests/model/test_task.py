from dataclasses import replace

import pandas as pd
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.losses.approx_ndcg import ApproxNDCG
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.task import LINEAR_HEAD, Task

MSE_CONFIG = {"class": "qlib_ext.model.losses.mse.MSE"}
RANKING = {"class": "qlib_ext.model.losses.approx_ndcg.ApproxNDCG"}


class TestConfig:
    def test_a_regression(self):
        task = Task.from_config("score", {"label": "RETURN", "loss": MSE_CONFIG})
        assert (task.name, task.label, task.head, task.classes) == ("score", "RETURN", LINEAR_HEAD, None)
        assert isinstance(task.loss, MSE)
        assert not task.classification
        assert task.out_features == 1

    def test_a_classification(self):
        task = Task.from_config(
            "momentum", {"label": "MOMENTUM", "loss": {**RANKING, "kwargs": {"k": 10}}, "classes": 5}
        )
        assert task.loss.k == 10
        assert task.classification
        assert task.out_features == 5

    def test_classes_may_wait_for_the_labels(self):
        task = Task.from_config("momentum", {"label": "MOMENTUM", "loss": RANKING})
        with pytest.raises(RuntimeError, match="number of classes of task momentum is not known"):
            task.out_features  # noqa: B018
        assert replace(task, classes=5).out_features == 5

    def test_a_loss_may_be_an_object(self):
        loss = MSE()
        assert Task.from_config("score", {"label": "RETURN", "loss": loss}).loss is loss

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("RETURN", "`tasks.score` must be a mapping with `label` and `loss`, found 'RETURN'"),
            ({"label": "RETURN"}, r"`tasks.score` must name its `loss`, found \['label'\]"),
            ({"loss": MSE_CONFIG}, r"`tasks.score` must name its `label`, found \['loss'\]"),
            (
                {"label": "RETURN", "loss": MSE_CONFIG, "heads": {}},
                "`key of tasks.score` must be one of classes, head, label, loss, found 'heads' .did you mean head",
            ),
            ({"label": 3, "loss": MSE_CONFIG}, "`tasks.score.label` must be a str, found int: 3"),
            ({"label": "RETURN", "loss": None}, "`tasks.score.loss` must be a mapping with `class`"),
            (
                {"label": "RETURN", "loss": {"class": "qlib_ext.model.losses.mse.MSEs"}},
                "`tasks.score.loss.class` names no class: `MSEs` .*did you mean MSE",
            ),
            (
                {"label": "RETURN", "loss": {"class": "qlib_ext.model.heads.linear.LinearHead"}},
                "`tasks.score.loss.class` must be a Loss, found",
            ),
            (
                {"label": "RETURN", "loss": {**RANKING, "kwargs": {"top": 3}}},
                "`tasks.score.loss.kwargs` has no place for `top`; ApproxNDCG takes k, share,",
            ),
            (
                {"label": "RETURN", "loss": MSE_CONFIG, "head": None},
                "`tasks.score.head` must be a mapping with `class` and, where needed, `kwargs`; found None",
            ),
            (
                {"label": "RETURN", "loss": MSE_CONFIG, "head": {"class": "qlib_ext.checks.UserError"}},
                "`tasks.score.head.class` must be a Module, found qlib_ext.checks.UserError",
            ),
            (
                {"label": "RETURN", "loss": MSE_CONFIG, "classes": 5},
                "`tasks.score.classes` is for classification losses, found MSE",
            ),
            (
                {"label": "MOMENTUM", "loss": RANKING, "classes": 1},
                "`tasks.score.classes` must be at least 2, found 1",
            ),
        ],
    )
    def test_messages(self, config, message):
        with pytest.raises(UserError, match=message):
            Task.from_config("score", config)

    @pytest.mark.parametrize("name", ["a.b", "a/b", "", 1, "keys", "training", "rise or fall"])
    def test_a_name_that_torch_or_the_records_could_not_hold(self, name):
        with pytest.raises(UserError, match="`tasks` must name each task by letters, digits and underscores"):
            Task.from_config(name, {"label": "RETURN", "loss": MSE_CONFIG})


def labelled(name, values):
    """A day of which nothing matters but a label."""
    return DailyPanel(
        date=pd.Timestamp("2020-01-01"),
        features=torch.zeros(len(values), 1, 1),
        instruments=torch.arange(len(values)),
        market_value=None,
        labels={name: values},
        raw_labels={},
    )


class TestMissingLabels:
    """A stock without a label is left out before the loss, and nowhere else."""

    def test_regression(self):
        task = Task("score", "RETURN", MSE())
        prediction = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
        target = torch.tensor([1.5, float("nan"), 5.0, float("nan")])
        loss = task.daily_loss(prediction, labelled("RETURN", target))
        assert loss.item() == pytest.approx((0.5**2 + 2.0**2) / 2)
        loss.backward()
        assert prediction.grad.tolist() == [-0.5, 0.0, -2.0, 0.0]

    def test_classification(self):
        task = Task("momentum", "MOMENTUM", ApproxNDCG(), classes=5)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(20, 5, generator=generator)
        target = torch.randint(5, (20,), generator=generator).float()
        known = torch.arange(20) % 3 != 0
        target[~known] = float("nan")
        found = task.daily_loss(logits, labelled("MOMENTUM", target))
        assert torch.equal(found, task.loss(logits[known], target[known]))

    def test_an_infinite_label_is_not_missing(self):
        task = Task("score", "RETURN", MSE())
        panel = labelled("RETURN", torch.tensor([1.0, float("inf")]))
        assert task.daily_loss(torch.zeros(2), panel).item() == float("inf")


def test_probabilities_are_a_softmax():
    task = Task("momentum", "MOMENTUM", ApproxNDCG(), classes=3)
    found = task.probabilities(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1000.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]]))
