"""Each calendar against its rule in plain words, and what all of them keep to."""

import inspect

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.config.build import build, classes_in
from qlib_ext.portfolio import calendars
from qlib_ext.portfolio.calendars.any_of import AnyOf
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance
from qlib_ext.portfolio.calendars.daily import Daily
from qlib_ext.portfolio.calendars.drift_band import DriftBand
from qlib_ext.portfolio.calendars.every_n_days import EveryNDays
from qlib_ext.portfolio.calendars.monthly import Monthly
from qlib_ext.portfolio.calendars.quarterly import Quarterly
from qlib_ext.portfolio.calendars.signal_change import SignalChange
from qlib_ext.portfolio.calendars.weekly import WEEKS, Weekly
from qlib_ext.portfolio.calendars.yearly import Yearly

# Three years of weekdays without a New Year's week, without a Monday and without the first of a month.
DAYS = pd.bdate_range("2019-01-02", "2021-12-31").drop(
    pd.to_datetime(
        [*pd.bdate_range("2019-12-30", "2020-01-03"), "2019-03-04", "2019-05-01", "2019-10-01", "2021-01-01"]
    )
)
STILL = SinceRebalance(
    held=np.array([0.6, 0.4]),
    targets=np.array([0.6, 0.4]),
    score=np.array([2.0, 1.0]),
    score_then=np.array([2.0, 1.0]),
)
EVERY = [
    Daily(),
    Weekly(),
    Weekly(begins="thursday"),
    Monthly(),
    Quarterly(),
    Yearly(),
    EveryNDays(days=7, phase=3),
    DriftBand(band=0.1),
    SignalChange(change=0.5),
    AnyOf(calendars=[Monthly(), DriftBand(band=0.1)]),
]


def rebalances(calendar, since=STILL, days=DAYS):
    """The days on which an account that trades whenever it is due does so."""
    found, last = [], None
    for place, day in enumerate(days):
        if calendar.due(day, last, days[: place + 1], since):
            found.append(day)
            last = day
    return pd.DatetimeIndex(found)


class TestLaws:
    def test_every_calendar_is_here(self):
        assert {type(each) for each in EVERY} == {
            each for each in classes_in(calendars, Calendar) if not inspect.isabstract(each)
        }

    @pytest.mark.parametrize("calendar", EVERY, ids=repr)
    def test_the_first_rebalance_is_due_at_once(self, calendar):
        assert calendar.due(DAYS[5], None, DAYS[:6], STILL) is True

    @pytest.mark.parametrize("calendar", EVERY, ids=repr)
    def test_it_is_built_from_yaml(self, calendar):
        kind = type(calendar)
        kwargs = dict(calendar._given[1])
        again = build(
            {"class": f"{kind.__module__}.{kind.__name__}", "kwargs": kwargs}, Calendar, name="calendar"
        )
        assert repr(again) == repr(calendar)


class TestPeriods:
    def test_daily(self):
        assert rebalances(Daily()).equals(DAYS)

    @pytest.mark.parametrize(
        ("calendar", "key"),
        [
            (Weekly(), lambda day: day - pd.Timedelta(days=day.weekday())),
            (Monthly(), lambda day: (day.year, day.month)),
            (Quarterly(), lambda day: (day.year, (day.month - 1) // 3)),
            (Yearly(), lambda day: day.year),
        ],
        ids=["week", "month", "quarter", "year"],
    )
    def test_the_first_trading_day_of_each(self, calendar, key):
        firsts = {key(day): day for day in reversed(DAYS)}
        assert list(rebalances(calendar)) == sorted(firsts.values())

    @pytest.mark.parametrize("begins", WEEKS)
    def test_a_week_begins_on_its_day(self, begins):
        found = rebalances(Weekly(begins=begins), days=pd.bdate_range("2021-03-01", "2021-06-30"))[1:]
        assert set(found.day_name().str.lower()) == {begins}

    def test_a_missed_day_is_made_up_for(self):
        monthly, days = Monthly(), DAYS[:60]
        second = days[days.month == 2]
        assert monthly.due(second[3], days[0], days, STILL)
        assert not monthly.due(second[4], second[3], days, STILL)


class TestEveryNDays:
    @pytest.mark.parametrize("phase", [0, 3, 6])
    def test_it_counts_trading_days(self, phase):
        found = DAYS.get_indexer(rebalances(EveryNDays(days=7, phase=phase)))
        assert found[0] == 0  # the account begins
        assert list(found[found > 0]) == [x for x in range(1, len(DAYS)) if x % 7 == phase]

    def test_a_missed_day_is_made_up_for(self):
        calendar = EveryNDays(days=5)
        assert calendar.due(DAYS[12], DAYS[5], DAYS[:13], STILL)
        assert not calendar.due(DAYS[14], DAYS[12], DAYS[:15], STILL)
        assert calendar.due(DAYS[15], DAYS[12], DAYS[:16], STILL)

    def test_a_phase_lies_within(self):
        with pytest.raises(UserError, match="`phase` must be below `days`, which is 5; found 5"):
            EveryNDays(days=5, phase=5)


class TestDriftBand:
    @pytest.mark.parametrize(
        ("of", "band", "due"),
        [
            ("portfolio", 0.149, True),
            ("portfolio", 0.151, False),
            ("stock", 0.149, True),
            ("stock", 0.151, False),
        ],
    )
    def test_it_measures_drift(self, of, band, due):
        targets, held = np.array([0.5, 0.3, 0.2]), np.array([0.65, 0.25, 0.1])
        since = SinceRebalance(held, targets, targets, targets)
        assert DriftBand(band=band, of=of)._again(DAYS[1], DAYS[0], DAYS[:2], since) is due

    def test_a_portfolio_and_a_stock_differ(self):
        since = SinceRebalance(np.full(4, 0.25), np.array([0.3, 0.3, 0.2, 0.2]), np.zeros(4), np.zeros(4))
        assert DriftBand(band=0.08).due(DAYS[1], DAYS[0], DAYS[:2], since)
        assert not DriftBand(band=0.08, of="stock").due(DAYS[1], DAYS[0], DAYS[:2], since)


class TestSignalChange:
    @pytest.mark.parametrize(
        ("now", "change", "due"),
        [
            ([1.0, 2.0, 3.0, 4.0], 0.0, False),
            ([10.0, 20.0, 30.0, 400.0], 0.0, False),  # ranks only
            ([2.0, 1.0, 3.0, 4.0], 0.1, True),  # of which the correlation is 0.8
            ([2.0, 1.0, 3.0, 4.0], 0.3, False),
            ([4.0, 3.0, 2.0, 1.0], 1.9, True),
            ([np.nan, 2.0, 3.0, 4.0], 0.0, False),
            ([np.nan, np.nan, np.nan, 4.0], 1.9, True),  # nothing in common
        ],
    )
    def test_it_measures_ranks(self, now, change, due):
        since = SinceRebalance(np.zeros(4), np.zeros(4), np.array(now), np.array([1.0, 2.0, 3.0, 4.0]))
        assert SignalChange(change=change).due(DAYS[1], DAYS[0], DAYS[:2], since) is due


class TestAnyOf:
    def test_one_is_enough(self):
        drifted = SinceRebalance(np.array([0.8, 0.2]), np.array([0.6, 0.4]), np.zeros(2), np.zeros(2))
        calendar = AnyOf(calendars=[Monthly(), DriftBand(band=0.1)])
        assert not calendar.due(DAYS[2], DAYS[1], DAYS[:3], STILL)
        assert calendar.due(DAYS[2], DAYS[1], DAYS[:3], drifted)
        assert list(rebalances(calendar)) == list(rebalances(Monthly()))

    @pytest.mark.parametrize("calendars", [[], "monthly", None])
    def test_it_needs_a_list(self, calendars):
        with pytest.raises(UserError, match="`calendars` must be a list of at least one"):
            AnyOf(calendars=calendars)
