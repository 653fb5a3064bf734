from __future__ import annotations

from typing import Any

import pytest

from qlib_ext.backtest.exchange_settings import check_exchange
from qlib_ext.checks import UserError


class TestFields:
    """Which fields of the store an exchange reads."""

    @pytest.mark.parametrize(
        ("settings", "fields"),
        [
            ({}, set()),
            ({"deal_price": None, "limit_threshold": None, "volume_threshold": None}, set()),
            ({"deal_price": "Open", "trade_unit": 100}, {"open"}),
            ({"deal_price": "$open"}, {"open"}),
            ({"deal_price": ["$open", "($high+$low)/2"]}, {"open", "high", "low"}),
            ({"limit_threshold": 0.095}, {"change"}),
            ({"limit_threshold": ("$close > $high", "$close < $low")}, {"close", "high", "low"}),
            ({"volume_threshold": ["current", "0.1 * $volume"]}, {"volume"}),
            (
                {
                    "volume_threshold": {
                        "buy": ["cum", "$volume"],
                        "sell": ("current", "$amount"),
                        "all": ["cum", "$lot"],
                    }
                },
                {"volume", "amount", "lot"},
            ),
            ({"subscribe_fields": ["$vwap", "$turn / $free"]}, {"vwap", "turn", "free"}),
            (
                {"deal_price": "close", "limit_threshold": 0.1, "subscribe_fields": ["$vwap"]},
                {"close", "change", "vwap"},
            ),
            ({"codes": 3, "rules": "cn"}, set()),  # what it does not know it does not look at
        ],
    )
    def test_by_setting(self, settings: dict[str, Any], fields: set[str]) -> None:
        assert check_exchange(settings) == fields


class TestTakes:
    """The ends of what is right."""

    @pytest.mark.parametrize("cost", ["open_cost", "close_cost", "impact_cost"])
    @pytest.mark.parametrize("rate", [0, 0.999])
    def test_costs(self, cost: str, rate: float) -> None:
        assert check_exchange({cost: rate}) == set()

    @pytest.mark.parametrize(
        "settings", [{"min_cost": 0}, {"min_cost": 0.5}, {"trade_unit": 1}, {"trade_unit": None}]
    )
    def test_amounts(self, settings: dict[str, Any]) -> None:
        assert check_exchange(settings) == set()

    @pytest.mark.parametrize("limit", [0.001, 0.999])
    def test_limits(self, limit: float) -> None:
        assert check_exchange({"limit_threshold": limit}) == {"change"}


class TestRefuses:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"open_cost": -0.001}, r"`it.open_cost` must lie in \[0, 1\), found -0.001"),
            ({"close_cost": 1}, r"`it.close_cost` must lie in \[0, 1\), found 1"),
            ({"impact_cost": "0.1"}, r"`it.impact_cost` must lie in \[0, 1\), found '0.1'"),
            ({"min_cost": -0.5}, "`it.min_cost` must be at least 0, found -0.5"),
            ({"trade_unit": 0}, "`it.trade_unit` must be at least 1, found 0"),
            ({"trade_unit": 0.5}, "`it.trade_unit` must be an integer, found 0.5"),
            ({"deal_price": " "}, "`it.deal_price` must be a price such as close, or a pair .*, found ' '"),
            ({"deal_price": 3}, "`it.deal_price` must be a price such as close, or a pair .*, found 3"),
            (
                {"deal_price": ["$open"]},
                r"`it.deal_price` must be a price such as close, .*, found \['\$open'\]",
            ),
            ({"deal_price": ["$a", "$b", "$c"]}, "`it.deal_price` must be a price such as close"),
            ({"deal_price": "$open +"}, "`it.deal_price`: "),
            ({"deal_price": ["$open", "$close +"]}, "`it.deal_price`: "),
            ({"limit_threshold": 0.0}, r"`it.limit_threshold` must lie in \(0, 1\), found 0.0"),
            ({"limit_threshold": 1.0}, r"`it.limit_threshold` must lie in \(0, 1\), found 1.0"),
            (
                {"limit_threshold": "10%"},
                "`it.limit_threshold` must be a fraction such as 0.095, .* found '10%'",
            ),
            ({"limit_threshold": ["$close > 1", "$close >"]}, "`it.limit_threshold`: "),
            (
                {"volume_threshold": "$volume"},
                r"`it.volume_threshold` must be a pair such as .* found '\$volume'",
            ),
            ({"volume_threshold": {"buy": ["cum"]}}, "`it.volume_threshold` must be a pair such as"),
            (
                {"volume_threshold": {"both": ["cum", "$volume"]}},
                "`key of it.volume_threshold` must be one of all, buy",
            ),
            ({"volume_threshold": ["daily", "$volume"]}, "`it.volume_threshold` must be one of cum, current"),
            ({"volume_threshold": ["cum", "$volume *"]}, "`it.volume_threshold`: "),
            (
                {"subscribe_fields": "$vwap"},
                r"`it.subscribe_fields` must be a list of Qlib expressions, found '\$vwap'",
            ),
            ({"subscribe_fields": ["$vwap", 3]}, "`it.subscribe_fields`: "),
        ],
    )
    def test_with_the_name_of_the_setting(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=f"^{message}"):
            check_exchange(settings, "it")

    def test_by_default_they_stand_in_a_backtest(self) -> None:
        with pytest.raises(
            UserError, match=r"^`backtest.exchange_kwargs.min_cost` must be at least 0, found -1$"
        ):
            check_exchange({"min_cost": -1})
