from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.processors.momentum_line import CLASS_NAMES, MomentumLine, momentum_class
from qlib_ext.features.engine import evaluation
from qlib_ext.features.market_panel import MarketPanel

NAN = math.nan


def naive_class(line: list[float]) -> float:
    """The class of a line in plain Python, sentence by sentence as the definition reads."""
    if any(math.isnan(value) for value in line):
        return NAN  # any missing price in the window: no label
    signs = [(value > 0) - (value < 0) for value in line]
    first = next((sign for sign in signs if sign != 0), 0)
    if first == 0:
        return CLASS_NAMES.index("Volatile")  # an all-zero line is Volatile
    before = first  # leading zeros take the first sign after them
    for i, sign in enumerate(signs):
        before = signs[i] = sign if sign != 0 else before  # a zero takes the sign before it
    if all(sign > 0 for sign in signs):
        return CLASS_NAMES.index("Positive")
    if all(sign < 0 for sign in signs):
        return CLASS_NAMES.index("Negative")
    changes = [(left, right) for left, right in itertools.pairwise(signs) if left != right]
    if changes == [(-1, 1)]:
        return CLASS_NAMES.index("Bounce")
    if changes == [(1, -1)]:
        return CLASS_NAMES.index("Sink")
    return CLASS_NAMES.index("Volatile")


def naive_line(
    prices: list[float], t: int, lookback: int = 4, length: int = 6, points: int = 7
) -> list[float]:
    """m[T-s], ..., m[T] with T = t + 2 and m[tau] = p[tau] - p[tau-l]; the last `points` of them."""
    price = dict(enumerate(prices))
    end = t + 2
    line = [price.get(tau, NAN) - price.get(tau - lookback, NAN) for tau in range(end - length, end + 1)]
    return line[-points:]


def naive_persistence(line: list[float]) -> float:
    """The class of the line whose last two signs repeat the last sign that is known at t."""
    known = line[:-2]
    signs = [(value > 0) - (value < 0) for value in known]
    last = next((sign for sign in reversed(signs) if sign != 0), 0)
    return naive_class([*known, last, last]) if not any(map(math.isnan, known)) else NAN


def table(lines: Any, processor: MomentumLine) -> pd.DataFrame:
    """The frame that a loader would deliver for lines `[R, P]`."""
    names = pd.MultiIndex.from_product([["label"], processor.expressions()[1]])
    index = pd.MultiIndex.from_product(
        [[pd.Timestamp("2020-01-02")], [f"SH{i:06}" for i in range(len(lines))]],
        names=["datetime", "instrument"],
    )
    return pd.DataFrame(np.asarray(lines, dtype=np.float32), index=index, columns=names)


def panel_of(prices: np.ndarray) -> MarketPanel:
    days, stocks = prices.shape
    return MarketPanel(
        fields=("close",),
        calendar=pd.bdate_range("2020-01-01", periods=days),
        instruments=tuple(f"SH{i:06}" for i in range(stocks)),
        values=prices[None].astype(np.float32),
        members=np.ones((days, stocks), dtype=bool),
        missing_fields=(),
    )


def classes_of(prices: np.ndarray, processor: MomentumLine) -> dict[str, np.ndarray]:
    """Both classes of every day and stock `[D, S]`, through Qlib's expressions and the processor."""
    panel = panel_of(prices)
    line = np.stack([evaluation.evaluate(text, panel) for text in processor.expressions()[0]], axis=-1)
    found = processor(table(line.reshape(-1, line.shape[-1]), processor))["label"]
    return {name: found[name].to_numpy().reshape(prices.shape) for name in found}


class TestClass:
    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ([1, 2, 3, 4, 5, 6, 7], "Positive"),
            ([-1, -2, -3, -4, -5, -6, -7], "Negative"),
            ([-1, -1, -1, 1, 1, 1, 1], "Bounce"),
            ([1, 1, 1, 1, 1, 1, -1], "Sink"),
            ([1, -1, 1, 1, 1, 1, 1], "Volatile"),
            ([1, 0, 0, 1, 0, 1, 0], "Positive"),  # a zero takes the sign before it
            ([-1, 0, 0, 1, 1, 1, 1], "Bounce"),  # so there is one change
            ([1, 0, -1, 0, 0, 0, 0], "Sink"),
            ([1, 0, -1, 0, 1, 0, 0], "Volatile"),
            ([0, 0, -1, -1, -1, -1, -1], "Negative"),  # leading zeros take the first sign after them
            ([0, 0, 0, 0, 0, 0, 1], "Positive"),
            ([0, 0, 1, 0, 0, -1, 0], "Sink"),
            ([0, 0, 0, 0, 0, 0, 0], "Volatile"),
        ],
    )
    def test_by_hand(self, line: list[float], name: str) -> None:
        assert CLASS_NAMES[int(momentum_class(np.array([line]))[0])] == name

    @pytest.mark.parametrize("position", range(7))
    def test_a_missing_value_anywhere_gives_no_class(self, position: int) -> None:
        line = np.ones((1, 7))
        line[0, position] = NAN
        assert np.isnan(momentum_class(line)).all()

    @given(st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1e-30, 3.0, NAN]), min_size=2, max_size=9))
    @example([0.0, 0.0])
    def test_as_the_definition_reads(self, line: list[float]) -> None:
        found = momentum_class(np.array([line]))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [naive_class(line)])

    @given(st.lists(st.integers(-2, 2), min_size=2, max_size=9))
    def test_the_mirrored_line_has_the_mirrored_class(self, line: list[int]) -> None:
        values = np.array([line], dtype=float)
        assert momentum_class(-values) == 4 - momentum_class(values)
        assert momentum_class(1e-3 * values) == momentum_class(values)

    def test_lines_do_not_touch_each_other(self) -> None:
        lines = np.random.default_rng(0).integers(-1, 2, (500, 7)).astype(float)
        lines[np.random.default_rng(1).random(lines.shape) < 0.02] = NAN
        np.testing.assert_array_equal(momentum_class(lines), [naive_class(line) for line in lines.tolist()])
        assert set(momentum_class(lines)[~np.isnan(momentum_class(lines))]) == {0, 1, 2, 3, 4}

    def test_the_lines_are_left_as_they_are(self) -> None:
        lines = np.array([[0.0, 1.0, NAN], [0.0, 1.0, 0.0]])
        before = lines.copy()
        momentum_class(lines)
        np.testing.assert_array_equal(lines, before)


class TestFromPrices:
    @pytest.mark.parametrize(
        ("options", "naive"),
        [
            ({}, {}),
            ({"points": 6}, {"points": 6}),
            ({"lookback_days": 2, "length_days": 3}, {"lookback": 2, "length": 3, "points": 4}),
        ],
    )
    def test_every_day_and_stock_against_a_plain_loop(
        self, options: dict[str, int], naive: dict[str, int]
    ) -> None:
        draw = np.random.default_rng(3)
        prices = draw.integers(8, 13, (60, 8)).astype(float)  # whole numbers: many equal prices
        prices[draw.random(prices.shape) < 0.03] = NAN
        prices[:, 0] = 10.0  # no momentum at all
        found = classes_of(prices, MomentumLine(**options))
        lines = [
            [naive_line(prices[:, s].tolist(), t, **naive) for s in range(prices.shape[1])] for t in range(60)
        ]
        np.testing.assert_array_equal(found["MOMENTUM"], [[naive_class(x) for x in row] for row in lines])
        np.testing.assert_array_equal(
            found["MOMENTUM_PERSISTENCE"], [[naive_persistence(x) for x in row] for row in lines]
        )
        assert np.isnan(found["MOMENTUM"][-2:]).all()  # T = t + 2 lies beyond the prices
        assert (found["MOMENTUM"][8:-2, 0] == CLASS_NAMES.index("Volatile")).all()

    @given(st.lists(st.sampled_from([9.0, 10.0, 10.5, 11.0, NAN]), min_size=12, max_size=16))
    def test_any_prices(self, prices: list[float]) -> None:
        found = classes_of(np.array(prices)[:, None], MomentumLine())
        lines = [naive_line(prices, t) for t in range(len(prices))]
        np.testing.assert_array_equal(found["MOMENTUM"][:, 0], [naive_class(x) for x in lines])
        np.testing.assert_array_equal(
            found["MOMENTUM_PERSISTENCE"][:, 0], [naive_persistence(x) for x in lines]
        )

    def test_golden(self) -> None:
        # day:            0   1   2   3   4   5   6   7   8   9  10  11  12
        prices = np.array([10, 11, 12, 11, 12, 12, 11, 10, 9, 8, 9, 10, 12], dtype=float)[:, None]
        # momentum from day 4:            +2  +1  -1  -1  -3  -4  -2   0  +3
        found = classes_of(prices, MomentumLine())
        assert found["MOMENTUM"][8:11, 0].tolist() == [0, 0, 4]  # the lines that end on day 10, 11 and 12
        assert found["MOMENTUM_PERSISTENCE"][8:11, 0].tolist() == [0, 0, 1]


class TestPersistence:
    def test_the_last_known_sign_goes_on(self) -> None:
        processor = MomentumLine()
        lines = [
            [1, 1, 1, 1, 1, -1, -1],  # the change is not known at t
            [1, 1, 1, 1, -1, 1, 1],
            [-1, -1, -1, 1, 0, -1, -1],  # the last known sign is the one before the zero
            [0, 0, 0, 0, 0, 1, 1],  # nothing is known: Volatile
        ]
        found = processor(table(lines, processor))["label"]
        assert found["MOMENTUM"].tolist() == [0, 2, 2, 3]
        assert found["MOMENTUM_PERSISTENCE"].tolist() == [3, 0, 4, 2]

    def test_it_needs_no_price_after_t(self) -> None:
        processor = MomentumLine()
        found = processor(table([[1, 1, 1, 1, 1, NAN, NAN], [1, 1, 1, 1, NAN, 1, 1]], processor))["label"]
        assert found["MOMENTUM"].isna().all()
        np.testing.assert_array_equal(found["MOMENTUM_PERSISTENCE"], [3, NAN])

    def test_without_a_horizon_it_is_the_class(self) -> None:
        processor = MomentumLine(horizon_days=0)
        found = processor(table(np.random.default_rng(0).normal(size=(50, 7)), processor))["label"]
        assert found["MOMENTUM"].equals(found["MOMENTUM_PERSISTENCE"].rename("MOMENTUM"))


class TestProcessor:
    def test_other_columns_stay(self) -> None:
        processor = MomentumLine(name="LINE")
        frame = table(np.ones((3, 7)), processor)
        frame.insert(2, ("label", "RETURN"), [0.1, NAN, 0.3])
        frame.insert(0, ("feature", "CLOSE0"), 1.0)
        before = frame.copy()
        found = processor(frame)
        assert list(found.columns) == [
            ("feature", "CLOSE0"),
            ("label", "RETURN"),
            ("label", "LINE"),
            ("label", "LINE_PERSISTENCE"),
        ]
        pd.testing.assert_series_equal(found["label", "RETURN"], before["label", "RETURN"])
        assert processor.readonly()
        pd.testing.assert_frame_equal(frame, before)

    def test_today_is_not_spelled_as_a_reference_to_day_0(self) -> None:
        fields, names = MomentumLine().expressions()
        assert len(fields) == len(set(names)) == 7
        assert fields[4] == "$close-Ref($close, 4)"
        assert fields[-1] == "Ref($close, -2)-Ref($close, 2)"

    def test_missing_columns_are_named(self) -> None:
        with pytest.raises(
            UserError,
            match=r"columns MOMENTUM_LINE0 to MOMENTUM_LINE6 in group `label`, found no MOMENTUM_LINE0: add `MomentumLine",
        ):
            MomentumLine()(table(np.ones((3, 7)), MomentumLine()).iloc[:, 1:])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lookback_days": 0}, "`lookback_days` must be at least 1, found 0"),
            ({"length_days": 2.5}, "`length_days` must be an integer, found 2.5"),
            ({"horizon_days": -1}, "`horizon_days` must be at least 0, found -1"),
            ({"points": 2}, r"`points` must be above `horizon_days` \(2\).* found 2"),
        ],
    )
    def test_arguments_are_checked(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            MomentumLine(**options)


class TestUnderQlib:
    def test_qlibs_handler_gives_the_classes_that_ours_gives(
        self, qlib_table: Callable[..., pd.DataFrame], dataset: DailyPanelDataset
    ) -> None:
        theirs = qlib_table()["label"]
        ours = dataset.handler.fetch(col_set="label")
        names = ["MOMENTUM", "MOMENTUM_PERSISTENCE"]
        assert ours["MOMENTUM"].notna().sum() > 1000
        pd.testing.assert_frame_equal(ours[names], theirs[names].reindex(ours.index))

    def test_classes_are_those_of_a_plain_loop_over_the_prices(
        self, dataset: DailyPanelDataset, tiny: Any
    ) -> None:
        ours = dataset.handler.fetch(col_set="label")
        close = pd.DataFrame(tiny.bars["close"].astype(np.float32), tiny.calendar, tiny.codes)
        for (day, code), row in ours.iloc[::7].iterrows():
            line = naive_line(close[code].tolist(), tiny.calendar.get_loc(day))
            np.testing.assert_array_equal(row["MOMENTUM"], naive_class(line), str((day, code)))
            np.testing.assert_array_equal(row["MOMENTUM_PERSISTENCE"], naive_persistence(line))
