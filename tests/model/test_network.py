import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.task import Task

BACKBONE = {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 6}}
MLP = {"class": "qlib_ext.model.heads.mlp.MLPHead", "kwargs": {"hidden_size": 3}}


def tasks():
    return [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", CrossEntropy(), head=MLP, classes=5)]


def network(backbone=BACKBONE):
    torch.manual_seed(0)
    return MultiTaskNetwork(backbone, tasks(), num_features=6, lookback_days=4)


def test_one_head_a_task_on_one_backbone(make_panels):
    panel = make_panels()[5]
    found = network()
    predictions = found(panel)
    assert list(predictions) == ["score", "momentum"]
    assert predictions["score"].shape == (len(panel),)
    assert predictions["momentum"].shape == (len(panel), 5)
    embedding = found.backbone(panel)
    assert torch.equal(predictions["score"], found.heads["score"](embedding))
    assert torch.equal(predictions["momentum"], found.heads["momentum"](embedding))


def test_a_single_stock_keeps_its_axis(make_panels):
    def alone(arrays):
        arrays["present"][5, 1:] = False

    predictions = network()(make_panels(change=alone)[5])
    assert predictions["score"].shape == (1,)
    assert predictions["momentum"].shape == (1, 5)


def test_heads_run_in_float32_after_a_bfloat16_backbone(make_panels):
    panel = make_panels()[5]
    found = network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = found.backbone(panel)
    predictions = found.predict_heads(embedding)
    assert embedding.dtype == torch.bfloat16
    for name, head in found.heads.items():
        assert predictions[name].dtype == torch.float32
        assert torch.equal(predictions[name], head(embedding.float()))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("lstm", "`backbone` must be a mapping with `class`"),
        ({"class": "LSTM"}, "`backbone.class` must be a dotted class"),
        (
            {"class": "qlib_ext.model.backbones.lstms.LSTM"},
            "`backbone.class` names a module that does not exist",
        ),
        ({"class": "torch.nn.LSTM"}, "`backbone.class` must be a Backbone, found torch.nn.LSTM"),
        ({**BACKBONE, "kwargs": {"hidden": 3}}, "`backbone.kwargs` has no place for `hidden`"),
        ({**BACKBONE, "kwargs": {"num_features": 3}}, "`backbone.kwargs` must not set `num_features`"),
        ({**BACKBONE, "kwargs": {"hidden_size": -3}}, "`hidden_size` must be at least 1, found -3"),
    ],
)
def test_messages(backbone, message):
    with pytest.raises(UserError, match=message):
        network(backbone)


def test_a_head_that_does_not_fit():
    wrong = Task("score", "RETURN", MSE(), head={**MLP, "kwargs": {"width": 3}})
    with pytest.raises(UserError, match=r"`tasks.score.head.kwargs` has no place for `width`"):
        MultiTaskNetwork(BACKBONE, [wrong], num_features=6, lookback_days=4)
