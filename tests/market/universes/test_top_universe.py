from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.spells import daily_size
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.universes.top_universe import TopUniverse

DAYS = 150
CODES = [*(f"SH60000{k}" for k in range(8)), *(f"SZ00000{k}" for k in range(6)), "SH000300"]
CALENDAR = pd.bdate_range("2020-01-01", periods=DAYS)


class Made:
    """A little market with late listings, suspensions, a stock that goes, ties, and a universe that changes."""

    def __init__(self, seed: int = 0):
        draw = np.random.default_rng(seed)
        shape = (DAYS, len(CODES))
        self.close = np.exp(np.cumsum(draw.normal(0, 0.02, shape), axis=0)) * 10
        self.amount = np.exp(np.cumsum(draw.normal(0, 0.4, shape), axis=0)) * 1e6
        self.amount[:, -1] *= 1e6  # an index
        self.amount[:, 5] = self.amount[:, 6]  # a tie on every day
        there = draw.random(shape) > 0.03
        for stock, first in ((1, 30), (9, 55)):
            there[:first, stock] = False
        there[90:, 2] = False  # gone
        there[60:85, 3] = False  # suspended for long
        there[60:85, 6] = there[60:85, 5] = True
        there[:, 6] = there[:, 5]
        self.close[~there] = np.nan
        self.amount[~there] = np.nan
        self.value = self.close * draw.uniform(1e6, 1e8, len(CODES))
        self.parent = draw.random((DAYS // 30, len(CODES))).repeat(30, axis=0) > 0.25
        self.parent[:, -1] = False

    def scrambled(self, after: int) -> Made:
        """The same up to the day before `after`, something else from it on; members from the day after it on."""
        other = Made(seed=999)
        for name in ("close", "amount", "value"):
            getattr(other, name)[:after] = getattr(self, name)[:after]
        other.parent[: after + 1] = self.parent[: after + 1]
        return other

    def write(self, root: Path) -> QlibStore:
        spells = []
        for stock, code in enumerate(CODES):
            for day in np.flatnonzero(self.parent[:, stock]):
                spells.append((code, CALENDAR[day], CALENDAR[day]))
        members = pd.DataFrame(spells, columns=["instrument", "start", "end"])
        ghost = pd.DataFrame({"instrument": ["SH600999"], "start": CALENDAR[:1], "end": CALENDAR[-1:]})
        store = write_store(
            root,
            CALENDAR,
            CODES,
            {"close": self.close, "amount": self.amount},
            {"wide": pd.concat([members, ghost])},
        )
        (root / "side").mkdir()
        day, stock = np.nonzero(~np.isnan(self.value))
        table = {"datetime": CALENDAR[day], "instrument": np.array(CODES)[stock]}
        pd.DataFrame(table | {"market_value": self.value[day, stock]}).to_parquet(
            root / "side" / "market_value.parquet"
        )
        return store


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


@pytest.fixture(scope="module")
def store(made: Made, tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return made.write(tmp_path_factory.mktemp("top") / "market")


def members(spells: pd.DataFrame) -> list[set[str]]:
    """The members of each day."""
    return [
        set(spells.loc[(spells["start"] <= day) & (spells["end"] >= day), "instrument"]) for day in CALENDAR
    ]


def naive(made: Made, arguments: Mapping[str, Any]) -> list[set[str]]:
    """Members of each day by a plain loop over days and stocks, written from the description alone."""
    a = {"by": "amount", "window_days": 240, "min_history_days": 60, "delay_days": 1, "absent_days": 60}
    a |= {"exclude": (), "of": None, "exchange": "", "buffer": 0.0, "refill": False, **arguments}
    first = a["min_history_days"] + a["delay_days"] - 1
    if a.get("on"):
        asked = [pd.Timestamp(day) for day in a["on"]]
        reviews = {max(first, min(d for d in range(DAYS) if CALENDAR[d] >= day)) for day in asked}
    elif a.get("every_months"):
        asked = [CALENDAR[first] + pd.DateOffset(months=k * a["every_months"]) for k in range(12)]
        reviews = {next((d for d in range(DAYS) if CALENDAR[d] >= day), DAYS) for day in asked}
    else:
        fridays = [
            day
            for day in pd.date_range("2020-01-01", "2020-12-31")
            if day.month in (a.get("review_months") or (6, 12)) and day.weekday() == 4 and 8 <= day.day <= 14
        ]
        later = {next((d for d in range(DAYS) if CALENDAR[d] > day), DAYS) for day in fridays}
        reviews = {first} | {d for d in later if d > first}
    result, now, ranking = [], set(), []
    for day in range(DAYS):
        if day < min(reviews):
            result.append(set())
            continue
        may = set()
        for k, code in enumerate(CODES):
            recent = made.close[
                max(0, day - a["delay_days"] + 1 - a["absent_days"]) : day - a["delay_days"] + 1, k
            ]
            alive = any(not np.isnan(x) for x in recent)
            inside = a["of"] is None or made.parent[day, k]
            if alive and inside and code.startswith(a["exchange"]) and code not in a["exclude"]:
                may.add(code)
        if day in reviews:
            until = day - a["delay_days"] + 1
            since = max(0, until - a["window_days"])
            scores = {}
            for code in may:
                k = CODES.index(code)
                days = [d for d in range(until) if not np.isnan(made.close[d, k])]
                if len(days) < a["min_history_days"]:
                    continue
                if a["by"] == "amount":
                    values = [
                        made.amount[d, k] for d in range(since, until) if not np.isnan(made.amount[d, k])
                    ]
                    count = until - max(since, days[0])
                else:
                    values = [made.value[d, k] for d in range(since, until) if not np.isnan(made.value[d, k])]
                    count = len(values)
                if values:
                    scores[code] = sum(np.float64(np.float32(v)) for v in values) / count
            ranking = sorted(scores, key=lambda code: (-scores[code], code))
            n, b = a["top"], a["buffer"]
            sure = [c for i, c in enumerate(ranking, 1) if i <= (1 - b) * n]
            stay = [c for i, c in enumerate(ranking, 1) if i <= (1 + b) * n and c in now and c not in sure]
            rest = [c for c in ranking if c not in sure and c not in stay]
            now = set((sure + stay + rest)[:n])
        else:
            now = now & may
            if a["refill"]:
                waiting = [c for c in ranking if c in may and c not in now]
                now |= set(waiting[: max(0, a["top"] - len(now))])
        result.append(set(now))
    return result


ARGUMENTS = st.fixed_dictionaries(
    {
        "top": st.integers(1, 12),
        "min_history_days": st.integers(1, 40),
        "window_days": st.integers(1, 60),
        "delay_days": st.integers(1, 5),
        "absent_days": st.integers(2, 40),
        "buffer": st.sampled_from([0.0, 0.2, 0.5]),
        "refill": st.booleans(),
        "of": st.sampled_from([None, "wide"]),
        "exchange": st.sampled_from([None, "SH", "SZ"]),
        "exclude": st.sampled_from([(), ("SH000300",), ("sh600000", "SZ000003")]),
        "when": st.sampled_from(
            [
                {},
                {"every_months": 1},
                {"every_months": 2},
                {"review_months": (2, 3, 5)},
                {"on": ("2020-01-02", "2020-03-07", "2020-05-20", "2020-05-21")},
            ]
        ),
    }
)


class TestOracle:
    @settings(max_examples=25)
    @given(arguments=ARGUMENTS)
    def test_against_a_plain_loop(self, made: Made, store: QlibStore, arguments: dict[str, Any]) -> None:
        given = {name: value for name, value in arguments.items() if name != "when"} | arguments["when"]
        expected = naive(
            made,
            {name: value for name, value in given.items() if value is not None}
            | {"exclude": tuple(code.upper() for code in given["exclude"])},
        )
        chosen = TopUniverse("mine", **given).choose(store)
        assert members(chosen.spells) == expected
        sizes = daily_size(CALENDAR, chosen.spells)
        assert sizes.tolist() == [len(day) for day in expected]
        assert sizes.max() <= given["top"]

    @pytest.mark.parametrize("refill", [True, False])
    def test_by_market_value(self, made: Made, store: QlibStore, refill: bool) -> None:
        given = {"top": 5, "by": "market_value", "window_days": 25, "min_history_days": 25, "every_months": 1}
        # a market value is carried over a suspension, so the plain loop sees it filled
        filled = Made()
        filled.value = pd.DataFrame(made.value.astype(np.float32)).ffill(limit=22).to_numpy(dtype=float)
        chosen = TopUniverse("mine", **given, refill=refill).choose(store)
        assert members(chosen.spells) == naive(filled, given | {"refill": refill})
        assert "by mean market value over the 25 days" in chosen.rule


class TestMeasure:
    def test_days_before_listing_do_not_count_and_suspended_ones_do(self, tmp_path: Path) -> None:
        """Three stocks: amount 10 on every day, 15 since 20 days, 15 on every second day."""
        amount = np.full((DAYS, 3), [10.0, 15.0, 15.0])
        amount[:80, 1] = np.nan
        amount[::2, 2] = np.nan
        codes = CODES[:3]
        store = write_store(tmp_path / "s", CALENDAR, codes, {"close": amount, "amount": amount}, {})
        for top, expected in ((1, codes[1:2]), (2, codes[:2])):
            rule = TopUniverse("mine", top, on=[CALENDAR[100]], min_history_days=10, window_days=60)
            assert members(rule.choose(store).spells)[100] == set(expected)


class TestPointInTime:
    @settings(max_examples=10)
    @given(
        after=st.integers(20, DAYS - 1), refill=st.booleans(), by=st.sampled_from(["amount", "market_value"])
    )
    def test_what_comes_later_changes_nothing(
        self,
        made: Made,
        store: QlibStore,
        tmp_path_factory: pytest.TempPathFactory,
        after: int,
        refill: bool,
        by: str,
    ) -> None:
        """Members of day t follow from bars before t, and from who was in the parent up to t."""
        other = made.scrambled(after).write(tmp_path_factory.mktemp("scrambled") / "market")
        rule = TopUniverse(
            "mine",
            5,
            by=by,
            of="wide",
            window_days=30,
            min_history_days=15,
            absent_days=9,
            every_months=1,
            refill=refill,
        )
        first, second = members(rule.choose(store).spells), members(rule.choose(other).spells)
        assert first[: after + 1] == second[: after + 1]
        assert any(first[: after + 1])

    def test_the_scramble_shows(self, made: Made, store: QlibStore, tmp_path: Path) -> None:
        """The test above could fail: what comes later does change what comes later."""
        other = made.scrambled(60).write(tmp_path / "market")
        rule = TopUniverse("mine", 5, window_days=30, min_history_days=15, every_months=1)
        assert members(rule.choose(store).spells)[100:] != members(rule.choose(other).spells)[100:]

    @pytest.mark.parametrize("delay_days", [1, 4])
    def test_the_delay_is_kept(self, made: Made, tmp_path: Path, delay_days: int) -> None:
        """The last days before a review change its pick only if they are further away than the delay."""
        review = 100
        rule = TopUniverse(
            "mine", 1, window_days=5, min_history_days=5, delay_days=delay_days, on=[CALENDAR[review]]
        )
        for days_before, seen in ((delay_days - 1, False), (delay_days, True)):
            late = Made()
            late.amount[review - days_before, 7] = 1e20
            late.close[review - days_before, 7] = 10.0
            chosen = rule.choose(late.write(tmp_path / f"{delay_days}-{days_before}"))
            assert (members(chosen.spells)[review] == {CODES[7]}) is seen

    def test_it_begins_when_the_history_is_there(self, store: QlibStore) -> None:
        chosen = TopUniverse("mine", 3, min_history_days=20, delay_days=2).choose(store)
        assert chosen.reviews is not None
        assert chosen.reviews.index[0] == CALENDAR[21]
        assert chosen.spells["start"].min() == CALENDAR[21]


class TestReviews:
    def test_the_table_says_who_came_and_went(self, store: QlibStore) -> None:
        chosen = TopUniverse("mine", 5, min_history_days=20, every_months=1).choose(store)
        daily = members(chosen.spells)
        assert chosen.reviews is not None
        for day, row in chosen.reviews.iterrows():
            k = CALENDAR.get_loc(day)
            assert row.tolist() == [len(daily[k]), len(daily[k] - daily[k - 1]), len(daily[k - 1] - daily[k])]

    def test_days_outside_are_noted(self, store: QlibStore) -> None:
        chosen = TopUniverse("mine", 3, on=["2020-01-05", "2020-06-01", "2030-01-01"]).choose(store)
        assert chosen.notes == (
            "1 of 3 review days lie after the calendar: left out",
            "1 of 3 review days have too little history before them: the first review is on 2020-03-25",
            "1 of the members look like indices, no stocks: leave them out with --exclude SH000300",
        )

    def test_too_few_stocks_are_noted(self, store: QlibStore) -> None:
        chosen = TopUniverse("mine", 8, of="wide", exchange="SZ", min_history_days=10).choose(store)
        assert any(note.startswith("2 of 2 reviews found fewer than 8 stocks") for note in chosen.notes)

    def test_rule_and_command(self, store: QlibStore) -> None:
        rule = TopUniverse(
            "mine",
            5,
            of="wide",
            exchange="sh",
            exclude=["sh600007"],
            on=["2020-06-01"],
            buffer=0.2,
            refill=True,
        )
        chosen = rule.choose(store)
        assert chosen.size == 5
        assert chosen.rule == (
            "the top 5 stocks of wide with codes of SH without SH600007 by mean traded value (amount) over the 240 days "
            "that end 1 day before the review, picked on 2020-06-01, with a buffer of 20%; stocks with fewer than 60 days of "
            "history, or without a close for 60 days, are left out; a member that leaves between reviews is replaced "
            "by the next in rank"
        )
        assert chosen.command == (
            "qlib-ext data universe DIR mine --top 5 --by amount --of wide --exchange sh --exclude SH600007 "
            "--window-days 240 --min-history-days 60 --delay-days 1 --absent-days 60 --on 2020-06-01 --buffer 0.2 "
            "--refill"
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"top": 0}, "`top` must be at least 1, found 0"),
            ({"by": "size"}, "`by` must be one of amount, market_value, found 'size'"),
            ({"delay_days": 0}, "`delay_days` must be at least 1, found 0"),
            ({"buffer": 1.0}, r"`buffer` must lie in \[0, 1\), found 1.0"),
            ({"on": ["2020-06-01"], "every_months": 6}, "exclude each other"),
            ({"on": ["then"]}, "`on` must name days such as 2015-06-15, found 'then'"),
            ({"review_months": [13]}, r"`review_months` must lie in \[1, 12\], found 13"),
            ({"of": "mine"}, "`of` must be another universe than the one that is made"),
            ({"name": "all"}, "the name of a universe must be made of letters"),
            ({"name": "../x"}, "the name of a universe must be made of letters"),
        ],
    )
    def test_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            TopUniverse(**{"name": "mine", "top": 5} | arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"of": "wdie"}, r"has no universe 'wdie' \(did you mean wide\?\)"),
            ({"exchange": "BJ"}, "has no bars of any stock whose codes begin with BJ to choose from"),
            ({"exclude": ["SH601234"]}, "`exclude` must name codes of the store, found SH601234"),
            ({"min_history_days": 150}, "a review needs 151 days .* the store has 150"),
            (
                {"on": ["2030-01-01"]},
                "`on` must name days up to the last of the store, 2020-07-28, found 2030-01-01",
            ),
        ],
    )
    def test_stores(self, store: QlibStore, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            TopUniverse("mine", 5, **arguments).choose(store)

    def test_without_market_values(self, made: Made, tmp_path: Path) -> None:
        bare = write_store(tmp_path / "m", CALENDAR, CODES, {"close": made.close}, {})
        with pytest.raises(StoreError, match="'market_value'"):
            TopUniverse("mine", 5, by="market_value").choose(bare)


class TestRealStore:
    def test_the_stand_in_for_csi100(self, real_store: QlibStore) -> None:
        chosen = TopUniverse("csi100", 100, of="csi300", buffer=0.2, refill=True).choose(real_store)
        assert chosen.reviews is not None
        assert chosen.reviews["joined"].tolist()[:6] == [100, 3, 13, 14, 11, 9]
        sizes = daily_size(real_store.calendar, chosen.spells)
        assert set(sizes[sizes > 0]) == {100}
        assert sizes.index[sizes > 0][0] == pd.Timestamp("2010-04-06")
        assert "(close / factor x volume)" in chosen.rule
        assert not chosen.notes
