from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from qlib_ext.checks import UserError
from qlib_ext.cli.main import app
from qlib_ext.market.quality.check import check_store
from qlib_ext.market.side_data.problems import problems
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.synthetic.simulation import simulate
from qlib_ext.market.synthetic.us_sample import (
    INDEX,
    MACRO_STRENGTH,
    NEW_YORK,
    USSampleMarket,
    crisis,
    found_us_firms,
    macro_drift,
)

TINY = {"stocks": 20, "start": "2004-01-01", "end": "2004-08-01"}


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    market = USSampleMarket(seed=3, stocks=60, start="2006-01-03", end="2009-06-30")
    store, written = market.write(tmp_path_factory.mktemp("us") / "store")
    assert written
    return store


@pytest.fixture(scope="module")
def stocks(store: QlibStore) -> list[str]:
    return [code for code in store.instruments() if code != INDEX]


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"stocks": 20_001}, "`stocks` must be at most 20000, found 20001"),
            (
                {"start": "1950-01-03"},
                "`start` must lie within the known New York calendar, 1990-01-01 to",
            ),
            (
                {"end": "2000-03-01"},
                "`start` and `end` must be at least 120 trading days apart, found 41",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as caught:
            USSampleMarket(**arguments)
        assert str(caught.value).startswith(message)

    def test_there_are_codes_for_the_most_stocks(self) -> None:
        codes = found_us_firms(0, USSampleMarket.MAXIMUM_STOCKS, 130).codes
        assert len(set(codes)) == len(codes) == USSampleMarket.MAXIMUM_STOCKS
        assert codes == sorted(codes)
        assert all(len(code) == 4 and code.isalpha() and code.isupper() for code in codes)


class TestStore:
    def test_the_calendar_is_that_of_new_york(self, store: QlibStore) -> None:
        sessions = exchange_calendars.get_calendar("XNYS", start="2006-01-01", end="2009-12-31").sessions
        expected = sessions[(sessions >= "2006-01-03") & (sessions <= "2009-06-30")]
        assert list(store.calendar) == list(expected)

    def test_an_audit_finds_nothing(self, store: QlibStore) -> None:
        assert not check_store(store.root).findings
        assert not problems(store.root)

    def test_sizes_every_day(self, store: QlibStore, stocks: list[str]) -> None:
        mask = store.member_mask("sp500", stocks)
        assert set(mask.sum(axis=1)) == {50}
        everyone = store.member_mask("stocks", stocks)
        assert (everyone | ~mask).all()
        close = store.read(["close"], stocks)[0]
        assert (everyone | np.isnan(close)).all()

    def test_members_change_at_reviews_and_delistings_only(self, store: QlibStore, stocks: list[str]) -> None:
        mask = store.member_mask("sp500", stocks)
        listed = store.member_mask("stocks", stocks)
        changed = store.calendar[1:][(mask[1:] != mask[:-1]).any(axis=1)]
        delistings = store.calendar[1:][(mask[:-1] & ~listed[1:]).any(axis=1)]
        reviews = changed.difference(delistings)
        assert len(reviews) >= 3
        assert set(reviews.month) <= {3, 6, 9, 12}
        assert ((reviews.day >= 16) & (reviews.day <= 24)).all()

    def test_the_index_is_there_and_no_member(self, store: QlibStore) -> None:
        assert INDEX in set(store.membership("all")["instrument"])
        for universe in ("sp500", "stocks"):
            assert INDEX not in set(store.membership(universe)["instrument"])
        close = store.read(["close"], [INDEX])[0, :, 0]
        assert np.isfinite(close).all()

    def test_splits_lower_raw_prices_and_not_adjusted_ones(self, store: QlibStore, stocks: list[str]) -> None:
        close, factor = store.read(["close", "factor"], stocks).astype(float)
        raw = close / factor
        with np.errstate(invalid="ignore"):
            split = factor[1:] / factor[:-1] > 1.3
            assert split.sum() > 3
            assert (raw[1:][split] < raw[:-1][split]).all()
            move = np.abs(close[1:] / close[:-1] - 1)
        assert np.nanmax(move) < 0.30
        assert np.nanmax(move) > 0.15  # no daily limit of 10 %


class TestPlanted:
    @pytest.fixture(scope="class")
    def state(self, store: QlibStore) -> np.ndarray:
        return pd.read_parquet(store.root / "side" / "planted_macro.parquet")["value"].to_numpy()

    def test_a_unit_of_state_is_six_hundredths_of_a_daily_deviation_the_day_after(self) -> None:
        state = np.array([0.0, 1.0, -2.0, 0.5])
        expected = [0.0, 0.0, 0.011 * MACRO_STRENGTH, -2 * 0.011 * MACRO_STRENGTH]
        np.testing.assert_allclose(macro_drift(state), expected)

    def test_the_market_is_the_one_without_macro_and_the_drift(self) -> None:
        """Of equal seeds, what is planted is all that differs: prices react to the published state, by beta."""
        calendar = USSampleMarket(**TINY).calendar()
        firms = found_us_firms(0, 20, len(calendar))
        state = np.full(len(calendar), 2.0)
        with_it = simulate(0, firms, calendar, exchange=NEW_YORK, drift=macro_drift(state))
        without = simulate(0, firms, calendar, exchange=NEW_YORK)
        gap = np.log((with_it.close[60] * with_it.factor[60]) / (without.close[60] * without.factor[60]))
        expected = firms.beta * 60 * 2 * 0.011 * MACRO_STRENGTH
        # Two ways of a score that follows from prices part in time, so not every stock agrees to the last cent.
        assert np.nanmedian(gap / expected) == pytest.approx(1, abs=0.1)
        assert spearmanr(gap, expected, nan_policy="omit")[0] > 0.6

    def test_the_score_ranks_tradable_returns(self, store: QlibStore, stocks: list[str]) -> None:
        table = pd.read_parquet(store.root / "side" / "planted_score.parquet")
        score = table.pivot(index="datetime", columns="instrument", values="score")
        score = score.reindex(index=store.calendar, columns=stocks).to_numpy()
        close = store.read(["close"], stocks)[0].astype(float)
        daily = []
        for day in range(60, len(close) - 2):
            label = close[day + 2] / close[day + 1]
            use = np.isfinite(score[day]) & np.isfinite(label)
            daily.append(spearmanr(score[day, use], label[use])[0])
        error = np.std(daily) / np.sqrt(len(daily))
        assert np.mean(daily) == pytest.approx(0.10, abs=3 * error)

    def test_the_crisis_is_turbulent(self, store: QlibStore, stocks: list[str]) -> None:
        inside = crisis(store.calendar) > 1
        close = (
            pd.DataFrame(store.read(["close"], stocks)[0]).pct_change(fill_method=None).abs().median(axis=1)
        )
        assert close[inside].mean() > 1.5 * close[~inside].mean()
        assert store.calendar[inside][[0, -1]].strftime("%Y-%m").to_list() == ["2008-09", "2009-03"]


class TestWrite:
    def test_equal_arguments_give_equal_bits_and_another_seed_another_market(self, tmp_path: Path) -> None:
        for name, seed in (("one", 0), ("two", 0), ("three", 1)):
            USSampleMarket(seed=seed, **TINY).write(tmp_path / name)
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        one, three = contents(tmp_path / "one"), contents(tmp_path / "three")
        assert one["side/macro.parquet"] != three["side/macro.parquet"]

    def test_the_command(self, tmp_path: Path) -> None:
        out = tmp_path / "m"
        arguments = ["data", "sample", "--region", "us", "--out", str(out), "--stocks", "20"]
        arguments += ["--start", TINY["start"], "--end", TINY["end"]]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "21 instruments" in done.output
        assert "universes all, sp500, stocks" in done.output
        again = CliRunner().invoke(app, arguments)
        assert "left as it is" in again.output
        mark = json.loads((out / "side" / "sample.json").read_text())
        assert (mark["region"], mark["stocks"]) == ("us", 20)
        assert "--region us --seed 0 --stocks 20" in (out / "side" / "README.md").read_text()

    def test_the_other_region_replaces_it(self, tmp_path: Path) -> None:
        USSampleMarket(**TINY).write(tmp_path / "m")
        store, written = SampleMarket(stocks=20, start="2014-01-01", end="2014-08-01").write(tmp_path / "m")
        assert written
        assert "csi300" in store.universes()

    def test_an_unknown_region(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["data", "sample", "--region", "uk", "--out", str(tmp_path / "m")])
        assert isinstance(done.exception, UserError) or "`region` must be one of cn, us" in done.output
