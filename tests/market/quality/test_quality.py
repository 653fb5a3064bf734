from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.codes import is_index, region
from qlib_ext.market.finding import SEVERITIES, Findings, Kind
from qlib_ext.market.quality.check import KINDS, QualityReport, check_store
from qlib_ext.market.quality.cross_section import neighbour_median
from qlib_ext.market.quality.prices import price_limit
from qlib_ext.market.quality.repair import repair
from qlib_ext.market.quality.series import Series, last_before, run_lengths, runs
from qlib_ext.market.quality.source import Block, Source, parse_day
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

REAL = Path(__file__).parents[4] / "shared" / "market" / "cn"


class TestNoFalseAlarm:
    @pytest.mark.parametrize(
        ("seed", "stocks", "start", "end"),
        [
            (0, 430, "2010-01-04", "2020-12-31"),  # the default market
            (1, 20, "2014-01-02", "2014-12-31"),
            (2, 33, "2018-03-01", "2019-02-28"),
            (3, 60, "2010-01-04", "2011-06-30"),
            (8, 25, "2019-08-01", "2020-03-01"),  # no season of dividends: no factor moves
        ],
    )
    def test_the_sample_market_is_clean(
        self, tmp_path: Path, seed: int, stocks: int, start: str, end: str
    ) -> None:
        SampleMarket(seed=seed, stocks=stocks, start=start, end=end).write(tmp_path / "m")
        found = check_store(tmp_path / "m")
        assert [finding.message for finding in found.findings] == []
        assert not found.has_errors

    def test_so_is_a_market_without_limits(self, clean_us: Path) -> None:
        assert [finding.message for finding in check_store(clean_us, benchmark="AAX").findings] == []


class TestAnswer:
    def test_facts_of_the_store(self, clean: Path) -> None:
        assert check_store(clean).store == {
            "root": str(clean),
            "days": 302,
            "first_day": "2014-01-02",
            "last_day": "2015-03-31",
            "instruments": 23,
            "indices": ["SH000016", "SH000300", "SH000903"],
            "fields": ["amount", "change", "close", "factor", "high", "low", "open", "volume", "vwap"],
            "universes": ["all", "csi100", "csi300", "sse50"],
            "region": "cn",
            "calendar_agreement": 1.0,
        }

    def test_it_survives_json(self, market) -> None:  # type: ignore[no-untyped-def]
        code = market.stocks[0]
        market.set(code, "close", 50, -1.0)
        found = market.audit()
        again = QualityReport.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
        assert again == found
        assert again.kinds == KINDS
        assert found.counts["error"] == len(found.of("price-negative")) == 1

    def test_errors_come_first_and_kinds_together(self, market) -> None:  # type: ignore[no-untyped-def]
        one, other = market.stocks[:2]
        market.text("features/notes.txt", "a note")
        market.set(other, "factor", 70, np.nan)
        market.set(other, "open", 50, -1.0)
        market.set(one, "open", 60, np.inf)
        market.set(other, "open", 60, np.inf)
        kinds = [finding.kind for finding in market.audit().findings]
        assert kinds == ["value-infinite", "value-infinite", "price-negative", "factor-missing", "stray-file"]
        severities = [finding.severity for finding in market.audit().findings]
        assert severities == sorted(severities, key=SEVERITIES.index)

    def test_a_fault_of_many_days_is_one_finding_with_its_first(self, market) -> None:  # type: ignore[no-untyped-def]
        code = market.stocks[0]
        market.set(code, "open", slice(80, 90), 0.0)
        (finding,) = market.audit().findings
        assert (finding.date, finding.count) == (market.days[80], 10)
        assert finding.message == f"{code} {market.days[80]}: open is 0 (on 10 days)"
        assert finding.fix == "replaces it by NaN"

    def test_a_fault_of_the_whole_market_is_not_told_for_each_stock(self, market) -> None:  # type: ignore[no-untyped-def]
        for code in market.stocks:
            market.scale(code, slice(100, None), 0.6)
            market.settle(code)
        lone = market.stocks[0]
        market.scale(lone, slice(150, None), 0.5)
        market.settle(lone)
        found = market.audit()
        assert [finding.kind for finding in found.findings] == [
            "jump-unexplained",
            "market-jump",
            "price-off-tick",
        ]
        assert (found.findings[0].instrument, found.findings[0].date) == (lone, market.days[150])
        assert found.findings[0].count == 1

    def test_one_universe_alone(self, market) -> None:  # type: ignore[no-untyped-def]
        market.text("instruments/sse50.txt", "")
        assert market.audit(universe="csi300").findings == ()
        assert [finding.kind for finding in market.audit(universe="sse50").findings] == ["universe-empty"]

    def test_a_benchmark_that_is_a_stock_is_checked_like_an_index(self, market) -> None:  # type: ignore[no-untyped-def]
        code = market.stocks[0]
        for path in (market.root / "features" / code.lower()).iterdir():
            market.set(code, path.name.split(".")[0], 100, np.nan)
        market.settle(code)
        assert market.audit().findings == ()
        (finding,) = market.audit(benchmark=code.lower()).findings
        assert (finding.kind, finding.instrument, finding.date) == ("benchmark-gap", code, market.days[100])

    def test_a_universe_narrows_to_what_a_run_on_it_sees(self, market) -> None:  # type: ignore[no-untyped-def]
        code, other = market.stocks[:2]
        last = market.days[-1]
        market.set_rows("mine", [[each, market.days[0], last] for each in market.stocks if each != code])
        for each in (code, other):
            market.set(each, "close", 100, -1.0)
        found = market.audit(universe="mine")
        assert {finding.instrument for finding in found.findings} == {other}
        assert found.store["left_out"] == len(market.audit().findings) - len(found.findings) > 0
        seen = market.audit(universe="mine", benchmark=code.lower()[2:])
        assert {finding.instrument for finding in seen.findings} == {code, other}

    def test_progress_reaches_its_end(self, clean: Path) -> None:
        calls: list[tuple[int, int, str]] = []
        check_store(clean, progress=lambda *call: calls.append(call))
        assert calls[-1] == (23, 23, "stocks")

    def test_nothing_is_written(self, market) -> None:  # type: ignore[no-untyped-def]
        before = {path: path.stat().st_mtime_ns for path in market.root.rglob("*")}
        market.audit()
        assert {path: path.stat().st_mtime_ns for path in market.root.rglob("*")} == before

    def test_no_directory_is_a_mistake_of_the_user(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="found no directory at"):
            check_store(tmp_path / "nothing")

    def test_a_kind_that_is_not_declared_is_a_mistake_of_the_check(self) -> None:
        with pytest.raises(KeyError):
            Findings([Kind("a", "note", "b", "c")]).add("d", "message")


class TestBrokenStores:
    """Whatever lies there, the audit answers."""

    def test_an_empty_directory(self, tmp_path: Path) -> None:
        found = check_store(tmp_path)
        assert [finding.file for finding in found.of("store-part-missing")] == [
            "calendars/day.txt",
            "features",
            "instruments",
        ]
        assert found.has_errors
        assert found.store["days"] == 0
        assert found.store["region"] is None

    def test_without_a_calendar_files_are_checked_all_the_same(self, market) -> None:  # type: ignore[no-untyped-def]
        (market.root / "calendars" / "day.txt").unlink()
        market.bytes(market.file("SH000300", "open"), b"abc")
        kinds = {finding.kind for finding in market.audit().findings}
        assert kinds == {"store-part-missing", "calendar-empty", "bin-not-float32"}

    def test_names_that_are_no_text(self, market) -> None:  # type: ignore[no-untyped-def]
        strange = bytes(market.root / "features") + b"/sh\xff\n600000"
        try:
            Path(strange.decode("utf-8", "surrogateescape")).mkdir()
        except OSError:
            pytest.skip("this file system refuses such names")
        (finding,) = market.audit().findings
        assert finding.kind == "folder-empty"
        assert json.dumps(finding.message).isascii()
        finding.message.encode("utf-8")
        assert finding.message.isprintable()

    def test_links_that_lead_nowhere_or_in_a_circle(self, market) -> None:  # type: ignore[no-untyped-def]
        path = market.path("SH000300", "open")
        path.unlink()
        path.symlink_to(market.root / "nowhere")
        circle = market.root / "features" / "sz300999"
        circle.symlink_to(circle)
        (market.root / "instruments" / "few.txt").symlink_to(market.root / "nowhere")
        kinds = {(finding.kind, finding.file) for finding in market.audit().findings}
        assert ("unreadable-file", "features/sh000300/open.day.bin") in kinds
        assert ("stray-file", "features/sz300999") in kinds
        assert ("unreadable-file", "instruments/few.txt") in kinds

    @pytest.mark.parametrize("seed", range(12))
    def test_random_damage(self, sample_store: Path, tmp_path: Path, seed: int) -> None:
        root = tmp_path / "store"
        shutil.copytree(sample_store, root)
        rng = np.random.default_rng(seed)
        damaged = [damage(root, rng) for _ in range(10)]
        found = check_store(root, benchmark="SH000300")
        assert found.findings, damaged
        json.dumps(found.to_json(), allow_nan=False)
        repaired = repair(root, tmp_path / "fixed", found)
        assert repaired.after.counts["error"] <= found.counts["error"] + 10  # what NaN brings to light


def damage(root: Path, rng: np.random.Generator) -> str:
    """Spoil one file or folder below `root` at random, small ones as often as the many bins; say what was done."""
    groups = [
        [root / "calendars" / "day.txt"],
        sorted((root / "instruments").iterdir()),
        sorted((root / "side").iterdir()),
        sorted(path for path in (root / "features").rglob("*.bin") if path.is_file()),
    ]
    files = [path for path in groups[rng.choice(4, p=[0.1, 0.15, 0.15, 0.6])] if path.is_file()]
    if not files:
        return "nothing"
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    how = rng.integers(7)
    if how == 0:
        path.write_bytes(content[: rng.integers(len(content) + 1)])
    elif how == 1:
        for at in rng.integers(0, len(content), min(len(content), 200)):
            content[at] = rng.integers(256)
        path.write_bytes(content)
    elif how == 2:
        at = rng.integers(len(content) + 1)
        path.write_bytes(content[:at] + rng.bytes(int(rng.integers(1, 50))) + content[at:])
    elif how == 3:
        path.write_bytes(rng.bytes(len(content)))
    elif how == 4:
        path.unlink()
        path.mkdir()
    elif how == 5:
        path.write_bytes(content * 2)
    else:
        path.rename(path.with_name(path.name.upper() if rng.random() < 0.5 else f"{path.name}~"))
    return f"{path.relative_to(root)}: {how}"


class TestRealStore:
    """What is known of the A-share bars: facts that a person has looked at."""

    @pytest.fixture(scope="class")
    def found(self) -> QualityReport:
        if not REAL.is_dir():
            pytest.skip("the real store ../shared/market/cn is not on this machine")
        return check_store(REAL)

    def test_the_members_without_bars(self, found: QualityReport) -> None:
        without = found.of("membership-without-bars")
        store = QlibStore(REAL)
        bars = set(store.instruments())
        assert {finding.instrument for finding in without} == {
            code for code in store.membership("csi300")["instrument"] if code not in bars
        }
        assert len(without) == 38

    def test_change_is_in_percent_everywhere(self, found: QualityReport) -> None:
        (finding,) = found.of("change-in-percent")
        assert finding.count == 647

    def test_suspended_days_carry_the_close(self, found: QualityReport) -> None:
        (finding,) = found.of("suspension-carried")
        store = QlibStore(REAL)
        volume = store.read(["volume"], store.instruments())[0]
        assert 0.99 * (volume == 0).sum() < finding.count < (volume == 0).sum()

    def test_factors_that_moved_without_the_price(self, found: QualityReport) -> None:
        # Each is confirmed by `change`, which comes from the vendor's raw prices.
        assert [(finding.instrument, finding.date) for finding in found.of("factor-jump")] == [
            ("SH600633", "2020-11-25"),
            ("SH600654", "2020-11-25"),
            ("SH600655", "2020-11-25"),
            ("SZ000001", "2020-12-31"),
            ("SZ002466", "2020-01-02"),
        ]
        doubted = {finding.instrument for finding in found.of("change-inconsistent")}
        assert {finding.instrument for finding in found.of("factor-jump")} <= doubted

    def test_new_members_are_missing_until_the_next_review(self, found: QualityReport) -> None:
        assert "276 on the median day" in found.of("universe-size")[0].message
        assert found.of("universe-size-jump")[0].date == "2013-06-18"

    def test_nothing_else_is_an_error(self, found: QualityReport) -> None:
        assert {finding.kind for finding in found.findings if finding.severity == "error"} == {"factor-jump"}
        assert {finding.kind for finding in found.findings if finding.severity == "note"} == {
            "field-optional-missing",
            "suspension-carried",
            "gap-long",
        }
        assert found.store["calendar_agreement"] == 1.0


class TestReading:
    @pytest.mark.parametrize(
        ("text", "day", "plain"),
        [
            ("2014-02-28", "2014-02-28", True),
            ("20140228", "2014-02-28", False),
            ("2014/2/28", "2014-02-28", False),
            ("2014-2-28", "2014-02-28", False),
            ("2014-02-28 15:00:00", "2014-02-28", False),
            ("2014-02-28T00:00:00+08:00", "2014-02-28", False),
            ("2014-02-30", None, False),
            ("0000-01-01", None, False),
            ("28.02.2014", None, False),
            ("NaT", None, False),
            ("", None, False),
        ],
    )
    def test_days(self, text: str, day: str | None, plain: bool) -> None:
        parsed, canonical = parse_day(text)
        assert (None if np.isnat(parsed) else str(parsed), canonical) == (day, plain)

    def test_regions_and_indices(self) -> None:
        assert region(["SH600000", "SZ000001", "BJ830799"]) == "cn"
        assert region(["AAPL", "BRK.B", "BF-B"]) == "us"
        assert region(["7203.T", "0700.HK"]) is None
        assert region([]) is None
        assert [is_index(code) for code in ("SH000300", "SZ399006", "^GSPC", "SZ000300", "SH600000")] == [
            True,
            True,
            True,
            False,
            False,
        ]

    def test_bins_are_read_as_the_store_reads_them(self, clean: Path) -> None:
        store, source = QlibStore(clean), Source(clean)
        (block,) = source.blocks()
        assert block.codes == store.instruments()
        for field, values in block.values.items():
            np.testing.assert_array_equal(values, store.read([field], block.codes)[0].T)


class TestSeries:
    """Returns, gaps and runs against plain loops."""

    CLOSE = np.array(
        [
            [1.0, 2.0, np.nan, np.nan, 3.0, -1.0, 6.0],
            [np.nan, np.nan, 5.0, 5.0, 5.0, 4.0, np.inf],
            [np.nan] * 7,
        ]
    )
    VOLUME = np.array([[1.0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 7, 1], [np.nan] * 7])

    @pytest.fixture
    def series(self, tmp_path: Path) -> Series:
        values = {"close": self.CLOSE.astype(np.float32), "volume": self.VOLUME.astype(np.float32)}
        folders = Source(tmp_path).folders
        assert folders == []
        return Series(Block((None,) * 3, values, ({}, {}, {})))  # type: ignore[arg-type]

    def test_a_return_compares_with_the_last_close_that_counts(self, series: Series) -> None:
        expected = np.full((3, 7), np.nan)
        for stock in range(3):
            last = np.nan
            for day in range(7):
                close = self.CLOSE[stock, day]
                if np.isfinite(close) and close > 0:
                    expected[stock, day] = np.log(close / last)
                    last = close
        np.testing.assert_allclose(series.log_return, expected, atol=1e-7)

    def test_gaps_count_from_the_last_trade(self, series: Series) -> None:
        assert series.gap[0].tolist() == [0, 1, 1, 2, 3, 1, 2]
        assert series.gap[1].tolist() == [0, 0, 0, 1, 2, 3, 1]
        assert series.gap[2].tolist() == [0] * 7

    def test_the_last_position_before(self) -> None:
        mask = np.array([[False, True, False, True, True]])
        assert last_before(mask).tolist() == [[-1, -1, 1, 1, 3]]
        assert last_before(np.zeros((2, 0), bool)).shape == (2, 0)

    def test_runs(self) -> None:
        mask = np.array([[True, True, False, True, True, True], [False, True, False, True, False, True]])
        assert run_lengths(mask).tolist() == [[1, 2, 0, 1, 2, 3], [0, 1, 0, 1, 0, 1]]
        assert runs(mask, 2) == [(0, 3, 3, 2)]

    def test_the_median_of_the_days_around(self) -> None:
        counts = np.random.default_rng(0).integers(0, 50, 40)
        expected = [
            np.median([counts[other] for other in range(max(0, day - 3), min(40, day + 4)) if other != day])
            for day in range(40)
        ]
        np.testing.assert_array_equal(neighbour_median(counts, 3), expected)
        assert neighbour_median(np.array([7]), 3).tolist() == [0.0]


class TestLimits:
    DAYS = np.array(["2020-08-21", "2020-08-24"], dtype="M8[D]")

    @pytest.mark.parametrize(
        ("code", "limits"),
        [
            ("SH600000", [0.1, 0.1]),
            ("SZ002001", [0.1, 0.1]),
            ("SZ300750", [0.1, 0.2]),
            ("SH688981", [0.2, 0.2]),
            ("BJ830799", [np.nan, np.nan]),  # the exchange opened in 2021
            ("SZ159915", [0.2, 0.2]),
            ("SH000300", [0.2, 0.2]),
        ],
    )
    def test_each_board_has_its_own(self, code: str, limits: list[float]) -> None:
        np.testing.assert_array_equal(price_limit(code, self.DAYS), limits)

    @pytest.mark.parametrize(
        ("code", "listed", "limits"),
        [
            ("SZ300999", "2020-10-15", [np.nan] * 5 + [0.2] * 2),
            ("SZ300777", "2019-05-06", [0.44] + [0.1] * 6),  # before the registration system
            ("SH688001", "2019-07-22", [np.nan] * 5 + [0.2] * 2),
            ("SH601061", "2023-04-10", [np.nan] * 5 + [0.1] * 2),
            ("SH601059", "2023-02-01", [0.44] + [0.1] * 6),
        ],
    )
    def test_the_first_days_of_a_listing(self, code: str, listed: str, limits: list[float]) -> None:
        days = np.arange(np.datetime64(listed) - 1, np.datetime64(listed) + 7)
        np.testing.assert_array_equal(price_limit(code, days, 1)[1:], limits)
        assert not np.isnan(
            price_limit(code, days)[2:]
        ).any()  # a first bar on the first day of all is no listing

    @pytest.mark.parametrize(("day", "kinds"), [(3, set()), (8, {"price-spike"})])
    def test_a_spike_in_the_first_days_is_none(self, market, day: int, kinds: set[str]) -> None:  # type: ignore[no-untyped-def]
        """A third up and back: no limit holds a new share of ChiNext, and it did so under the registration system."""
        stretched = pd.bdate_range("2021-01-04", periods=len(market.days)).strftime("%Y-%m-%d")
        code = next(code for code in market.stocks if code.startswith("SZ30"))
        for field in ("open", "high", "low", "close", "vwap", "volume", "amount", "factor", "change"):
            path = market.path(code, field)
            _, values = market.read(path)
            market.write(path, 100, values[100:])
        for name in ("csi300", "all"):
            rows = [
                [row[0], *(stretched[market.days.index(day)] for day in row[1:])] for row in market.rows(name)
            ]
            market.set_rows(name, rows)
        market.set_days(list(stretched))
        market.scale(code, slice(100 + day, 101 + day), 1.33)
        market.settle(code)
        found = {finding.kind for finding in market.audit(universe="csi300").of("price-spike")}
        found |= {finding.kind for finding in market.audit().of("price-spike")}
        assert found == kinds

    @pytest.mark.parametrize(
        ("move", "kinds"), [(1.095, []), (1.13, ["price-limit"]), (1.17, ["jump-unexplained"])]
    )
    def test_moves_up_to_the_limit_and_beyond(self, market, move: float, kinds: list[str]) -> None:  # type: ignore[no-untyped-def]
        code = next(code for code in market.stocks if not code.startswith("SZ30"))
        close = market.row(code, "close")
        market.scale(code, slice(100, None), move * close[99] / close[100])
        market.settle(code)
        found = {finding.kind for finding in market.audit().findings}
        assert found - {"price-off-tick"} == set(kinds)  # a price made up like this is rarely a whole cent


class TestJumpsWithoutLimits:
    """News and missing splits look different: by the money traded, and by the range of the day."""

    def test_a_split_that_factor_explains_is_none(self, us_market) -> None:  # type: ignore[no-untyped-def]
        us_market.scale("AAX", slice(100, None), 2.0, ("factor",))
        us_market.settle("AAX")
        # Adjusted prices go on as they were, and the factor doubles: the raw price must have halved, and did.
        found = us_market.audit()
        assert [finding.kind for finding in found.findings] == []

    def test_a_missing_split(self, us_market) -> None:  # type: ignore[no-untyped-def]
        us_market.scale("AAX", slice(100, None), 0.5)
        us_market.scale("AAX", slice(100, None), 2.0, ("volume",))
        us_market.settle("AAX")
        (finding,) = us_market.audit().findings
        assert (finding.kind, finding.instrument, finding.date) == (
            "jump-unexplained",
            "AAX",
            us_market.days[100],
        )

    def test_a_crash(self, us_market) -> None:  # type: ignore[no-untyped-def]
        us_market.scale("AAX", slice(100, None), 0.5)
        us_market.set("AAX", "high", 100, us_market.row("AAX", "high")[100] * 1.5)
        us_market.settle("AAX")
        (finding,) = us_market.audit().findings
        assert (finding.kind, finding.instrument, finding.date) == ("jump-large", "AAX", us_market.days[100])

    def test_a_wrong_price_of_one_day(self, us_market) -> None:  # type: ignore[no-untyped-def]
        us_market.scale("AAX", slice(100, 101), 0.5)
        us_market.settle("AAX")
        (finding,) = us_market.audit().findings
        assert (finding.kind, finding.instrument, finding.date) == ("price-spike", "AAX", us_market.days[100])


class TestWhatTheStoreKnows:
    """What `import.json` says comes before what codes look like."""

    def imported(self, market: Any, **settings: Any) -> set[str]:
        market.text("import.json", json.dumps({"settings": settings}))
        return {finding.kind for finding in market.audit().findings}

    def test_the_exchange_of_the_import(self, us_market) -> None:  # type: ignore[no-untyped-def]
        paris = exchange_calendars.get_calendar("XPAR", start="2010-01-04", end="2012-12-31").sessions
        days = paris.strftime("%Y-%m-%d")[: len(us_market.days)].tolist()
        us_market.set_rows("stocks", [[row[0], days[0], days[-1]] for row in us_market.rows("stocks")])
        us_market.set_rows("all", [[row[0], days[0], days[-1]] for row in us_market.rows("all")])
        us_market.set_days(days)
        assert {finding.kind for finding in us_market.audit().findings} == {
            "calendar-extra-session",
            "calendar-missing-day",
        }
        assert self.imported(us_market, exchange="XPAR") == set()
        assert self.imported(us_market, exchange="XNYS", calendar="data") == set()
        assert "calendar-missing-day" in self.imported(us_market, exchange="XNYS")
        assert "calendar-missing-day" in self.imported(us_market, exchange="NOWHERE", calendar=7)
        us_market.text("import.json", "[1]")
        assert "calendar-missing-day" in {finding.kind for finding in us_market.audit().findings}

    @pytest.mark.parametrize("field", ["vwap", "volume", "amount"])
    def test_an_index_need_not_have_what_is_its_members(self, us_market, field: str) -> None:  # type: ignore[no-untyped-def]
        us_market.path("AAX", field).unlink()
        assert "field-missing" in self.imported(us_market, benchmarks=[])
        assert "field-missing" not in self.imported(us_market, benchmarks=["AAX"])

    def test_a_list_of_st_names_few_and_sometimes_none(self, market) -> None:  # type: ignore[no-untyped-def]
        days, codes = market.days, market.stocks
        rows = [[code, days[20], days[50]] for code in codes[:8]] + [[codes[0], days[100], days[150]]]
        market.set_rows("st", rows)
        assert market.audit().findings == ()
        market.set_rows("best", rows)
        kinds = {finding.kind for finding in market.audit().findings}
        assert kinds == {"universe-empty-day", "universe-range"}


class TestNominalSizes:
    def sizes(self, us_market, name: str, members: int, recorded: object = None) -> list[str]:  # type: ignore[no-untyped-def]
        rows = us_market.rows("stocks")[:members]
        us_market.set_rows(name, rows)
        if recorded is not None:
            us_market.text("universes.json", json.dumps({name: recorded}))
        return [finding.kind for finding in us_market.audit().findings]

    def test_known_names_have_known_sizes(self, us_market) -> None:  # type: ignore[no-untyped-def]
        assert self.sizes(us_market, "dow30", 12) == ["universe-size"]

    def test_what_is_recorded_comes_first(self, us_market) -> None:  # type: ignore[no-untyped-def]
        assert self.sizes(us_market, "dow30", 12, {"size": 12, "rule": ""}) == []
        assert self.sizes(us_market, "dow30", 12, {"size": None, "rule": ""}) == []

    def test_a_recorded_size_need_not_be_a_known_one(self, us_market) -> None:  # type: ignore[no-untyped-def]
        assert self.sizes(us_market, "mine", 10, {"size": 12, "rule": ""}) == ["universe-size"]

    def test_other_names_have_none(self, us_market) -> None:  # type: ignore[no-untyped-def]
        assert self.sizes(us_market, "mine", 5) == []


class TestShiftedDays:
    @pytest.mark.parametrize(("days", "told"), [(-3, "3 days early"), (1, "1 day late")])
    def test_by_how_many_days(self, us_market, days: int, told: str) -> None:  # type: ignore[no-untyped-def]
        for path in (us_market.root / "features" / "aax").iterdir():
            start, values = us_market.read(path)
            us_market.write(path, max(0, start + days), values[-min(days, 0) : len(values) - max(days, 0)])
        (finding,) = us_market.audit().of("days-shifted")
        assert finding.instrument == "AAX"
        assert told in finding.message

    def test_a_bond_moves_against_the_market_on_its_own_days(self, us_market) -> None:  # type: ignore[no-untyped-def]
        close = us_market.row("AAX", "close").astype(float)
        for field in ("open", "high", "low", "close", "vwap"):
            us_market.set("AAX", field, slice(None), 2500 / close)
        us_market.settle("AAX")
        assert us_market.audit().of("days-shifted") == []


def test_dates_of_the_clean_market_are_those_of_the_exchange(clean: Path) -> None:
    assert list(Source(clean).days.astype(str)) == list(
        pd.DatetimeIndex(QlibStore(clean).calendar).strftime("%Y-%m-%d")
    )
