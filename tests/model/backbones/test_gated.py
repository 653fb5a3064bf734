import math
from dataclasses import replace

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.gated import Gated, MarketGate
from qlib_ext.model.backbones.lstm import LSTM
from tests.model.backbones.conftest import MARKET

LSTM_CONFIG = {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 5}}


class TestMarketGate:
    @pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
    def test_is_the_softmax_at_a_temperature_times_the_number_of_features(self, make_day, beta):
        panel = make_day()
        gate = MarketGate(MARKET, 6, beta)
        found = gate(panel)
        market = [float(m) for m in panel.market_status]
        scores = [
            sum(w * m for w, m in zip(row, market, strict=True)) + bias
            for row, bias in zip(gate.linear.weight.tolist(), gate.linear.bias.tolist(), strict=True)
        ]
        total = sum(math.exp(score / beta) for score in scores)
        for field, score in enumerate(scores):
            expected = 6 * math.exp(score / beta) / total * panel.features[:, :, field]
            torch.testing.assert_close(found[:, :, field], expected)

    def test_weights_have_the_mean_1_and_are_even_where_it_is_hot(self, make_day):
        status = make_day().market_status
        cold, hot = (MarketGate(MARKET, 6, beta) for beta in (0.01, 1e6))
        hot.load_state_dict(cold.state_dict())
        assert cold.weights(status).mean().item() == pytest.approx(1.0)
        assert cold.weights(status).max().item() == pytest.approx(6.0, abs=0.1)
        torch.testing.assert_close(hot.weights(status), torch.ones(6))

    def test_is_in_float32_under_autocast(self, make_day):
        status = make_day().market_status
        gate = MarketGate(MARKET, 6)
        expected = gate.weights(status)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(gate.weights(status), expected)


class TestGated:
    def test_is_the_backbone_on_gated_features(self, make_day):
        panel = make_day()
        torch.manual_seed(0)
        gated = Gated(6, 4, LSTM_CONFIG, num_market=MARKET)
        alone = LSTM(6, 4, hidden_size=5)
        alone.load_state_dict(gated.backbone.state_dict())
        expected = alone(replace(panel, features=gated.gate(panel)))
        torch.testing.assert_close(gated(panel), expected)
        assert (gated.out_features, gated.stocks_see_each_other) == (5, False)

    def test_the_market_matters(self, make_day):
        panel = make_day()
        gated = Gated(6, 4, LSTM_CONFIG, beta=1.0, num_market=MARKET)
        other = gated(replace(panel, market_status=-panel.market_status))
        assert ((gated(panel) - other).abs().sum(dim=1) > 0).all()

    def test_a_gate_in_a_gate_is_told_of_the_market_too(self, make_day):
        inner = {
            "class": "qlib_ext.model.backbones.master.MASTER",
            "kwargs": {"hidden_size": 8},
        }
        gated = Gated(6, 4, inner, num_market=MARKET)
        assert gated.backbone.gate.linear.in_features == MARKET
        assert gated.stocks_see_each_other

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_market": 0}, "a gate needs features of the market, found none: name `market_status`"),
            ({"beta": -1}, "`beta` must be above 0, found -1"),
            ({"backbone": {"class": "qlib_ext.model.backbones.lstm.LTSM"}}, r"did you mean LSTM\?"),
            (
                {"backbone": {**LSTM_CONFIG, "kwargs": {"num_features": 3}}},
                "`backbone.kwargs.backbone.kwargs` must not set `num_features`",
            ),
        ],
    )
    def test_messages(self, changes, message):
        with pytest.raises(UserError, match=message):
            Gated(6, 4, **{"backbone": LSTM_CONFIG, "num_market": MARKET, **changes})

    def test_a_day_without_features_of_the_market(self, make_day):
        gated = Gated(6, 4, LSTM_CONFIG, num_market=MARKET)
        with pytest.raises(UserError, match=r"needs the market's features of .*, found none"):
            gated(make_day(market_status=None))
