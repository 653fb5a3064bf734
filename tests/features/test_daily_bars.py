from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.features.daily_bars import BARS, DailyBars
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.macro import Macro, MacroFigures
from tests.features.arrays import market_of

DAYS, STOCKS, T = 40, 6, 8


class Given(Macro):
    """Indicators that a test gives, `[D, M]`."""

    def __init__(self, names: list[str], values: np.ndarray) -> None:
        super().__init__(series=names)
        self.given = values

    def load(self, store: Any, calendar: Any = None) -> MacroFigures:
        return MacroFigures(calendar, self.names or (), self.given, reads_future=False)


def joined(bars: np.ndarray, **kwargs: Any) -> tuple[DailyBars, MarketPanel]:
    """A feature set that has read its indicators, and its market."""
    features, market = DailyBars(lookback_days=T, **kwargs), market_of(bars, BARS)
    features.join(None, market)
    return features, market


def bars_of(seed: int = 0, missing: float = 0.15) -> np.ndarray:
    draw = np.random.default_rng(seed)
    close = 20 * np.exp(np.cumsum(draw.normal(0, 0.02, (DAYS, STOCKS)), axis=0))
    fields = [close * np.exp(draw.normal(0, 0.01, close.shape)) for _ in range(3)]
    volume = np.exp(draw.normal(12, 0.5, close.shape))
    bars = np.stack([*fields, close, volume]).astype(np.float32)
    bars[:, draw.random(close.shape) < missing] = np.nan
    bars[0, draw.random(close.shape) < 0.05] = 0.0  # a vendor's missing open
    bars[4, draw.random(close.shape) < 0.05] = 0.0
    return bars


def naive_filled(values: list[float], fill: str, limit: int) -> list[float]:
    known = [x if x == x and x > 0 else math.nan for x in values]
    result = list(known)
    for day, value in enumerate(known):
        if value == value:
            continue
        before = [k for k in range(day) if known[k] == known[k]]
        after = [k for k in range(day + 1, len(known)) if known[k] == known[k]]
        if fill == "forward":
            if before and day - before[-1] <= limit:
                result[day] = known[before[-1]]
        elif before and after and after[0] - before[-1] - 1 <= limit:
            share = (day - before[-1]) / (after[0] - before[-1])
            result[day] = known[before[-1]] + share * (known[after[0]] - known[before[-1]])
    return result


def naive_features(bars: np.ndarray, form: str, fill: str, limit: int) -> np.ndarray:
    """By the definition, a stock, a field and a day at a time."""
    result = np.full((DAYS, STOCKS, len(BARS)), np.nan)
    for stock in range(STOCKS):
        filled = {
            name: naive_filled([float(x) for x in bars[i, :, stock]], fill, limit)
            for i, name in enumerate(BARS)
        }
        for i, name in enumerate(BARS):
            base = filled["volume" if name == "volume" else "close"]
            for day in range(DAYS):
                if form == "level":
                    result[day, stock, i] = filled[name][day]
                elif day and filled[name][day] == filled[name][day] and base[day - 1] == base[day - 1]:
                    result[day, stock, i] = math.log(filled[name][day] / base[day - 1])
    return result


def rows(stop: int = 25) -> np.ndarray:
    inside = np.random.default_rng(1).random((DAYS, STOCKS)) < 0.8
    inside[stop:] = False
    return inside


class TestFeatures:
    @pytest.mark.parametrize("form", ["change", "level"])
    @pytest.mark.parametrize(
        ("fill", "limit"), [("forward", 0), ("forward", 2), ("linear", 1), ("linear", 9)]
    )
    def test_against_a_naive_loop(self, form: str, fill: str, limit: int) -> None:
        bars = bars_of(missing=0.3)
        features = DailyBars(lookback_days=T, form=form, fill=fill, fill_limit_days=limit)
        padded = features.pad(market_of(bars, BARS))
        assert padded.shape == (DAYS + T - 1, STOCKS, len(BARS))
        assert np.isnan(padded[: T - 1]).all()
        np.testing.assert_allclose(
            padded[T - 1 :], naive_features(bars, form, fill, limit), rtol=2e-4, atol=2e-6
        )

    def test_a_window_is_the_last_t_days_z_scored_clipped_and_zero_where_missing(self) -> None:
        bars, indicators = bars_of(), np.random.default_rng(3).normal(2, 5, (DAYS, 2))
        indicators[:5, 0] = np.nan
        features, market = joined(bars, macro=Given(["gdp", "cpi change"], indicators), clip=1.5)
        features.fit(market, rows())
        assert features.names == (*BARS, "gdp", "cpi change")
        assert features.fields == BARS
        plain = naive_features(bars, "change", "forward", 5)
        expected = []
        for i in range(len(BARS)):
            inside = plain[..., i][rows()]
            inside = inside[~np.isnan(inside)]
            expected.append((inside.mean(), inside.std()))
        for column in indicators.T:
            inside = column[rows().any(axis=1)]
            expected.append((np.nanmean(inside), np.nanstd(inside)))
        means, deviations = np.array(expected).T
        np.testing.assert_allclose(features.median, np.tile(means, (T, 1)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(features.scale, np.tile(deviations, (T, 1)), rtol=1e-4)

        padded, columns = torch.from_numpy(features.pad(market)), torch.tensor([4, 1])
        whole = np.concatenate([plain, np.broadcast_to(indicators[:, None], (DAYS, STOCKS, 2))], axis=2)
        for day in (2, T - 1, 20, DAYS - 1):
            found = features.gather(padded, day, columns)
            assert found.shape == (2, T, len(features.names))
            for lag in range(T):
                at = day - T + 1 + lag
                if at < 0:
                    assert (found[:, lag] == 0).all()
                    continue
                normal = np.clip((whole[at, [4, 1]] - means) / deviations, -1.5, 1.5)
                np.testing.assert_allclose(found[:, lag], np.nan_to_num(normal), atol=2e-3)

    def test_golden(self) -> None:
        bars = np.full((2, 4, 1), np.nan, np.float32)
        bars[0, :, 0] = [10.0, 11.0, np.nan, 12.1]  # close
        bars[1, :, 0] = [100.0, 200.0, np.nan, 100.0]
        features = DailyBars(["close", "volume"], lookback_days=1)
        expected = [[np.nan, np.nan], [math.log(1.1), math.log(2)], [0, 0], [math.log(1.1), -math.log(2)]]
        np.testing.assert_allclose(
            features.pad(market_of(bars, ["close", "volume"]))[:, 0], expected, rtol=1e-5
        )

    def test_units_of_prices_and_volumes_do_not_matter(self) -> None:
        bars = bars_of()
        scaled = bars * np.array([7, 7, 7, 7, 0.01], np.float32)[:, None, None]
        first, second = (DailyBars(lookback_days=T).pad(market_of(x, BARS)) for x in (bars, scaled))
        np.testing.assert_allclose(first, second, atol=1e-5)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_another_device(self) -> None:
        bars = bars_of()
        features, market = joined(bars, macro=Given(["x"], np.arange(DAYS, dtype=float)[:, None]))
        features.fit(market, rows())
        padded, columns = torch.from_numpy(features.pad(market)), torch.arange(STOCKS)
        ours = features.gather(padded.cuda(), 20, columns.cuda())
        torch.testing.assert_close(ours.cpu(), features.gather(padded, 20, columns))


class TestLookAhead:
    @pytest.mark.parametrize("t", [12, 24, 33])
    def test_what_comes_after_t_leaves_features_up_to_t_as_they_are(self, t: int) -> None:
        bars, other = bars_of(), bars_of()
        indicators = np.random.default_rng(2).normal(size=(DAYS, 1))
        draw = np.random.default_rng(9)
        other[:, t + 1 :] = bars_of(7, 0.5)[:, t + 1 :]
        changed = indicators.copy()
        changed[t + 1 :] = draw.normal(size=changed[t + 1 :].shape)
        made = []
        for values, series in ((bars, indicators), (other, changed)):
            features, market = joined(values, macro=Given(["x"], series))
            features.fit(market, rows(10))
            made.append((features, torch.from_numpy(features.pad(market))))
        columns = torch.arange(STOCKS)
        for day in range(DAYS - 1):
            ours, theirs = (features.gather(padded, day, columns) for features, padded in made)
            assert torch.equal(ours, theirs) == (day <= t)

    @pytest.mark.parametrize("fill", ["forward", "linear"])
    def test_statistics_do_not_move_with_later_days(self, fill: str) -> None:
        stop = 25
        bars, other = bars_of(), bars_of()
        other[:, stop:] = bars_of(5)[:, stop:]
        indicators = np.random.default_rng(2).normal(size=(DAYS, 1))
        fitted = []
        for values, factor in ((bars, 1.0), (other, 3.0)):
            series = indicators.copy()
            series[stop:] *= factor
            features, market = joined(values, macro=Given(["x"], series), fill=fill)
            fitted.append(features.fit(market, rows(stop)))
        np.testing.assert_array_equal(fitted[0].median, fitted[1].median)
        np.testing.assert_array_equal(fitted[0].scale, fitted[1].scale)

    def test_a_line_reads_the_future_and_says_so(self) -> None:
        bars = bars_of(missing=0.0)
        bars[:, 20] = np.nan
        other = bars.copy()
        other[:, 21] *= 2
        features = DailyBars(lookback_days=T, fill="linear")
        first, second = (features.pad(market_of(x, BARS)) for x in (bars, other))
        assert not np.array_equal(first[20 + T - 1], second[20 + T - 1])
        assert "interpolated" in features.look_ahead()[0]

    def test_levels_say_what_they_hold_and_changes_have_nothing_to_say(self) -> None:
        assert "splits of later years" in DailyBars(form="level").look_ahead()[0]
        assert DailyBars().look_ahead() == []


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"form": "ratio"}, "`form` must be one of change, level, found 'ratio'"),
            ({"fill": "cubic"}, "`fill` must be one of forward, linear, found 'cubic'"),
            ({"clip": 0}, "`clip` must be above 0, found 0"),
            ({"lookback_days": 0}, "`lookback_days` must be at least 1, found 0"),
            ({"fill_limit_days": -1}, "`fill_limit_days` must be at least 0, found -1"),
            ({"bars": ["open"]}, "`bars` must hold `close`, which prices are compared with, found ['open']"),
            ({"bars": ["close", "close"]}, "`bars` must name fields, each once, found ['close', 'close']"),
            (
                {"macro": Macro(series=["close"])},
                "an indicator must have another name than a bar, found close",
            ),
            (
                {"macro": Macro()},
                "`macro.series` must name the series, so that the features do not change with the store; found none",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as caught:
            DailyBars(**arguments)
        assert str(caught.value) == message

    def test_families(self) -> None:
        given = Given(["cpi"], np.zeros((1, 1)))
        assert DailyBars(macro=given).families() == {
            "prices": ("open", "high", "low", "close"),
            "volume": ("volume",),
            "macro": ("cpi",),
        }
        assert DailyBars(["close"]).families() == {"prices": ("close",)}

    def test_nothing_to_fit_on(self) -> None:
        features = DailyBars(lookback_days=T)
        with pytest.raises(UserError, match="hold no stock"):
            features.fit(market_of(bars_of(), BARS), np.zeros((DAYS, STOCKS), dtype=bool))
        bars = bars_of()
        bars[4] = np.nan
        with pytest.raises(UserError, match="`volume` is not known"):
            features.fit(market_of(bars, BARS), rows())
        features, market = joined(bars_of(), macro=Given(["x"], np.ones((DAYS, 1))))
        with pytest.raises(UserError, match="`x` is the same"):
            features.fit(market, rows())

    def test_a_pickle_holds_statistics_and_no_indicators(self) -> None:
        features, market = joined(bars_of(), macro=Given(["x"], np.arange(DAYS, dtype=float)[:, None]))
        features.fit(market, rows())
        again = pickle.loads(pickle.dumps(features))
        np.testing.assert_array_equal(again.median, features.median)
        padded = torch.from_numpy(again.pad(market))
        with pytest.raises(RuntimeError, match="call `join` first"):
            again.gather(padded, 20, torch.arange(2))
