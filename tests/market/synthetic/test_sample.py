from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic import synthetic_market
from qlib_ext.market.synthetic.sample import INDICES, MAXIMUM_STOCKS, SampleMarket, choose_members
from qlib_ext.market.synthetic.simulation import found_firms

FIELDS = ["amount", "change", "close", "factor", "high", "low", "open", "volume", "vwap"]
TINY = {"stocks": 20, "start": "2014-01-01", "end": "2014-08-01"}

READ_WITH_QLIB = """
import json, pathlib, sys
import qlib
from qlib.data import D
root, code, out, names = sys.argv[1:]
qlib.init(provider_uri=root, region="cn", kernels=1)
fields = [f"${name}" for name in json.loads(names)] + ["Ref($close, -2) / Ref($close, -1) - 1"]
D.features([code, "SH000300"], fields).to_parquet(pathlib.Path(out) / "bars.parquet")
day = D.calendar()[400]
members = D.list_instruments(D.instruments("csi300"), start_time=day, end_time=day, as_list=True)
(pathlib.Path(out) / "members.json").write_text(json.dumps(sorted(members)))
"""


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"seed": -1}, "`seed` must be at least 0, found -1"),
            ({"seed": 1.5}, "`seed` must be an integer, found 1.5"),
            ({"stocks": 19}, "`stocks` must be at least 20, found 19"),
            ({"stocks": 7274}, "`stocks` must be at most 7273, found 7274"),
            ({"start": "soon"}, "`start` must be a day such as 2010-01-04, found 'soon'"),
            ({"end": "2020-01-01 10:00"}, "`end` must be a day such as 2010-01-04, found '2020-01-01 10:00'"),
            ({"end": None}, "`end` must be a day such as 2010-01-04, found None"),
            ({"end": "2009-12-31"}, "`start` must not be after `end`, found 2010-01-04 and 2009-12-31"),
            ({"end": "2010-03-01"}, "`start` and `end` must be at least 120 trading days apart, found 36"),
            ({"start": "1980-01-01"}, "`start` must lie within the known Shanghai calendar, 1990-12-03 to"),
        ],
    )
    def test_what_is_wrong_is_said(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as caught:
            SampleMarket(**arguments)
        assert str(caught.value).startswith(message)

    def test_the_exchanges_have_codes_for_the_most_stocks_and_for_no_more(self) -> None:
        assert len(set(found_firms(0, MAXIMUM_STOCKS, 130).codes)) == MAXIMUM_STOCKS
        with pytest.raises(ValueError, match="larger sample than population"):
            found_firms(0, MAXIMUM_STOCKS + 1, 130)

    def test_days_may_come_in_any_form(self) -> None:
        assert SampleMarket(start="20100104") == SampleMarket(start=pd.Timestamp("2010-01-04"))  # type: ignore[arg-type]


class TestCalendar:
    def test_it_is_the_real_one(self, sample: Any) -> None:
        sessions = exchange_calendars.get_calendar("XSHG").sessions
        expected = sessions[(sessions >= "2014-01-01") & (sessions <= "2016-12-31")]
        assert list(sample.store.calendar) == list(expected)

    def test_the_default_one_is_that_of_the_real_store(self, real_store: QlibStore) -> None:
        assert SampleMarket().calendar().equals(real_store.calendar)


class TestStore:
    def test_every_instrument_has_every_field(self, sample: Any) -> None:
        assert len(sample.store.instruments()) == 63
        for code in sample.store.instruments():
            assert sample.store.fields(code) == FIELDS

    def test_adjusted_is_raw_times_factor(self, sample: Any) -> None:
        market = sample.market
        for name in ("open", "high", "low", "close", "vwap"):
            np.testing.assert_allclose(sample.read(name)[0], getattr(market, name) * market.factor, rtol=1e-6)
        np.testing.assert_allclose(sample.read("volume")[0], market.volume / market.factor, rtol=1e-6)

    def test_amount_is_volume_times_vwap(self, sample: Any) -> None:
        amount, volume, vwap = sample.read("amount", "volume", "vwap")
        np.testing.assert_allclose(amount, volume * vwap, rtol=1e-6)

    def test_change_is_a_fraction_of_the_last_close(self, sample: Any) -> None:
        close, change = sample.read("close", "change")
        last = pd.DataFrame(close).ffill().shift().to_numpy()
        both = np.isfinite(close) & np.isfinite(last)
        np.testing.assert_allclose(change[both], (close / last - 1)[both], atol=1e-5)

    def test_order_survives_float32(self, sample: Any) -> None:
        bars = sample.store.read(["open", "high", "low", "close", "vwap"], sample.store.instruments())
        opened, high, low, close, vwap = bars
        there = np.isfinite(close)
        for price in (opened, close, vwap):
            assert (low <= price)[there].all()
            assert (price <= high)[there].all()

    def test_qlib_reads_the_same(self, sample: Any, tmp_path: Path) -> None:
        """The oracle of the format is Qlib, in a process of its own: it keeps one store for all of a process."""
        code = sample.stocks[0]
        arguments = [sample.store.root, code, tmp_path, json.dumps(FIELDS)]
        subprocess.run([sys.executable, "-c", READ_WITH_QLIB, *arguments], check=True)
        bars = pd.read_parquet(tmp_path / "bars.parquet")
        for name in (code, "SH000300"):
            theirs = bars.xs(name, level="instrument").reindex(sample.calendar)
            ours = sample.store.read(FIELDS, [name])[:, :, 0].T
            np.testing.assert_array_equal(theirs[[f"${field}" for field in FIELDS]].to_numpy(), ours)
            close = pd.Series(ours[:, FIELDS.index("close")].astype(float))
            label = close.shift(-2) / close.shift(-1) - 1
            np.testing.assert_allclose(theirs["Ref($close, -2) / Ref($close, -1) - 1"], label, atol=1e-5)
        members = json.loads((tmp_path / "members.json").read_text())
        mask = sample.store.member_mask("csi300", sample.stocks)
        assert members == [stock for stock, there in zip(sample.stocks, mask[400], strict=True) if there]


class TestMembers:
    def test_sizes_every_day(self, sample: Any) -> None:
        for universe, size in (("csi300", 42), ("csi100", 14), ("sse50", 12)):
            mask = sample.store.member_mask(universe, sample.stocks)
            assert set(mask.sum(axis=1)) == {size}

    def test_each_lies_where_it_should(self, sample: Any) -> None:
        masks = {name: sample.store.member_mask(name, sample.stocks) for name in INDICES}
        assert (masks["csi300"] | ~masks["csi100"]).all()
        assert (masks["csi300"] | ~masks["sse50"]).all()
        outside = [not code.startswith("SH") for code in sample.stocks]
        assert not masks["sse50"][:, outside].any()
        listed = np.isfinite(sample.market.market_value)
        assert (listed | ~masks["csi300"]).all()

    def test_they_change_at_reviews_and_delistings_only(self, sample: Any) -> None:
        mask = sample.store.member_mask("csi300", sample.stocks)
        changed = set(sample.calendar[1:][(mask[1:] != mask[:-1]).any(axis=1)])
        reviews = {
            pd.Timestamp(day)
            for day in ("2014-06-16", "2014-12-15", "2015-06-15", "2015-12-14", "2016-06-13", "2016-12-12")
        }
        listed = np.isfinite(sample.market.market_value)
        delistings = set(sample.calendar[1:][(mask[:-1] & ~listed[1:]).any(axis=1)])
        assert changed <= reviews | delistings
        assert len(changed & reviews) >= 2  # a review may find nothing to change in a market this small

    def test_indices_are_no_members_but_in_all(self, sample: Any) -> None:
        for universe in INDICES:
            assert not set(INDICES.values()) & set(sample.store.membership(universe)["instrument"])
        assert set(INDICES.values()) <= set(sample.store.membership("all")["instrument"])

    def test_nothing_after_a_day_decides_its_members(self, sample: Any) -> None:
        value, first = sample.market.market_value, sample.firms.price * sample.firms.shares
        codes = sample.firms.codes
        before = choose_members(sample.calendar, codes, value, first)
        for day in (0, 111, 112, 500):
            later = value.copy()
            later[day:] *= np.random.default_rng(day).lognormal(0, 2, value[day:].shape)
            after = choose_members(sample.calendar, codes, later, first)
            for universe, mask in before.items():
                np.testing.assert_array_equal(after[universe][: day + 1], mask[: day + 1])

    def test_the_largest_are_in(self, sample: Any) -> None:
        mask = sample.store.member_mask("csi300", sample.stocks)
        value = sample.market.market_value
        for day in (0, 300, 700):
            ranks = pd.Series(value[day]).rank(ascending=False)
            assert mask[day][(ranks <= 20).to_numpy()].mean() > 0.8

    def test_default_sizes(self) -> None:
        rng = np.random.default_rng(0)
        codes = [f"SH60{n:04d}" for n in range(230)] + [f"SZ00{n:04d}" for n in range(200)]
        value = rng.lognormal(0, 1, (130, 430))
        members = choose_members(SampleMarket().calendar()[:130], codes, value, value[0])
        assert {name: set(mask.sum(axis=1)) for name, mask in members.items()} == {
            "csi300": {300},
            "csi100": {100},
            "sse50": {50},
        }


class TestIndices:
    @pytest.mark.parametrize(("universe", "code"), INDICES.items())
    def test_against_a_naive_loop(self, sample: Any, universe: str, code: str) -> None:
        mask = sample.store.member_mask(universe, sample.stocks)
        value, close = sample.market.market_value, 1000.0
        index = sample.store.read(["close", "change"], [code])[:, :, 0]
        first = sample.firms.price * sample.firms.shares
        for day in range(len(value)):
            before = first if day == 0 else value[day - 1]
            members = np.flatnonzero(mask[day])
            growth = sum(value[day, s] for s in members) / sum(before[s] for s in members)
            close *= growth
            assert index[0, day] == pytest.approx(close, rel=1e-5)
            assert index[1, day] == pytest.approx(growth - 1, abs=1e-6)

    def test_they_have_a_bar_every_day(self, sample: Any) -> None:
        bars = sample.store.read(FIELDS, list(INDICES.values()))
        assert np.isfinite(bars).all()
        assert (bars[FIELDS.index("volume")] > 0).all()


class TestSide:
    def test_market_value(self, sample: Any) -> None:
        table = pd.read_parquet(sample.store.root / "side" / "market_value.parquet")
        assert list(table.columns) == ["datetime", "instrument", "market_value"]
        wide = table.pivot(index="datetime", columns="instrument", values="market_value")
        wide = wide.reindex(index=sample.calendar, columns=sample.stocks)
        np.testing.assert_array_equal(wide.to_numpy(), sample.market.market_value)

    def test_industry_has_one_row_a_stock_and_day(self, sample: Any) -> None:
        table = pd.read_parquet(sample.store.root / "side" / "industry.parquet")
        assert list(table.columns) == ["instrument", "start", "end", "industry"]
        count = np.zeros((len(sample.calendar), len(sample.stocks)), dtype=int)
        for row in table.itertuples():
            days = (sample.calendar >= row.start) & (sample.calendar <= row.end)
            count[days, sample.stocks.index(row.instrument)] += 1
        np.testing.assert_array_equal(count, np.isfinite(sample.market.market_value).astype(int))

    def test_readme_says_what_it_is(self, sample: Any) -> None:
        text = (sample.store.root / "side" / "README.md").read_text()
        assert text.startswith("# A synthetic market")
        assert "`qlib-ext data sample --seed 3 --stocks 60 --start 2014-01-01 --end 2016-12-31`" in text


class TestWrite:
    def test_equal_arguments_give_equal_bits(self, tmp_path: Path) -> None:
        SampleMarket(seed=1, **TINY).write(tmp_path / "one")
        SampleMarket(seed=1, **TINY).write(tmp_path / "two")
        SampleMarket(seed=2, **TINY).write(tmp_path / "three")
        one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
        assert one == two
        assert one["features/sh000300/close.day.bin"] != three["features/sh000300/close.day.bin"]

    def test_it_says_how_far_it_is(self, tmp_path: Path) -> None:
        said: list[tuple[int, int, str]] = []
        SampleMarket(**TINY).write(tmp_path / "m", lambda *now: said.append(now))
        by_stage = {stage: [now for now in said if now[2] == stage] for *_, stage in said}
        assert list(by_stage) == ["simulating days", "writing instruments"]
        for stage in by_stage.values():
            assert [done for done, _, _ in stage] == sorted({done for done, _, _ in stage})
            assert {total for _, total, _ in stage} == {len(stage)}

    def test_the_same_market_is_left_alone(self, tmp_path: Path) -> None:
        SampleMarket(**TINY).write(tmp_path / "m")
        when = (tmp_path / "m" / "side" / "sample.json").stat().st_mtime_ns
        store, written = SampleMarket(**TINY).write(tmp_path / "m")
        assert not written
        assert (tmp_path / "m" / "side" / "sample.json").stat().st_mtime_ns == when
        assert store.universes() == ["all", "csi100", "csi300", "sse50"]

    def test_another_market_replaces_it(self, tmp_path: Path) -> None:
        SampleMarket(**TINY).write(tmp_path / "m")
        _, written = SampleMarket(seed=1, **TINY).write(tmp_path / "m")
        assert written
        assert json.loads((tmp_path / "m" / "side" / "sample.json").read_text())["seed"] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["m"]

    def test_a_market_with_a_part_missing_is_made_anew(self, tmp_path: Path) -> None:
        SampleMarket(**TINY).write(tmp_path / "m")
        (tmp_path / "m" / "calendars" / "day.txt").unlink()
        assert SampleMarket(**TINY).write(tmp_path / "m")[1]

    def test_an_empty_directory_will_do(self, tmp_path: Path) -> None:
        assert SampleMarket(**TINY).write(tmp_path)[1]

    @pytest.mark.parametrize("mark", [None, "not json", '"text"', '{"made_by": "another"}'])
    def test_something_else_is_never_overwritten(self, tmp_path: Path, mark: str | None) -> None:
        (tmp_path / "side").mkdir()
        (tmp_path / "mine.txt").write_text("dear")
        if mark is not None:
            (tmp_path / "side" / "sample.json").write_text(mark)
        before = contents(tmp_path)
        with pytest.raises(UserError, match="must be a new or empty directory or a sample market to replace"):
            SampleMarket(**TINY).write(tmp_path)
        assert contents(tmp_path) == before

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("dear")
        with pytest.raises(UserError, match="`out` must be a directory, found a file at"):
            SampleMarket(**TINY).write(tmp_path / "file")

    def test_a_mount_point_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path)
        with pytest.raises(UserError, match=r"found the mount point .*; name one below it"):
            SampleMarket(**TINY).write(tmp_path)

    def test_a_failure_leaves_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        SampleMarket(**TINY).write(tmp_path / "m")
        before = contents(tmp_path)

        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(synthetic_market, "industry_table", fail)
        with pytest.raises(OSError, match="disk full"):
            SampleMarket(seed=1, **TINY).write(tmp_path / "m")
        assert contents(tmp_path) == before
