"""Sector studies on a small made market: who is chosen, what is held, what the page says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib

from benchmarks.sectors import page, tables
from benchmarks.sectors.forecast_months import halves, judged
from benchmarks.sectors.forecasts import fitted, month_starts
from benchmarks.sectors.kept import Held, SectorYear, read_all
from benchmarks.sectors.methods import methods
from benchmarks.sectors.selection import Sectors, Window, windows
from benchmarks.sectors.study import Study
from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore, write_store

CALENDAR = pd.bdate_range("2015-01-01", "2018-12-31")
EACH = 6  # stocks of a sector
CODES = [f"SH6000{k:02d}" for k in range(3 * EACH)]
SECTORS = ("Banks", "Metals", "Water")
DELISTED = CODES[EACH + 1]  # in the middle of 2017


def made(root: Path, seed: int = 0) -> QlibStore:
    """Three sectors, whose stocks are the larger the lower their code; the first two banks are listed late and suspended long,
    a metal is delisted in June of 2017.
    """
    draw = np.random.default_rng(seed)
    days, stocks = len(CALENDAR), len(CODES)
    sector = np.repeat(np.arange(3), EACH)
    moves = 0.01 * draw.standard_normal((days, 3))[:, sector] + 0.015 * draw.standard_normal((days, stocks))
    close = 10 * np.exp(np.cumsum(moves, axis=0))
    volume = 1e7 * (stocks - np.arange(stocks)) / close
    close[:300, 0] = volume[:300, 0] = np.nan
    volume[100:300, 1] = 0.0
    gone = pd.Timestamp("2017-06-01") <= CALENDAR
    close[gone, CODES.index(DELISTED)] = volume[gone, CODES.index(DELISTED)] = np.nan
    bars = dict.fromkeys(("open", "high", "low", "close"), close)
    store = write_store(
        root,
        CALENDAR,
        CODES,
        {**bars, "volume": volume, "factor": np.where(np.isnan(close), np.nan, 1.0)},
        {},
    )
    (root / "side").mkdir()
    spells = {"instrument": CODES, "start": "2015-01-01", "end": None, "industry": np.array(SECTORS)[sector]}
    pd.DataFrame(spells).to_csv(root / "side" / "industry.csv", index=False)
    return store


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "DRAWS", 300)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return made(tmp_path_factory.mktemp("sectors") / "store")


@pytest.fixture(scope="module")
def sectors(store: QlibStore) -> Sectors:
    return Sectors.load(store, "all")


@pytest.fixture(scope="module")
def window() -> Window:
    (found,) = windows(CALENDAR, 2, [2017])
    return found


def test_a_window_is_whole_years_of_training_and_the_next() -> None:
    (found,) = windows(CALENDAR, 2, [2018])
    dates = CALENDAR[[found.first, found.last, found.begin, found.end]].strftime("%Y-%m-%d")
    assert [*dates] == ["2016-01-01", "2017-12-29", "2018-01-01", "2018-12-28"]
    assert found.days == (CALENDAR.year.isin([2016, 2017])).sum()


@pytest.mark.parametrize(("train", "year"), [(3, 2017), (2, 2019)])
def test_years_that_the_store_does_not_have_are_told(train: int, year: int) -> None:
    with pytest.raises(UserError, match=f"holding {year} needs bars from {year - train}"):
        windows(CALENDAR, train, [year])


class TestSelection:
    def test_the_largest_are_taken_of_those_that_could_be_known(
        self, sectors: Sectors, window: Window
    ) -> None:
        found = sectors.chosen(window, 3, 2)
        assert found.sectors == {
            "Banks": tuple(CODES[2:5]),
            "Metals": tuple(CODES[6:9]),
            "Water": tuple(CODES[12:15]),
        }
        assert found.out["not listed throughout the training"] == 1
        assert found.out["traded on fewer than 80% of its days"] == 1
        assert found.members == len(CODES)

    def test_a_sector_with_too_few_is_left_out_and_told(self, sectors: Sectors, window: Window) -> None:
        found = sectors.chosen(window, 6, 5)
        assert [*found.sectors] == ["Metals", "Water"]
        assert found.small == {"Banks": 4}

    def test_it_does_not_look_ahead(self, sectors: Sectors, window: Window) -> None:
        later = slice(window.last + 1, None)
        draw = np.random.default_rng(1)
        other = replace(
            sectors,
            **{
                name: getattr(sectors, name).copy()
                for name in ("sector", "size", "members", "traded", "close")
            },
        )
        other.sector[later] = -1
        other.size[later] = draw.random(other.size[later].shape)
        other.members[later] = other.traded[later] = False
        other.close[later] = np.nan
        assert other.chosen(window, 3, 2) == sectors.chosen(window, 3, 2)

    def test_sizes_and_sectors_are_told(self, sectors: Sectors) -> None:
        assert "median of the money traded a day" in sectors.notes[1]
        assert "industries" in sectors.notes[0]

    def test_clusters_stand_in_for_industries(self, store: QlibStore, window: Window) -> None:
        found = Sectors.load(store, "all", clusters=3).chosen(window, EACH, 3)
        truth = dict(zip(CODES, np.repeat(SECTORS, EACH), strict=True))
        groups = [{truth[code] for code in codes} for codes in found.sectors.values()]
        assert len(groups) == 3
        assert all(len(group) == 1 for group in groups)

    def test_a_store_without_industries_says_what_to_do(self, tmp_path: Path) -> None:
        bare = made(tmp_path / "bare")
        (bare.root / "side" / "industry.csv").unlink()
        with pytest.raises(UserError, match="--clusters N"):
            Sectors.load(bare, "all")


class TestStudy:
    NAMES = (tables.PLAIN, "maximum Sharpe", "equal weight, monthly")

    def study(self, sectors: Sectors, window: Window, runs: Path, **changes: Any) -> Study:
        names = changes.pop("names", self.NAMES)
        settings = {"rules": "cn", "account": 1e7, "per_year": 260.0, **changes}
        return Study(
            sectors, {window: sectors.chosen(window, 3, 3)}, methods(names=[*names]), runs, **settings
        )

    @pytest.fixture(scope="class")
    def runs(self, sectors: Sectors, window: Window, tmp_path_factory: pytest.TempPathFactory) -> Path:
        qlib.init(provider_uri=str(sectors.store.root), region="cn", kernels=1, logging_level=40)
        runs = tmp_path_factory.mktemp("runs")
        study = self.study(sectors, window, runs)
        for year, sector, some in study.left(["Banks", "Metals"]):
            study.run(year, sector, some, None)
        return runs

    def test_equal_weight_is_bought_once_and_held(self, sectors: Sectors, window: Window, runs: Path) -> None:
        banks = read_all(runs)[0]
        assert banks.codes == CODES[2:5]
        assert banks.held[tables.PLAIN].weights == dict.fromkeys(banks.codes, pytest.approx(1 / 3, abs=1e-6))
        assert banks.held[tables.PLAIN].turnover == pytest.approx(1, abs=0.002)
        close = sectors.close[window.begin : window.end + 1][:, sectors.places(banks.codes)].astype(float)
        value = (close / close[0]).mean(axis=1)
        daily = banks.daily[tables.PLAIN]
        assert -0.001 < daily.iloc[0] < 0  # what the purchase costs
        np.testing.assert_allclose(daily[1:], value[1:] / value[:-1] - 1, atol=2e-5)
        assert banks.held["equal weight, monthly"].turnover > 1.1

    def test_weights_are_of_the_training_alone(self, sectors: Sectors, window: Window, runs: Path) -> None:
        """The stocks with a mean above 0 at the highest ratio: no portfolio of a grid has a higher one."""
        banks = read_all(runs)[0]
        close = sectors.close[window.span][:, sectors.places(banks.codes)].astype(float)
        returns = close[1:] / close[:-1] - 1
        np.testing.assert_allclose(banks.mean, returns.mean(axis=0), rtol=1e-4)
        grid = np.random.default_rng(0).dirichlet([0.5] * 3, 3000)
        ratios = (grid @ returns.mean(axis=0)) / np.sqrt(
            np.einsum("mi,ij,mj->m", grid, np.cov(returns.T), grid)
        )
        weights = np.array([banks.held["maximum Sharpe"].weights.get(code, 0.0) for code in banks.codes])
        own = weights @ returns.mean(axis=0) / np.sqrt(weights @ np.cov(returns.T) @ weights)
        assert own > ratios.max() - 1e-4

    def test_a_stock_that_stops_trading_stays_at_its_last_price(
        self, sectors: Sectors, window: Window, runs: Path
    ) -> None:
        metals = read_all(runs)[1]
        assert DELISTED in metals.codes
        close = sectors.close[window.begin : window.end + 1][:, sectors.places(metals.codes)].astype(float)
        value = (pd.DataFrame(close).ffill() / close[0]).mean(axis=1).to_numpy()
        np.testing.assert_allclose(metals.daily[tables.PLAIN][1:], value[1:] / value[:-1] - 1, atol=2e-5)
        assert metals.held[tables.PLAIN].end[DELISTED] > 0.1

    def test_what_is_kept_is_not_run_again(self, sectors: Sectors, window: Window, runs: Path) -> None:
        again = self.study(sectors, window, runs)
        assert [(sector, len(some)) for _, sector, some in again.left()] == [("Water", 3)]
        more = self.study(sectors, window, runs, names=(*self.NAMES, "HRP"))
        (_, sector, some), *_ = more.left()
        assert (sector, [method.name for method in some]) == ("Banks", ["HRP"])
        other = self.study(sectors, window, runs, account=1e6)
        assert [len(some) for _, _, some in other.left()] == [3, 3, 3]

    def test_a_method_is_added_to_what_is_kept(
        self, sectors: Sectors, window: Window, runs: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
        study = self.study(sectors, window, tmp_path, names=("eigen portfolio", *self.NAMES))
        before = read_all(tmp_path)[0]
        found = study.run(*study.left(["Banks"])[0], None)
        order = [tables.PLAIN, "maximum Sharpe", "eigen portfolio", "equal weight, monthly"]  # the file's
        assert [*found.daily] == [*found.held] == order
        pd.testing.assert_series_equal(found.daily[tables.PLAIN], before.daily[tables.PLAIN])
        assert found.held["eigen portfolio"].weights.keys() == {*CODES[2:5]}

    def test_what_was_done_is_said(self, sectors: Sectors, window: Window, runs: Path) -> None:
        said = " ".join(self.study(sectors, window, runs).said())
        assert "1 not listed throughout the training" in said
        assert "at most 3 stocks" in said
        assert "median of the money traded a day" in said


class TestForecasts:
    def test_they_do_not_look_ahead(self, store: QlibStore, window: Window, tmp_path: Path) -> None:
        other = made(tmp_path / "other")
        close, volume = other.read(["close", "volume"], CODES)
        draw = np.random.default_rng(3)
        for plane in (close, volume):
            plane[window.last + 1 :] *= np.exp(draw.normal(size=plane[window.last + 1 :].shape))
        bars = dict.fromkeys(("open", "high", "low", "close"), close)
        changed = write_store(
            tmp_path / "changed", CALENDAR, CODES, {**bars, "volume": volume, "factor": close * 0 + 1}, {}
        )
        first, again = (fitted(each, "all", [window], "cn").by_year[2017] for each in (store, changed))
        np.testing.assert_array_equal(again[window.last], first[window.last])
        assert np.nanstd(first[window.last]) > 0
        assert not np.allclose(again[window.last + 5], first[window.last + 5], equal_nan=True)
        assert np.isnan(first[window.last - 1]).all()
        assert np.isnan(first[window.end]).all()

    def test_a_month_is_decided_on_at_the_last_close_before_it(self, window: Window) -> None:
        days = CALENDAR[month_starts(CALENDAR, window)]
        assert len(days) == 12
        assert days[0] == pd.Timestamp("2016-12-30")
        assert days[-1] == pd.Timestamp("2017-11-30")

    def test_what_was_forecast_stands_beside_what_came(self) -> None:
        forecast = np.array([0.03, 0.01, -0.01, -0.02, 0.02])
        one = pd.DataFrame(
            {
                "day": CALENDAR[0],
                "year": 2017,
                "instrument": CODES[:5],
                "sector": "Banks",
                "forecast": forecast,
            }
        )
        months = pd.concat([one.assign(day=day, realised=2 * forecast) for day in CALENDAR[[0, 20, 40]]])
        half = halves(months).iloc[0]  # the one in the middle belongs to neither
        assert half["forecast"] == pytest.approx(np.mean([0.03, 0.02]) - np.mean([-0.01, -0.02]))
        row = judged(months).iloc[-1]
        assert (row["year"], row["months"], row["slope"], row["RankIC, within sectors"]) == (
            "all",
            "3",
            "2.00",
            "1.000",
        )
        assert row["halves, realised"].startswith("8.00%")


def held(more: float, weights: dict[str, float], draw: np.random.Generator) -> tuple[Held, np.ndarray]:
    returns = 0.01 * draw.standard_normal(240) + more
    sample = {"return": 0.1, "volatility": 0.2, "sharpe": 0.5 + more, "drawdown": -0.1}
    return Held("c", weights, weights, sample, 1.0, 0.0005, 0.1, []), returns


@pytest.fixture
def study() -> list[SectorYear]:
    """Two sectors and years: one method that earns a tenth of a per cent more a day, and one that is equal weight again."""
    draw, found = np.random.default_rng(0), []
    for year in (2016, 2017):
        for sector in ("Banks", "Metals"):
            plain, returns = held(0.0, {"A": 0.5, "B": 0.5}, draw)
            best = Held(
                "c", {"A": 0.8, "B": 0.2}, {"A": 0.9, "B": 0.1}, plain.sample, 1.0, 0.0, 0.1, ["kept"]
            )
            days = pd.bdate_range(f"{year}-01-01", periods=240)
            daily = pd.DataFrame(
                {tables.PLAIN: returns, "more": returns + 0.001, "same": returns}, index=days
            )
            methods_held = {tables.PLAIN: plain, "more": best, "same": plain}
            correlation = [[1.0, 0.5], [0.5, 1.0]]
            found.append(
                SectorYear(
                    "s",
                    year,
                    sector,
                    ["A", "B"],
                    [0.01, 0.02],
                    [1e-4, 2e-4],
                    correlation,
                    methods_held,
                    daily,
                )
            )
    return found


class TestTables:
    def test_a_method_is_held_against_equal_weight(self, study: list[SectorYear]) -> None:
        table, daily = tables.cells(study, 240), tables.by_day(study)
        found = tables.comparison(table, daily, 240).set_index("method")
        assert found.loc["more", "more"] == pytest.approx(0.24)
        assert found.loc["more", "holm"] < 0.01
        assert found.loc["same", "holm"] == 1
        assert found.loc["more", ["wins", "calmer", "better", "of"]].tolist() == [4, 0, 4, 4]
        assert found.loc["same", ["wins", "better"]].tolist() == [0, 0]
        assert found.loc["more", "mcs"] == 1
        assert found.loc["same", "mcs"] < 0.1
        assert found.loc["more", "sharpe_low"] > 0
        assert tables.beats_plain(daily) < 0.01
        assert tables.beats_plain(daily[[tables.PLAIN, "same"]]) == 1

    def test_a_year_begins_with_what_the_last_one_left(self, study: list[SectorYear]) -> None:
        table = tables.cells(study, 240).pivot(index=["year", "sector"], columns="method", values="switch")
        assert table.loc[2016].isna().all(axis=None)
        np.testing.assert_allclose(table.loc[2017, "more"], 0.1)  # from 90% to 80%
        np.testing.assert_allclose(table.loc[2017, "same"], 0.0)

    def test_a_sector_is_judged_over_its_years(self, study: list[SectorYear]) -> None:
        found = tables.by_sector(study, 240).set_index(["sector", "method"])
        banks = pd.concat([one.daily["more"] for one in study if one.sector == "Banks"])
        assert found.loc[("Banks", "more"), "return"] == pytest.approx((1 + banks).prod() ** (240 / 480) - 1)
        assert found.loc[("Banks", "more"), "years"] == 2
        assert np.isnan(found.loc[("Banks", "same"), "p"])  # nothing differs: no comparison

    def test_sectors_that_go_on_as_before_have_momentum(self, study: list[SectorYear]) -> None:
        table = tables.cells(study, 240)
        table["train_return"] = table["return"]
        np.testing.assert_allclose(tables.rotation(table), 1)
        table["train_return"] *= -1
        assert tables.rotation(table).to_dict() == {2016: pytest.approx(-1), 2017: pytest.approx(-1)}

    def test_the_mean_over_sectors_is_of_those_of_the_day(self, study: list[SectorYear]) -> None:
        daily = tables.by_day(study)
        assert len(daily) == 480
        first = np.mean([one.daily["more"].iloc[0] for one in study if one.year == 2016])
        assert daily["more"].iloc[0] == pytest.approx(first)


def test_what_is_kept_comes_back(study: list[SectorYear], tmp_path: Path) -> None:
    for one in study:
        one.write(tmp_path)
    found = read_all(tmp_path)
    assert [(one.year, one.sector) for one in found] == [(one.year, one.sector) for one in study]
    assert found[0].held == study[0].held
    pd.testing.assert_frame_equal(
        found[0].daily, study[0].daily, atol=5e-7, check_freq=False, check_names=False
    )
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) / len(found) < 20_000


class TestPage:
    FAMILIES = {tables.PLAIN: "A", "more": "B", "same": "C", "never run": "D"}  # noqa: RUF012

    def page(self, study: list[SectorYear], out: Path) -> str:
        for one in study:
            one.write(out / "runs")
        page.write(out, title="made", command="python", said=["Ten."], families=self.FAMILIES, per_year=240)
        return (out / "README.md").read_text(encoding="utf-8")

    def test_it_says_who_beats_equal_weight(self, study: list[SectorYear], tmp_path: Path) -> None:
        text = self.page(study, tmp_path)
        assert "**more earned more than equal weight**, over 4 sectors and years (2016 to 2017)" in text
        assert "By the Sharpe ratio, more beat it" in text
        assert "- Told of 4 of 12 accounts: kept (more 4)." in text
        assert "never run" not in text
        for name in (
            "methods.csv",
            "cells.csv",
            "by_sector.csv",
            "correlations.png",
            "frontier.png",
            "weights.png",
        ):
            assert (tmp_path / name).stat().st_size > 0

    def test_it_says_so_where_none_does(self, study: list[SectorYear]) -> None:
        for one in study:
            one.daily["more"] = one.daily["same"] + 0.001 * np.where(np.arange(240) % 2, 1.0, -1.0)
        table, daily = tables.cells(study, 240), tables.by_day(study)
        compared, by_sector = tables.comparison(table, daily, 240), tables.by_sector(study, 240)
        text = page.verdict(study, compared, by_sector, tables.beats_plain(daily))
        assert "**No method earns more than equal weight beyond chance**" in text
        assert "Nor has any a higher Sharpe ratio" in text


class TestMethods:
    def test_days_are_those_of_training(self) -> None:
        assert "DAYS" not in str([method.of(700) for method in methods()])
        assert all("700" in str(method.of(700)) for method in methods())

    def test_a_mistyped_one_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(UserError, match="minimum variance"):
            methods(names=["minimum varience"])
