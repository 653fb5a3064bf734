"""The portfolio's sections, on what the record makes of a made-up account."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.rules.exchange_rules import read_rules
from qlib_ext.metrics.portfolio_series import paths, series_of
from qlib_ext.records import portfolio_tables as tables
from qlib_ext.records.backtest import summarise
from qlib_ext.records.portfolio import PortfolioRecord
from qlib_ext.report import figures, plotly_charts
from qlib_ext.report.sections.base import Section
from qlib_ext.report.sections.contributors import Contributors
from qlib_ext.report.sections.costs import Costs
from qlib_ext.report.sections.cumulative_return import CumulativeReturn
from qlib_ext.report.sections.drawdown import Drawdown
from qlib_ext.report.sections.holdings import Holdings
from qlib_ext.report.sections.months_and_years import MonthsAndYears
from qlib_ext.report.sections.return_and_risk import ReturnAndRisk
from qlib_ext.report.sections.rolling_risk import RollingRisk
from qlib_ext.tracking.artifacts import RunArtifacts

SECTIONS = (
    CumulativeReturn,
    Drawdown,
    ReturnAndRisk,
    MonthsAndYears,
    RollingRisk,
    Costs,
    Holdings,
    Contributors,
)
STOCKS, HELD = 40, 12
INDUSTRIES = ("Banks & <b>Brokers</b>", "Steel", *(f"Branch {k}" for k in range(12)))


class Portfolio(PortfolioRecord):
    """The record on a folder, with the closes of the made-up market."""

    root: Path
    close: pd.DataFrame
    names: Sequence[str] = ()

    def has(self, path: str) -> bool:
        return (self.root / path).exists()

    def load_table(self, path: str) -> pd.DataFrame:
        return pd.read_parquet(self.root / path)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        pass

    def _log(self, path: str, write: Callable[[Path], Any]) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        write(self.root / path)

    def _closes(self, codes: Sequence[str], days: pd.DatetimeIndex) -> pd.DataFrame:
        return self.close

    def _industries(
        self, codes: Sequence[str], days: pd.DatetimeIndex
    ) -> tuple[tables.Membership | None, str]:
        if not self.names:
            return None, "the store has no side data `industry`"
        place = [int(code[3:]) % len(self.names) for code in codes]
        return tables.Membership(self.names, pd.DataFrame([place] * len(days), days, codes)), ""


class _Recorder:
    def __init__(self, root: Path):
        self.root = root

    def download_artifact(self, path: str, folder: str) -> str:
        return str(self.root / path)


def account(root: Path, days: int, *, trades: bool = True, industries: bool = True) -> RunArtifacts:
    """A run whose account holds twelve stocks, two of them changed each day at the close, and pays 0.1% for it."""
    draw = np.random.default_rng(days)
    calendar = pd.bdate_range("2017-01-03", periods=days, name="datetime")
    codes = [f"SH6{k:05d}" for k in range(STOCKS)]
    market = draw.standard_t(5, days) * 0.009 + 0.0003
    moves = market[:, None] + draw.normal(0.0005, 0.015, (days, STOCKS))
    close = 10 * np.cumprod(1 + moves, axis=0)
    cash, amount, value_before = 1e8, np.zeros(STOCKS), 1e8
    daily, rows = [], []
    for d, day in enumerate(calendar):
        worth = cash + amount @ close[d]
        wanted = (np.arange(HELD) + 2 * d) % STOCKS
        new = np.zeros(STOCKS)
        if trades:
            new[wanted] = 0.95 * worth / HELD / close[d, wanted]
        traded = np.abs(new - amount) @ close[d]
        cost = 0.001 * traded
        cash, amount = worth - cost - new @ close[d], new
        total = cash + amount @ close[d]
        daily.append(
            {
                "return": worth / value_before - 1,
                "cost": cost / value_before,
                "benchmark": market[d],
                "turnover": traded / value_before,
                "account": total,
                "value": amount @ close[d],
                "cash": cash,
            }
        )
        rows += [(day, codes[k], amount[k], close[d, k]) for k in np.flatnonzero(amount)]
        value_before = total
    frame = pd.DataFrame(daily, calendar)
    held = pd.DataFrame(rows, columns=["datetime", "instrument", "amount", "price"])
    setup = {
        "start": f"{calendar[0]:%Y-%m-%d}",
        "end": f"{calendar[-1]:%Y-%m-%d}",
        "account": 1e8,
        "benchmark": "SH000300",
        "strategy": {"class": "a.Rotation", "kwargs": {"held": HELD}},
        "exchange": {
            "deal_price": "close",
            "open_cost": 0.001,
            "close_cost": 0.001,
            "min_cost": 0,
            "limit_threshold": 0.1,
        },
        "trade_unit": 100,
        "days_per_year": 243,
        "notes": [],
    }
    (root / "backtest").mkdir(parents=True)
    (root / "signal").mkdir()
    frame.to_parquet(root / "backtest" / "daily.parquet")
    held.set_index(["datetime", "instrument"]).to_parquet(root / "backtest" / "positions.parquet")
    series = series_of(frame, 243)
    paths(series).to_parquet(root / "backtest" / "series.parquet")
    summarise(series).to_csv(root / "backtest" / "summary.csv")
    (root / "backtest" / "setup.json").write_text(json.dumps(setup))
    scores = pd.DataFrame(draw.normal(size=(days, STOCKS)), calendar, codes).rename_axis(columns="instrument")
    scores.stack().rename("score").to_frame().to_parquet(root / "signal" / "predictions.parquet")
    record = Portfolio(recorder=_Recorder(root), draws=100)
    record.root, record.close = root, pd.DataFrame(close, calendar, codes)
    record.names = INDUSTRIES if industries else ()
    record._generate()
    return RunArtifacts(root)


@pytest.fixture(scope="session")
def four_years(tmp_path_factory: pytest.TempPathFactory) -> RunArtifacts:
    return account(tmp_path_factory.mktemp("account"), 972)


@pytest.fixture(
    scope="session",
    params=[(1, True), (3, True), (3, False)],
    ids=["1", "3", "3-quiet"],
)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunArtifacts:
    """Hardly any day, or no trade at all."""
    days, trades = request.param
    return account(tmp_path_factory.mktemp("odd"), days, trades=trades, industries=False)


def text(page: str) -> str:
    """What a reader sees, in one line."""
    plain = re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    return re.sub(r"\s+", " ", html.unescape(plain))


@pytest.mark.parametrize("section", SECTIONS)
class TestAll:
    def test_every_chart_is_on_the_page_and_a_picture(
        self, section: type[Section], four_years: RunArtifacts
    ) -> None:
        page, charts = section().render(four_years), section().charts(four_years)
        assert {*re.findall(r'id="chart-([^"]+)"', page)} == {*charts}
        for chart in charts.values():
            assert plotly_charts.description(chart)["traces"]
            assert chart.alt
            assert chart.caption.endswith(".")
            assert figures.to_png(figures.drawn(chart), dpi=40)[:4] == b"\x89PNG"

    def test_only_what_it_says_it_reads(
        self, section: type[Section], four_years: RunArtifacts, tmp_path: Path
    ) -> None:
        there = [path for path in section.optional if four_years.has(path)]
        for path in (*section.requires, *there):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes((four_years.root / path).read_bytes())
        assert section().render(RunArtifacts(tmp_path)) == section().render(four_years)

    def test_hardly_any_day_or_trade(self, section: type[Section], odd: RunArtifacts) -> None:
        page = section().render(odd)
        for chart in section().charts(odd).values():
            assert plotly_charts.description(chart)["traces"]
            figures.drawn(chart)
        words = text(page).lower().split()
        assert not {"nan", "nan%", "inf", "none", "nat"} & {*words}

    def test_no_word_of_the_machinery(self, section: type[Section], four_years: RunArtifacts) -> None:
        words = text(section().render(four_years)).split()
        assert not {"nan", "nan%", "None", "NaT", "inf", "portfolio_with_cost"} & {*words}


class TestCumulativeReturn:
    def test_flat_costs_are_told(self, four_years: RunArtifacts) -> None:
        page = CumulativeReturn().render(four_years)
        assert "to buy costs 0.10% of the value, to sell 0.10%, at least 0 each" in page
        assert "<details>" not in page

    def test_exchange_rules_are_told_row_by_row(self, four_years: RunArtifacts, tmp_path: Path) -> None:
        rules = read_rules("cn")
        first, last = pd.Timestamp("2019-01-02"), pd.Timestamp("2020-12-31")
        told = {"name": "cn", "market": rules.market, "digest": rules.digest}
        setup = four_years.json("backtest/setup.json")
        setup["rules"] = told | {"in_force": rules.in_force(first, last, ["main", "chinext"])}
        setup["exchange"] = {"deal_price": "open", "rules": "cn", "commission": 0.0002, "trade_unit": None}
        for path in CumulativeReturn.requires:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes((four_years.root / path).read_bytes())
        (tmp_path / "backtest" / "setup.json").write_text(json.dumps(setup))
        page = CumulativeReturn().render(RunArtifacts(tmp_path))
        assert (
            "those of the exchange rules cn (A-shares of Shanghai, Shenzhen and Beijing) by date, but for"
            in page
        )
        assert "commission 0.0002, trade_unit None." in page
        assert f"digest {rules.digest}" in page
        for cell in ("chinext", "2020-08-24", "±20%", "0% of a purchase, 0.1% of a sale"):
            assert f">{cell}</td>" in page
        assert "2023-08-28" not in page

    def test_the_lines_end_where_the_table_says(self, four_years: RunArtifacts) -> None:
        charts = CumulativeReturn().charts(four_years)
        summary = four_years.table("backtest/summary.csv")["cumulative_return"]
        lines = charts["cumulative_return"].series | charts["excess_return"].series
        ends = [line.iloc[-1] - 1 for line in lines.values()]
        np.testing.assert_allclose(ends, summary, rtol=1e-9)

    def test_a_logarithmic_axis_is_offered_while_there_is_something_left(
        self, four_years: RunArtifacts, tmp_path: Path
    ) -> None:
        assert CumulativeReturn().charts(four_years)["cumulative_return"].log_choice
        lost = four_years.table("backtest/daily.parquet")
        lost.iloc[500, lost.columns.get_loc("return")] = -1 + lost["cost"].iloc[500]
        for path in CumulativeReturn.requires:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes((four_years.root / path).read_bytes())
        paths(series_of(lost, 243)).to_parquet(tmp_path / "backtest" / "series.parquet")
        assert not CumulativeReturn().charts(RunArtifacts(tmp_path))["cumulative_return"].log_choice


class TestDrawdown:
    def test_the_ten_deepest_with_their_days(self, four_years: RunArtifacts) -> None:
        page = text(Drawdown().render(four_years))
        table = pd.read_csv(four_years.root / "portfolio" / "drawdowns.csv", index_col=0)
        own = table.loc[["portfolio_with_cost"]]
        assert len(own) == 10
        for _, fall in own.iterrows():
            depth = f"{100 * fall['depth']:.2f}%".replace("-", "−")
            recovery = fall["recovery"] if isinstance(fall["recovery"], str) else "not yet"
            peak = fall["peak"] if isinstance(fall["peak"], str) else "the start"
            assert f"{depth} {peak} {fall['trough']} {recovery}" in page

    def test_one_that_never_fell(self, four_years: RunArtifacts, tmp_path: Path) -> None:
        for path in Drawdown.requires:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes((four_years.root / path).read_bytes())
        falls = four_years.table("portfolio/drawdowns.csv")
        falls[falls.index != "benchmark"].to_csv(tmp_path / "portfolio" / "drawdowns.csv")
        assert Drawdown().render(RunArtifacts(tmp_path)).count("It never fell below a peak.") == 1


class TestReturnAndRisk:
    def test_every_figure_and_how_it_is_computed(self, four_years: RunArtifacts) -> None:
        page = text(ReturnAndRisk().render(four_years))
        metrics = four_years.table("portfolio/metrics.csv")
        for _, row in metrics.iterrows():
            assert page.count(row["name"]) >= 2  # in its table, and where it is explained
            assert row["how"] in page
        sharpe = metrics.loc["sharpe_ratio"]
        low, high = (f"{sharpe[f'portfolio_with_cost_{end}']:.2f}" for end in ("low", "high"))
        said = f"{sharpe['portfolio_with_cost']:.2f} {low} to {high}".replace("-", "−")
        assert f"Sharpe ratio {said}" in page

    def test_few_days_have_no_intervals_to_show(self, odd: RunArtifacts) -> None:
        if odd.json("portfolio/setup.json")["days"] == 1:
            assert "interval" not in re.findall(r'<th scope="col"[^>]*>([^<]*)', ReturnAndRisk().render(odd))


class TestMonthsAndYears:
    def test_each_month_stands_in_its_place(self, four_years: RunArtifacts) -> None:
        values = MonthsAndYears().charts(four_years)["monthly_returns"].values
        months = four_years.table("portfolio/monthly.csv")["portfolio_with_cost"]
        assert [*values.columns][:2] == ["Jan", "Feb"]
        assert values.loc["2018", "Mar"] == months["2018-03"]
        assert values.notna().sum().sum() == len(months)

    def test_the_years(self, four_years: RunArtifacts) -> None:
        page = text(MonthsAndYears().render(four_years))
        years = four_years.table("portfolio/yearly.csv")
        for year, row in years.iterrows():
            own = f"{100 * row['portfolio_with_cost']:+.2f}%".replace("-", "−")
            assert f"{year} {row['days']:.0f} {own}" in page


class TestRollingRisk:
    def test_it_begins_where_the_window_is_full(self, four_years: RunArtifacts) -> None:
        charts = RollingRisk().charts(four_years)
        for chart in charts.values():
            for line in chart.series.values():
                assert len(line) == 972 - 125
                assert line.notna().all()

    def test_fewer_days_than_the_window(self, odd: RunArtifacts) -> None:
        days = odd.json("portfolio/setup.json")["days"]
        assert RollingRisk().charts(odd) == {}
        assert f"The backtest has {days} days, fewer than the 126 of a window" in RollingRisk().render(odd)


class TestCosts:
    def test_what_is_said_is_what_was_done(self, four_years: RunArtifacts) -> None:
        page, daily = text(Costs().render(four_years)), four_years.table("backtest/daily.parquet")
        assert f"{100 * daily['turnover'].mean():.2f}% of the account is bought or sold" in page
        assert "10.0 basis points of what is traded" in page
        setup = four_years.json("portfolio/setup.json")
        assert (
            f"ends below its start once a trade costs more than {setup['break_even_bps']:.1f} basis" in page
        )

    def test_the_line_passes_through_the_backtest(self, four_years: RunArtifacts) -> None:
        line = Costs().charts(four_years)["cost_sweep"].series["Return a year"]
        summary = four_years.table("backtest/summary.csv")
        own = summary.loc["portfolio_with_cost", "annualised_return"]
        assert line[10] == pytest.approx(own, abs=1e-12)

    def test_nothing_traded(self, odd: RunArtifacts) -> None:
        if odd.table("backtest/daily.parquet")["turnover"].sum() == 0:
            assert "Nothing was traded: no cost could change the return." in Costs().render(odd)


class TestHoldings:
    def test_the_figures_of_the_sentence(self, four_years: RunArtifacts) -> None:
        page = text(Holdings().render(four_years))
        assert "held 12.0 stocks, as concentrated as 12.0 of equal weight" in page
        assert "the largest 10 made up 83.3% of their value" in page

    def test_industries(self, four_years: RunArtifacts) -> None:
        page, charts = Holdings().render(four_years), Holdings().charts(four_years)
        lines = charts["industry_weights"].series
        assert len(lines) == 11  # fourteen: ten, and the rest together
        np.testing.assert_allclose(sum(lines.values()), 1)
        assert "Banks &amp; &lt;b&gt;Brokers" in page
        assert "<b>Brokers" not in page
        assert "Of all scored stocks" in page

    def test_without_industries(self, tmp_path: Path) -> None:
        page = Holdings().render(account(tmp_path, 40, industries=False))
        assert "There are no figures by industry: the store has no side data `industry`." in page
        assert "chart-industry" not in page

    def test_nothing_held(self, odd: RunArtifacts) -> None:
        if not odd.table("portfolio/holdings.parquet")["stocks"].any():
            assert "The account never held a stock." in Holdings().render(odd)
            assert "The account never held a stock." in Contributors().render(odd)


class TestContributors:
    def test_the_best_first_and_the_worst_last(self, four_years: RunArtifacts) -> None:
        bars = Contributors().charts(four_years)["contributors"].values["contribution"]
        table = four_years.table("portfolio/contributions.csv")["contribution"]
        assert len(bars) == 20
        assert bars.iloc[0] == table.max()
        assert bars.iloc[-1] == table.min()

    def test_how_it_adds_up(self, four_years: RunArtifacts) -> None:
        page = text(Contributors().render(four_years))
        assert "all contributions together are the return before cost" in page
        whole = four_years.json("portfolio/setup.json")["return_before_cost"]
        assert f"The return before cost was {100 * whole:+,.2f}%" in page.replace("−", "-")

    def test_a_price_away_from_the_close(self, four_years: RunArtifacts, tmp_path: Path) -> None:
        (tmp_path / "portfolio").mkdir()
        for path in Contributors.requires:
            (tmp_path / path).write_bytes((four_years.root / path).read_bytes())
        setup = four_years.json("portfolio/setup.json") | {"trading": -0.0123}
        (tmp_path / "portfolio" / "setup.json").write_text(json.dumps(setup))
        assert "−1.23 pp in all" in Contributors().render(RunArtifacts(tmp_path))
