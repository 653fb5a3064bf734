from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.exchange_days import exchange_days
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.import_bars import import_bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.replace import locked
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.updates.update import update, update_store

DAYS = exchange_days("XSHG", pd.Timestamp("2019-01-02"), pd.Timestamp("2020-12-31"))
CODES = ("SH600000", "SH600004", "SZ000001", "SZ000002")
OHLC = ("open", "high", "low", "close")
NAN = np.nan
REAL = Path(__file__).parents[4] / "shared" / "market" / "us" / "prices"


def market(days: int = 60, codes: tuple[str, ...] = CODES, seed: int = 0) -> dict[str, np.ndarray]:
    """Adjusted bars [days, S] of random walks whose factor steps now and then."""
    rng = np.random.default_rng(seed)
    shape = (days, len(codes))
    close = np.round(10 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0)), 2)
    opened = np.round(close * np.exp(rng.normal(0, 0.01, shape)), 2)
    factor = np.cumprod(np.where(rng.random(shape) < 0.05, 1.03, 1.0), axis=0)
    volume = np.round(rng.uniform(1e4, 1e6, shape), -2)
    prices = {
        "open": opened,
        "high": np.maximum(opened, close) + 0.1,
        "low": np.minimum(opened, close) - 0.1,
        "close": close,
    }
    bars: dict[str, np.ndarray] = {name: price * factor for name, price in prices.items()}
    before = np.vstack([np.full((1, len(codes)), NAN), bars["close"][:-1]])
    bars |= {"volume": volume / factor, "amount": volume * close, "factor": factor}
    return bars | {"change": bars["close"] / before - 1}


def piece(bars: Mapping[str, np.ndarray], start: int, stop: int | None = None) -> dict[str, np.ndarray]:
    return {name: values[start:stop].copy() for name, values in bars.items()}


def as_bars(
    fields: Mapping[str, np.ndarray], start: int, codes: tuple[str, ...] = CODES, **settings: Any
) -> Bars:
    days = DAYS[start : start + len(next(iter(fields.values())))]
    chosen = ImportSettings(adjustment="factor", **settings)
    return Bars(
        days, codes, {name: values.astype(np.float32) for name, values in fields.items()}, settings=chosen
    )


def written(
    root: Path, bars: Mapping[str, np.ndarray], days: int, codes: tuple[str, ...] = CODES, **universes: Any
) -> QlibStore:
    return write_store(root, DAYS[:days], codes, piece(bars, 0, days), universes)


def spells(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [(code, DAYS[a], DAYS[b]) for code, a, b in rows], columns=["instrument", "start", "end"]
    )


def facts(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Of every file: inode, times of change, content."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.read_bytes()
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }  # fmt: skip


@pytest.fixture
def bars() -> dict[str, np.ndarray]:
    return market()


@pytest.fixture
def store(tmp_path: Path, bars: dict[str, np.ndarray]) -> QlibStore:
    """The first 50 of 60 days."""
    return written(tmp_path / "store", bars, 50)


class TestOracle:
    """A store that was updated is the one that would have been written of the whole range at once."""

    @settings(max_examples=25)
    @given(data=st.data())
    def test_whatever_is_missing_and_wherever_the_cut_is(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        root = tmp_path_factory.mktemp("u")
        days = 14
        bars = market(days)
        there = np.array(
            data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=days, max_size=days))
        )
        cut = data.draw(st.integers(1, days - 1))
        overlap = data.draw(st.integers(0, cut))
        there[0, 0] = there[-1, -1] = there[cut - 1, 0] = True
        for name, values in bars.items():
            values[~there] = NAN
            # Any field may lack a value on a day with a bar.
            if name in ("change", "volume"):
                values[data.draw(st.integers(0, days - 1)), :] = NAN
        assume(all(np.isfinite(values[:cut]).any() for values in bars.values()))
        whole = written(root / "whole", bars, days)
        written(root / "first", bars, cut)
        # Where the first row of the source has no change, it would be made from the store's last close.
        start = cut - overlap
        source = piece(bars, start)
        done = update_store(root / "first", as_bars(source, start))
        if not _made_changes(bars, there, cut, start):
            assert done.store.fingerprint() == whole.fingerprint()
        assert done.store.calendar.equals(whole.calendar)
        pd.testing.assert_frame_equal(done.store.membership("all"), whole.membership("all"))
        again = facts(root / "first")
        assert not update_store(root / "first", as_bars(source, start)).changed
        assert facts(root / "first") == again


def _made_changes(bars: Mapping[str, np.ndarray], there: np.ndarray, cut: int, start: int) -> bool:
    """Whether a stock's first row of the source is new, has no change, and the store knows its last close."""
    for column in range(there.shape[1]):
        rows = np.flatnonzero(there[start:, column]) + start
        if (
            rows.size
            and rows[0] >= cut
            and there[:cut, column].any()
            and np.isnan(bars["change"][rows[0], column])
        ):
            return True
    return False


def raw_rows(days: int, seed: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raw bars in long form with the factor that each day has from the first one on, and the splits behind it."""
    bars = market(days, seed=seed)
    rng = np.random.default_rng(seed)
    rows, actions = [], []
    for column, code in enumerate(CODES):
        splits = np.ones(days)
        splits[rng.integers(1, days - 12, 2)] = 1.25
        splits[days - 8] = 1.5  # in what is added later
        factor = np.cumprod(splits)
        raw = {name: bars[name][:, column] / bars["factor"][:, column] / factor for name in OHLC}
        volume = np.round(bars["volume"][:, column] * factor, -2)
        table = pd.DataFrame(raw).round(2).assign(volume=volume, factor=factor, code=code, date=DAYS[:days])
        rows.append(table.assign(amount=(table["volume"] * table["close"]).round()))
        for day in np.flatnonzero(splits > 1):
            actions.append((DAYS[day], code, splits[day]))
    return pd.concat(rows), pd.DataFrame(actions, columns=["date", "code", "split"])


class TestSources:
    """From files: what was imported of the first days and updated with the rest, against the import of all."""

    DAYS, CUT = 60, 50

    def import_and_update(
        self,
        root: Path,
        whole: pd.DataFrame,
        first: pd.DataFrame,
        rest: pd.DataFrame,
        settings: ImportSettings,
        actions: Path | None = None,
    ) -> tuple[QlibStore, QlibStore, Any]:
        for name, table in (("whole", whole), ("first", first), ("rest", rest)):
            table.to_csv(root / f"{name}.csv", index=False)
        for name in ("whole", "first"):
            import_bars(root / f"{name}.csv", root / name, settings, actions=actions)
        before = QlibStore(root / "first").read(["close", "volume"], CODES)
        done = update(root / "first", root / "rest.csv", actions=actions)
        after = done.store.read(["close", "volume"], CODES)
        np.testing.assert_array_equal(after[:, : self.CUT], before)  # history is what it was, bit by bit
        assert len(done.days) == self.DAYS - self.CUT
        assert done.store.calendar.equals(QlibStore(root / "whole").calendar)
        again = facts(root / "first")
        assert not update(root / "first", root / "rest.csv", actions=actions).changed
        assert facts(root / "first") == again
        return QlibStore(root / "whole"), done.store, done

    def cut(self, table: pd.DataFrame, overlap: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        return table[table["date"] <= DAYS[self.CUT - 1]], table[table["date"] >= DAYS[self.CUT - overlap]]

    @pytest.mark.parametrize("overlap", [1, 12])
    def test_raw_prices_and_a_factor(self, tmp_path: Path, overlap: int) -> None:
        table, _ = raw_rows(self.DAYS)
        settings = ImportSettings(adjustment="factor")
        whole, updated, done = self.import_and_update(tmp_path, table, *self.cut(table, overlap), settings)
        assert updated.fingerprint() == whole.fingerprint()
        assert done.scales == {}

    def test_without_a_common_day_it_is_taken_as_it_is_and_said(self, tmp_path: Path) -> None:
        table, _ = raw_rows(self.DAYS)
        settings = ImportSettings(adjustment="factor")
        whole, updated, done = self.import_and_update(tmp_path, table, *self.cut(table, 0), settings)
        fields = updated.fields(CODES[0])
        np.testing.assert_allclose(
            updated.read(fields, CODES), whole.read(fields, CODES), rtol=1e-4, atol=1e-6
        )
        assert any(
            note.startswith("4 instruments without a day that the store has too: ") for note in done.notes
        )

    def test_a_factor_in_another_base(self, tmp_path: Path) -> None:
        """As vendors have it that let the factor be 1 on the last day."""
        table, _ = raw_rows(self.DAYS)
        first, rest = self.cut(table, 12)
        last = table.groupby("code")["factor"].last()
        rest = rest.assign(factor=rest["factor"] / rest["code"].map(last))
        settings = ImportSettings(adjustment="factor")
        whole, updated, done = self.import_and_update(tmp_path, table, first, rest, settings)
        assert done.scales == pytest.approx((1 / last).to_dict(), rel=1e-6)
        for field in updated.fields(CODES[0]):
            np.testing.assert_allclose(
                updated.read([field], CODES), whole.read([field], CODES), rtol=1e-6, atol=1e-7
            )

    def test_an_adjusted_close_that_is_rescaled_by_a_later_split(self, tmp_path: Path) -> None:
        table, _ = raw_rows(self.DAYS)
        first, rest = self.cut(table, 12)
        adjusted = [
            part.assign(adj_close=part["close"] * part["factor"] / part["code"].map(part.groupby("code")["factor"].last()))
            for part in (table, first, rest)
        ]  # fmt: skip
        tables = [part.drop(columns="factor") for part in adjusted]
        settings = ImportSettings(adjustment="adj_close")
        whole, updated, done = self.import_and_update(tmp_path, *tables, settings)
        assert set(done.scales) == set(CODES)
        self.assert_proportional(whole, updated)
        assert any("on another scale than the store" in note for note in done.notes)

    def test_adjusted_prices_with_two_decimals_that_are_rescaled(self, tmp_path: Path) -> None:
        table, _ = raw_rows(self.DAYS)
        first, rest = self.cut(table, 40)
        tables = []
        for part in (table, first, rest):
            factor = part["factor"] / part["code"].map(part.groupby("code")["factor"].last())
            prices = {name: (part[name] * factor).round(2) for name in OHLC}
            tables.append(
                part.assign(**prices, volume=(part["volume"] / factor).round()).drop(
                    columns=["factor", "amount"]
                )
            )
        settings = ImportSettings(adjustment="adjusted")
        whole, updated, done = self.import_and_update(tmp_path, *tables, settings)
        assert min(done.scales.values()) < 0.9
        self.assert_proportional(whole, updated, fields=("close", "volume"), rtol=0.02)

    def test_splits_continue_the_factor_of_the_store(self, tmp_path: Path) -> None:
        table, actions = raw_rows(self.DAYS)
        actions.to_csv(tmp_path / "actions.csv", index=False)
        tables = [part.drop(columns="factor") for part in (table, *self.cut(table, 3))]
        settings = ImportSettings(adjustment="actions")
        whole, updated, _ = self.import_and_update(tmp_path, *tables, settings, tmp_path / "actions.csv")
        for field in ("close", "factor", "volume", "amount", "change"):
            np.testing.assert_allclose(
                updated.read([field], CODES), whole.read([field], CODES), rtol=1e-5, atol=1e-6
            )

    def test_splits_without_a_common_day_are_refused(self, tmp_path: Path) -> None:
        table, actions = raw_rows(self.DAYS)
        actions.to_csv(tmp_path / "actions.csv", index=False)
        tables = [part.drop(columns="factor") for part in (table, *self.cut(table, 0))]
        settings = ImportSettings(adjustment="actions")
        with pytest.raises(
            UserError, match="SH600000: splits and dividends continue the store's factor from a day"
        ):
            self.import_and_update(tmp_path, *tables, settings, tmp_path / "actions.csv")

    def test_raw_prices_that_are_rescaled_are_refused(self, tmp_path: Path) -> None:
        table, _ = raw_rows(self.DAYS)
        first, rest = self.cut(table.drop(columns=["factor", "amount"]), 12)
        rest = rest.assign(**{name: rest[name] * 2 for name in OHLC})
        with pytest.raises(
            UserError, match=r"SH600000 2019-03-05 open: [\d.]+ in the store, [\d.]+ in the source; "
        ):
            self.import_and_update(tmp_path, table, first, rest, ImportSettings(adjustment="none"))

    def test_real_files(self, tmp_path: Path) -> None:
        """Twelve US tickers with all their dirt, cut at the middle of 2014."""
        if not REAL.is_dir():
            pytest.skip("the real files ../shared/market/us are not on this machine")
        for name in ("first", "rest", "whole"):
            (tmp_path / f"{name}-files").mkdir()
        for path in sorted(REAL.iterdir())[:12]:
            with gzip.open(path, "rt") as stream:
                header, *lines = stream.read().splitlines(keepends=True)
            day = header.lower().split(",").index("date")
            parts = {
                "first": [line for line in lines if line.split(",")[day] < "2014-07-01"],
                "rest": [line for line in lines if line.split(",")[day] > "2014-06-15"],
                "whole": lines,
            }
            for name, part in parts.items():
                (tmp_path / f"{name}-files" / path.name.removesuffix(".gz")).write_text(
                    header + "".join(part)
                )
        chosen = ImportSettings(region="us")
        for name in ("first", "whole"):
            import_bars(tmp_path / f"{name}-files", tmp_path / name, chosen)
        done = update(tmp_path / "first", tmp_path / "rest-files")
        assert len(done.days) == 128
        assert done.store.fingerprint() == QlibStore(tmp_path / "whole").fingerprint()

    @staticmethod
    def assert_proportional(
        whole: QlibStore,
        updated: QlibStore,
        fields: tuple[str, ...] = (*OHLC, "volume", "factor"),
        rtol: float = 1e-5,
    ) -> None:
        """Each field is that of the whole import times one number a stock."""
        for field in fields:
            ratio = updated.read([field], CODES)[0] / whole.read([field], CODES)[0]
            np.testing.assert_allclose(
                ratio, np.broadcast_to(np.median(ratio, axis=0), ratio.shape), rtol=rtol
            )
        change = [store.read(["change"], CODES)[0] for store in (whole, updated)]
        np.testing.assert_allclose(change[0], change[1], atol=2 * rtol)


class TestContradictions:
    def change(self, bars: dict[str, np.ndarray], *places: tuple[str, int, int, float]) -> Bars:
        """Bars of day 40 on, with some values times a number."""
        source = piece(bars, 40, 60)
        for field, day, column, factor in places:
            source[field][day - 40, column] *= factor
        return as_bars(source, 40)

    def test_stock_day_field_and_both_values_are_named(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        before = facts(store.root)
        old = bars["close"][45, 1]
        with pytest.raises(UserError) as caught:
            update_store(store.root, self.change(bars, ("close", 45, 1, 1.01)))
        assert str(caught.value) == (
            f"the source contradicts the store: SH600004 {DAYS[45].date()} close: {old:.7g} in the store, "
            f"{old * 1.01:.7g} in the source. Nothing was changed; `--revise` takes the values of the source"
        )
        assert facts(store.root) == before

    def test_many_are_counted(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        places = [("amount", day, column, 2.0) for day in range(41, 49) for column in (0, 2)]
        with pytest.raises(
            UserError, match=r"amount: .*; and 11 more values, of 2 instruments in all\. Nothing"
        ):
            update_store(store.root, self.change(bars, *places))

    def test_on_demand_the_source_is_right(
        self, store: QlibStore, bars: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        source = self.change(bars, ("close", 45, 1, 1.01), ("volume", 44, 3, 2.0))
        done = update_store(store.root, source, revise=True)
        assert [(r.instrument, r.day, r.field) for r in done.revisions] == [
            ("SH600004", DAYS[45], "close"),
            ("SZ000002", DAYS[44], "volume"),
        ]
        assert done.revisions[0].new == pytest.approx(done.revisions[0].old * 1.01)
        bars["close"][45, 1] *= 1.01
        bars["volume"][44, 3] *= 2.0
        assert done.store.fingerprint() == written(tmp_path / "whole", bars, 60).fingerprint()
        again = facts(store.root)
        assert not update_store(store.root, source, revise=True).changed
        assert facts(store.root) == again

    def test_a_revision_alone_adds_no_day(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        bars["close"][45, 1] *= 1.01
        done = update_store(store.root, as_bars(piece(bars, 40, 50), 40), revise=True)
        assert (len(done.days), done.rows, len(done.revisions), done.changed) == (0, 0, 1, True)
        assert len(done.store.calendar) == 50

    def test_a_bar_that_the_store_lacks_is_one_too(self, tmp_path: Path, bars: dict[str, np.ndarray]) -> None:
        holes = {name: values.copy() for name, values in bars.items()}
        for values in holes.values():
            values[44, 1] = NAN
            values[:20, 2] = NAN
        root = written(tmp_path / "store", holes, 50).root
        with pytest.raises(
            UserError, match=rf"SH600004 {DAYS[44].date()} open: nothing in the store, [\d.]+ in the"
        ):
            update_store(root, as_bars(piece(bars, 40), 40))
        done = update_store(
            root, as_bars(piece(bars, 10), 10), revise=True
        )  # and before the stock's first bar
        for values in bars.values():
            values[:10, 2] = NAN
        bars["change"][10, 2] = NAN  # which a first bar of a source may have and the store need not
        holes_filled = written(tmp_path / "whole", bars, 60)
        np.testing.assert_array_equal(done.store.read(["close"], CODES), holes_filled.read(["close"], CODES))
        pd.testing.assert_frame_equal(done.store.membership("all"), holes_filled.membership("all"))

    @pytest.mark.parametrize("start", [np.inf, NAN, -1.0, 0.5, 1e30])
    def test_a_file_that_begins_at_no_day_is_named(
        self, store: QlibStore, bars: dict[str, np.ndarray], start: float
    ) -> None:
        for path in store.root.glob("features/*/*.bin"):
            path.write_bytes(np.float32(start).tobytes() + path.read_bytes()[4:])
        with pytest.raises(
            UserError, match=r"day.bin` must (begin with the index of a day|start and end within)"
        ):
            update_store(store.root, as_bars(piece(bars, 40), 40))

    def test_what_the_source_lacks_is_kept_and_said(
        self, store: QlibStore, bars: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        source = piece(bars, 40)
        for values in source.values():
            values[3, 0] = NAN
        source["amount"][5, 1] = NAN
        done = update_store(store.root, as_bars(source, 40))
        assert done.store.fingerprint() == written(tmp_path / "whole", bars, 60).fingerprint()
        assert (
            f"1 bar of the store that the source does not have: kept (SH600000 {DAYS[43].date()})"
            in done.notes
        )
        assert any(
            note.startswith("1 value of `amount` in the store that the source does") for note in done.notes
        )

    def test_rescaled_prices_of_the_store_s_own_scale_are_revised_on_it(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        source = piece(bars, 40)
        for name in (*OHLC, "factor"):
            source[name] = source[name] * 4.0
        source["volume"] = source["volume"] / 4.0
        source["close"][2, 0] *= 1.01
        (revision,) = update_store(store.root, as_bars(source, 40), revise=True).revisions
        assert revision.new == pytest.approx(bars["close"][42, 0] * 1.01)

    def test_another_kind_of_adjustment_is_refused(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        source = piece(bars, 40)
        source["factor"][:, 2] = np.linspace(0.5, 1.5, 20)
        before = facts(store.root)
        with pytest.raises(
            UserError,
            match=r"SZ000001: the factors of the source must be .* found ratios from .*import all of it anew",
        ):
            update_store(store.root, as_bars(source, 40), revise=True)
        assert facts(store.root) == before

    def test_raw_prices_on_another_scale_are_refused(
        self, tmp_path: Path, bars: dict[str, np.ndarray]
    ) -> None:
        del bars["factor"]
        root = written(tmp_path / "store", bars, 50).root
        source = piece(bars, 40)
        for name in OHLC:
            source[name][:, 0] /= 2
        raw = as_bars(source, 40)
        raw = Bars(raw.calendar, raw.instruments, raw.fields, settings=ImportSettings(adjustment="none"))
        with pytest.raises(UserError, match=r"SH600000: the prices are said to be raw, .* are 0\.5 times"):
            update_store(root, raw)


class TestStocks:
    def test_new_ones_stand_where_the_order_wants_them(
        self, tmp_path: Path, bars: dict[str, np.ndarray]
    ) -> None:
        """One listed before the store's last day, one on a day added."""
        codes = ("SH600000", "SZ000002")
        old = {name: values[:, [0, 3]] for name, values in bars.items()}
        root = written(tmp_path / "store", old, 50, codes).root
        for name, values in bars.items():
            values[:55, 2] = NAN
            if name == "change":
                values[55, 2] = NAN
        done = update_store(root, as_bars(bars, 0))
        assert done.instruments == ("SH600004", "SZ000001")
        assert done.rows == 2 * 10 + 60 + 5
        assert done.store.fingerprint() == written(tmp_path / "whole", bars, 60).fingerprint()

    def test_where_the_list_has_no_order_they_come_last(
        self, tmp_path: Path, bars: dict[str, np.ndarray]
    ) -> None:
        order = ("SZ000002", "SH600000")
        root = written(tmp_path / "store", {n: v[:, [3, 0]] for n, v in bars.items()}, 50, order).root
        done = update_store(root, as_bars(bars, 0))
        assert list(done.store.membership("all")["instrument"]) == [*order, "SH600004", "SZ000001"]

    def test_a_code_that_windows_reserves_gets_qlib_s_folder(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        codes = (*CODES[:3], "CON")
        done = update_store(store.root, as_bars(piece(bars, 40), 40, codes))
        assert (store.root / "features" / "_qlib_con").is_dir()
        assert "CON" in done.store.instruments()
        np.testing.assert_array_equal(
            done.store.read(["close"], ["CON"])[0, 40:, 0], bars["close"][40:, 3].astype(np.float32)
        )

    def test_those_that_fall_silent_are_named(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        source = piece(bars, 40)
        for values in source.values():
            values[10:, 2] = NAN
        codes = (*CODES[:3], "SZ000003")  # and SZ000002 is not in the source at all
        done = update_store(store.root, as_bars(source, 40, codes))
        assert (
            "2 instruments with a bar on the store's last day and none on the days added (SZ000001; SZ000002)"
            in done.notes
        )

    def test_unchanged_ones_are_shared_with_the_old_store(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        before = facts(store.root)
        source = {name: values[:, :2] for name, values in piece(bars, 45).items()}
        update_store(store.root, as_bars(source, 45, CODES[:2]))
        after = facts(store.root)
        for path in before:
            same = not path.startswith(("features/sh", "calendars", "instruments/all"))
            assert (after[path][0] == before[path][0]) == same, path  # the same inode
            assert (after[path][1] == before[path][1]) == same, path

    def test_none_in_common_is_refused(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        with pytest.raises(
            UserError, match=r"no instrument of the source is in the store: it has A, B, C, the store SH6"
        ):
            update_store(store.root, as_bars(piece(bars, 40), 40, ("A", "B", "C", "D")))

    def test_one_whose_change_does_not_fit_the_last_close_is_named(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        source = piece(bars, 50)
        for name in (*OHLC, "factor"):
            source[name][:, 1] *= 1.5
        done = update_store(store.root, as_bars(source, 50))
        assert any(
            note.startswith("4 instruments without a day that the store has too") for note in done.notes
        )
        assert (
            "1 instrument whose first new close and change do not fit the store's last close: not on one scale? "
            f"(SH600004 {DAYS[50].date()})"
        ) in done.notes

    def test_a_change_that_the_source_cannot_know_is_made(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        source = piece(bars, 50)
        source["change"][0] = NAN
        done = update_store(store.root, as_bars(source, 50))
        expected = bars["close"][50] / bars["close"][49] - 1
        np.testing.assert_allclose(done.store.read(["change"], CODES)[0, 50], expected, atol=3e-7)


class TestFields:
    def test_one_that_the_source_lacks_is_refused(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        source = piece(bars, 40)
        del source["amount"], source["factor"]
        with pytest.raises(
            UserError, match=r"every field of the store, found no `amount`, `factor`; name the column"
        ):
            update_store(store.root, as_bars(source, 40))

    def test_one_that_the_store_lacks_is_left_out_and_said(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        source = piece(bars, 40) | {"turnover": piece(bars, 40)["volume"]}
        done = update_store(store.root, as_bars(source, 40))
        assert "the store has no `turnover`: left out" in done.notes
        assert "turnover" not in done.store.fields("SH600000")

    def test_one_that_only_one_stock_lacks_begins_with_the_rows_added(
        self, tmp_path: Path, bars: dict[str, np.ndarray]
    ) -> None:
        first = piece(bars, 0, 50)
        first["amount"][:, 3] = NAN
        root = written(tmp_path / "store", first, 50).root
        done = update_store(root, as_bars(piece(bars, 40), 40))
        amount = done.store.read(["amount"], ["SZ000002"])[0, :, 0]
        assert np.isnan(amount[:50]).all()
        assert np.isfinite(amount[50:]).all()
        assert "1 instrument without any `amount` in the store before (SZ000002)" in done.notes

    def test_a_broken_file_is_refused(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        path = store.root / "features" / "sz000001" / "close.day.bin"
        content = path.read_bytes()
        for broken in (b"", content[:-2], np.array([45, *range(9)], dtype="<f4").tobytes()):
            path.write_bytes(broken)
            with pytest.raises(StoreError, match=r"sz000001/close.day.bin` cannot be added to, it is broken"):
                update_store(store.root, as_bars(piece(bars, 40), 40))


class TestDays:
    def test_a_gap_is_refused(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        before = facts(store.root)
        with pytest.raises(UserError) as caught:
            update_store(store.root, as_bars(piece(bars, 52), 52))
        first, second = (str(day.date()) for day in DAYS[50:52])
        assert str(caught.value) == (
            f"the source's days must follow on the store's last, {DAYS[49].date()}, found {DAYS[52].date()} as the "
            f"first: XSHG traded on 2 days between them, such as {first}, {second}. Get these days too, or leave them "
            "out with `--allow-gap`"
        )
        assert facts(store.root) == before

    def test_on_demand_it_is_left(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        done = update_store(store.root, as_bars(piece(bars, 52), 52), allow_gap=True)
        assert done.store.calendar.equals(DAYS[:50].append(DAYS[52:60]))
        np.testing.assert_array_equal(
            done.store.read(["close"], CODES)[0],
            np.delete(bars["close"], [50, 51], axis=0).astype(np.float32),
        )
        assert any(note.startswith(f"a gap before {DAYS[52].date()}") for note in done.notes)

    def test_a_holiday_is_no_gap(self, tmp_path: Path) -> None:
        """The store ends before the week of the spring festival of 2019."""
        cut = int(DAYS.searchsorted(pd.Timestamp("2019-02-11")))
        assert (DAYS[cut] - DAYS[cut - 1]).days > 9
        bars = market(60)
        root = written(tmp_path / "store", bars, cut).root
        assert len(update_store(root, as_bars(piece(bars, cut), cut)).days) == 60 - cut

    def test_another_exchange_is_noticed(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        with pytest.raises(
            UserError, match=r"the store's days must be those of XNYS, found \d+% of the last ones in"
        ):
            update_store(store.root, as_bars(piece(bars, 40), 40, region="us"))

    def test_where_no_exchange_fits_the_store_s_own_gaps_measure(self, tmp_path: Path) -> None:
        """A market that is open every day of the week."""
        days = pd.date_range("2019-01-01", periods=60)
        fields = market(60)
        root = write_store(tmp_path / "store", days[:50], CODES, piece(fields, 0, 50), {}).root
        chosen = ImportSettings(calendar="data", adjustment="factor")

        def source(start: int) -> Bars:
            return Bars(days[start:], CODES, piece(fields, start), settings=chosen)

        with pytest.raises(
            UserError, match="2 days lie between them, and no more than 1 ever did in the store"
        ):
            update_store(root, source(51))
        assert len(update_store(root, source(50)).days) == 10

    def test_days_before_the_store_are_left_out_and_said(
        self, tmp_path: Path, bars: dict[str, np.ndarray]
    ) -> None:
        later = {name: values[10:50] for name, values in bars.items()}
        root = write_store(tmp_path / "store", DAYS[10:50], CODES, later, {}).root
        done = update_store(root, as_bars(bars, 0))
        assert done.store.calendar.equals(DAYS[10:60])
        assert any(
            note.startswith(f"10 days before the store's first, {DAYS[10].date()}: left")
            for note in done.notes
        )

    def test_a_day_in_between_is_refused(self, tmp_path: Path, bars: dict[str, np.ndarray]) -> None:
        keep = np.delete(np.arange(50), 30)
        first = {name: values[keep] for name, values in bars.items()}
        root = write_store(tmp_path / "store", DAYS[keep], CODES, first, {}).root
        with pytest.raises(
            UserError, match=rf"bars of {DAYS[30].date()} and 0 more days that lie between two days"
        ):
            update_store(root, as_bars(bars, 0))

    def test_days_without_any_bar_at_the_end_are_not_added(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        source = piece(bars, 40)
        for values in source.values():
            values[15:] = NAN
        assert update_store(store.root, as_bars(source, 40)).store.calendar[-1] == DAYS[54]

    def test_qlib_s_calendar_of_days_to_come_goes_on(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        future = store.root / "calendars" / "day_future.txt"
        future.write_text("".join(f"{day.date()}\n" for day in DAYS[:63]))
        update_store(store.root, as_bars(piece(bars, 40), 40))
        assert future.read_text().split() == [str(day.date()) for day in DAYS[:63]]
        future.write_text("".join(f"{day.date()}\n" for day in DAYS[:51]))
        longer = market(62)
        shutil.rmtree(store.root)
        root = written(store.root, longer, 50).root
        future.write_text("".join(f"{day.date()}\n" for day in DAYS[:51]))
        update_store(root, as_bars(piece(longer, 40), 40))
        assert future.read_text().split() == [str(day.date()) for day in DAYS[:62]]


class TestUniverses:
    @pytest.fixture
    def store(self, tmp_path: Path, bars: dict[str, np.ndarray]) -> QlibStore:
        few = spells(("SH600000", 0, 30), ("SH600004", 10, 49), ("SZ000001", 31, 49))
        return written(tmp_path / "store", bars, 50, few=few, past=spells(("SZ000002", 0, 48)))

    def test_open_spells_are_carried_forward_and_it_is_said(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        done = update_store(store.root, as_bars(piece(bars, 40), 40))
        expected = spells(("SH600000", 0, 30), ("SH600004", 10, 59), ("SZ000001", 31, 59))
        pd.testing.assert_frame_equal(done.store.membership("few"), expected)
        assert (
            f"2 spells of universe `few` open on {DAYS[49].date()}: carried forward to {DAYS[59].date()}"
            in done.notes
        )

    def test_on_demand_they_are_kept(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        before = store.membership("few")
        done = update_store(store.root, as_bars(piece(bars, 40), 40), universes="keep")
        pd.testing.assert_frame_equal(done.store.membership("few"), before)
        assert f"universe `few` left as it is: 2 spells end on {DAYS[49].date()}" in done.notes
        assert set(done.store.membership("all")["end"]) == {DAYS[59]}  # which follows the bars all the same

    def test_one_that_ended_is_left_and_it_is_said(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        done = update_store(store.root, as_bars(piece(bars, 40), 40))
        assert list(done.store.membership("past")["end"]) == [DAYS[48]]
        assert (
            f"universe `past` ends on {DAYS[48].date()}, before the days added: left as it is" in done.notes
        )

    def test_ends_in_a_far_future_stay(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        path = store.root / "instruments" / "few.txt"
        path.write_text("SH600000\t2005-01-01\t2099-12-31\n")
        update_store(store.root, as_bars(piece(bars, 40), 40))
        assert path.read_text() == "SH600000\t2005-01-01\t2099-12-31\n"

    def test_further_columns_stay(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        path = store.root / "instruments" / "few.txt"
        path.write_text(f"SH600000\t2005-01-01\t{DAYS[49].date()} 00:00:00\tbank\n")
        update_store(store.root, as_bars(piece(bars, 40), 40))
        assert path.read_text() == f"SH600000\t2005-01-01\t{DAYS[59].date()}\tbank\n"

    def test_the_command_that_chose_one_is_named(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        rules = {
            "few": {"size": 2, "rule": "the two largest", "command": "qlib-ext data universe DIR few --top 2"}
        }
        (store.root / "universes.json").write_text(json.dumps(rules))
        done = update_store(store.root, as_bars(piece(bars, 40), 40))
        assert any(
            "(to choose it anew: qlib-ext data universe DIR few --top 2)" in note for note in done.notes
        )
        assert json.loads((store.root / "universes.json").read_text()) == rules

    def test_that_of_an_import_follows_the_bars_without_the_benchmarks(self, tmp_path: Path) -> None:
        table, _ = raw_rows(60)
        table[table["date"] < DAYS[50]].to_csv(tmp_path / "first.csv", index=False)
        table[table["date"] >= DAYS[45]].query("code != 'SZ000002'").to_csv(
            tmp_path / "rest.csv", index=False
        )
        chosen = ImportSettings(universe="mine", benchmarks=("SH600004",))
        root = import_bars(tmp_path / "first.csv", tmp_path / "store", chosen).store.root
        done = update(root, tmp_path / "rest.csv", universes="keep")
        expected = spells(("SH600000", 0, 59), ("SZ000001", 0, 59), ("SZ000002", 0, 49))
        pd.testing.assert_frame_equal(done.store.membership("mine"), expected)

    def test_an_unknown_choice_is_refused(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        with pytest.raises(UserError, match="`universes` must be one of carry, keep, found 'drop'"):
            update_store(store.root, as_bars(piece(bars, 40), 40), universes="drop")


class TestTheRestOfAStore:
    def test_side_data_and_other_files_stay_and_qlib_s_caches_go(
        self, store: QlibStore, bars: dict[str, np.ndarray]
    ) -> None:
        kept = ("side/industry.csv", "notes.txt", "features/sh600000/close.1min.bin", "calendars/1min.txt")
        caches = ("features_cache/x/y", "dataset_cache/z")
        for name in (*kept, *caches):
            (store.root / name).parent.mkdir(parents=True, exist_ok=True)
            (store.root / name).write_text(name)
        before = facts(store.root)
        update_store(store.root, as_bars(piece(bars, 40), 40))
        after = facts(store.root)
        for name in kept:
            assert (after[name][0], after[name][3]) == (before[name][0], before[name][3])
        assert not set(caches) & after.keys()

    def test_nothing_lies_beside_it_afterwards(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        update_store(store.root, as_bars(piece(bars, 40), 40))
        assert [path.name for path in store.root.parent.iterdir()] == ["store"]

    def test_what_is_no_store_is_refused(self, tmp_path: Path, bars: dict[str, np.ndarray]) -> None:
        with pytest.raises(StoreError, match="found no directory at"):
            update(tmp_path / "nowhere" / "store", tmp_path / "bars.csv")
        assert list(tmp_path.iterdir()) == []

    def test_a_store_of_others_is_updated_by_options(self, tmp_path: Path) -> None:
        """One without `import.json`, from a file whose columns nobody would guess."""
        table, _ = raw_rows(60)
        chosen = ImportSettings(columns={"close": "Letzter", "amount": "Umsatz"})
        names = {"close": "Letzter", "amount": "Umsatz"}
        for name, part in (("whole", table), ("first", table[table["date"] < DAYS[50]])):
            part.rename(columns=names).to_csv(tmp_path / f"{name}.csv", index=False)
            import_bars(tmp_path / f"{name}.csv", tmp_path / name, chosen)
        (tmp_path / "first" / "import.json").unlink()
        with pytest.raises(UserError, match="`close`"):
            update(tmp_path / "first", tmp_path / "whole.csv")
        done = update(tmp_path / "first", tmp_path / "whole.csv", chosen)
        read = [store.read(["close"], CODES) for store in (done.store, QlibStore(tmp_path / "whole"))]
        np.testing.assert_array_equal(*read)

    def test_a_made_market_goes_on(self, tmp_path: Path) -> None:
        """With everything that it holds: listings, delistings, suspensions, indices, universes."""
        store, _ = SampleMarket(stocks=30, start="2014-01-01", end="2015-12-31").write(tmp_path / "m")
        codes = tuple(store.instruments())
        fields = store.fields(codes[0])
        values = store.read(fields, codes)
        cut = len(store.calendar) - 200
        first = dict(zip(fields, values[:, :cut], strict=True))
        rest = dict(zip(fields, values[:, cut - 3 :], strict=True))
        root = write_store(tmp_path / "first", store.calendar[:cut], codes, first, {}).root
        whole = write_store(
            tmp_path / "whole", store.calendar, codes, dict(zip(fields, values, strict=True)), {}
        )
        done = update_store(root, Bars(store.calendar[cut - 3 :], codes, rest))
        assert done.instruments  # some are listed later
        assert done.store.fingerprint() == whole.fingerprint()


class TestTogether:
    def test_a_second_update_at_the_same_time_is_refused(
        self, store: QlibStore, bars: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        with locked(store.root):
            for call in (
                lambda: update_store(store.root, as_bars(piece(bars, 40), 40)),
                lambda: update(store.root, tmp_path / "never-read.csv"),
            ):
                with pytest.raises(UserError, match=rf"process {os.getpid()} on \S+ is changing"):
                    call()

    def test_progress_comes_to_its_end(self, store: QlibStore, bars: dict[str, np.ndarray]) -> None:
        calls: list[tuple[int, int, str]] = []
        update_store(store.root, as_bars(piece(bars, 40), 40), progress=lambda *call: calls.append(call))
        for what in ("comparing", "writing"):
            own = [call for call in calls if call[2] == what]
            assert [call[:2] for call in own] == [(done, 4) for done in (1, 2, 3, 4)]


# Updates a copy of a store in a child that dies at its n-th step on the file system, for some n over the whole run;
# then says what the store is: before recovery, and after it.
KILLED = """
import json, os, pathlib, shutil, signal, sys
import numpy as np, pandas as pd
from qlib_ext.market import replace
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.store import QlibStore, StoreError
from qlib_ext.market.updates.update import update_store

first, work, source, mode, points = sys.argv[1:]
root = pathlib.Path(work) / "store"
if mode == "renames":
    replace._exchange = lambda first, second: False
with np.load(source) as file:
    fields = {name: file[name] for name in file.files if name != "days"}
    bars = Bars(pd.DatetimeIndex(file["days"]), ("SH600000", "SH600004", "SZ000001", "SZ000002"), fields)
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.link", "shutil.rmtree"}

def state():
    try:
        return QlibStore(root).fingerprint()
    except StoreError:
        return None

def run(point):
    replace._discard(pathlib.Path(work))
    shutil.copytree(first, root)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        def watch(event, arguments):
            global count
            if event in WATCHED:
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
        globals()["count"] = 0
        sys.addaudithook(watch)
        update_store(root, bars)
        os.write(writing, str(globals()["count"]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        counted = stream.read()
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), counted

shutil.copytree(first, root)
update_store(root, bars)  # here, so that no child has to import anything or to make a calendar
_, total = run(-1)
for point in np.unique(np.linspace(0, int(total) - 1, int(points)).astype(int)):
    died, _ = run(int(point))
    seen = state()
    replace.recover(root)
    recovered = state()
    done = update_store(root, bars)
    print(json.dumps([died, seen, recovered, state(), sorted(os.listdir(work))]), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestKilled:
    @pytest.mark.parametrize("mode", ["exchange", "renames"])
    def test_at_any_point_it_is_the_old_store_or_the_new_one(
        self, store: QlibStore, bars: dict[str, np.ndarray], tmp_path: Path, mode: str
    ) -> None:
        old, new = store.fingerprint(), written(tmp_path / "whole", bars, 60).fingerprint()
        source = as_bars(piece(bars, 40), 40)
        np.savez(tmp_path / "bars.npz", days=source.calendar.to_numpy(), **source.fields)
        arguments = [store.root, tmp_path / "work", tmp_path / "bars.npz", mode, 34]
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *map(str, arguments)],
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        runs = [json.loads(line) for line in done.stdout.splitlines()]
        # The last steps are those of threads that delete the old version: there may be fewer of them.
        assert sum(died for died, *_ in runs) >= 31
        for died, seen, recovered, after, names in runs:
            assert died or seen == new
            assert seen in ((old, new) if mode == "exchange" else (old, new, None))
            assert recovered in (old, new)
            assert after == new  # the next run ends what this one began
            assert names == ["store"]
        states = [recovered for _, _, recovered, _, _ in runs]
        assert states == sorted(states, key=[old, new].index)
        assert set(states) == {old, new}
