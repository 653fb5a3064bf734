from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.importing.units import COMPUTED, PAIRS, check_vwap, choose_change, settle_units

NAN = np.nan
CODES = ("A", "B", "C")
DAYS = np.arange("2000-01-03", "2000-01-23", dtype="datetime64[D]")


@pytest.fixture
def table() -> dict[str, np.ndarray]:
    """Three instruments, adjusted, in shares and currency."""
    draws = np.random.default_rng(5)
    close = (10 * np.exp(0.02 * draws.standard_normal((3, 20)).cumsum(axis=1))).astype(np.float32)
    low, high = close * np.float32(0.99), close * np.float32(1.02)
    volume = np.exp(draws.normal(10, 1, (3, 20))).astype(np.float32)
    vwap = low + (high - low) * draws.random((3, 20)).astype(np.float32)
    return {"close": close, "low": low, "high": high, "volume": volume, "amount": volume * vwap, "vwap": vwap}


def settle(
    table: dict[str, np.ndarray], stocks: tuple[bool, ...] = (True,) * 3, **units: float
) -> tuple[tuple[float | None, float], tuple[str, ...]]:
    notes = Notes()
    settings = ImportSettings(**units)  # type: ignore[arg-type]
    return settle_units(table, CODES, np.array(stocks), settings, notes), notes.sentences()


class TestUnits:
    @pytest.mark.parametrize(("volume_unit", "amount_unit"), PAIRS)
    def test_those_of_vendors_are_recognised(
        self, table: dict[str, np.ndarray], volume_unit: float, amount_unit: float
    ) -> None:
        expected = {field: values.copy() for field, values in table.items()}
        table["volume"] /= np.float32(volume_unit)
        table["amount"] /= np.float32(amount_unit)
        found, notes = settle(table)
        assert found == (volume_unit, amount_unit)
        assert len(notes) == (found != (1, 1))
        for field, values in expected.items():
            np.testing.assert_allclose(table[field], values, rtol=1e-6)

    def test_no_two_pairs_look_alike(self) -> None:
        ratios = [volume / amount for volume, amount in PAIRS]
        assert len({round(float(np.log10(ratio)), 6) for ratio in ratios}) == len(PAIRS)

    def test_a_note_says_what_was_found(self, table: dict[str, np.ndarray]) -> None:
        table["volume"] /= 100
        table["amount"] /= 1000
        _, (note,) = settle(table)
        assert note.startswith("amount / volume is 0.10")
        assert note.endswith("volume read in units of 100 shares, amount in units of 1000")

    @pytest.mark.parametrize(("market", "own"), [(100.0, 1.0), (1.0, 100.0), (1.0, 1000.0)])
    def test_a_stock_may_have_its_own(self, table: dict[str, np.ndarray], market: float, own: float) -> None:
        volume = table["volume"].copy()
        table["volume"] /= np.array([[market], [market], [own]], dtype=np.float32)
        units, notes = settle(table)
        assert units == (None, 1)  # the next update tells them apart again
        np.testing.assert_allclose(table["volume"], volume, rtol=1e-6)
        assert notes[-1].startswith(f"1 instrument whose volume is in units of {own:g} shares")
        assert notes[-1].endswith("(C)")
        assert check(table) == ()

    def test_half_of_the_stocks_may_have_another(self) -> None:
        draws = np.random.default_rng(6)
        close = 10 * np.exp(0.02 * draws.standard_normal((8, 30)).cumsum(axis=1)).astype(np.float32)
        volume = np.exp(draws.normal(10, 1, (8, 30))).astype(np.float32)
        lots = np.where(np.arange(8) % 2, 100, 1).astype(np.float32)[:, None]
        mixed = {"close": close, "volume": volume / lots, "amount": close * volume}
        codes = [f"SH60000{k}" for k in range(8)]
        notes = Notes()
        assert settle_units(mixed, codes, np.ones(8, dtype=bool), ImportSettings(), notes) == (None, 1)
        np.testing.assert_allclose(mixed["volume"], volume, rtol=1e-6)
        (said,) = notes.sentences()
        assert said.startswith("4 instruments whose volume is in units of 100 shares")

    def test_a_stock_whose_unit_is_not_sure_has_that_of_the_market(
        self, table: dict[str, np.ndarray]
    ) -> None:
        table["volume"] /= np.float32(100)
        table["volume"][2, ::3] *= np.float32(100)  # a third of its days in shares
        assert settle(table)[0] == (100, 1)
        table["volume"][2] /= 100 * np.exp(np.linspace(0, 3, 20)).astype(np.float32)  # no unit at all
        assert settle(table)[0] == (1, 1)

    def test_what_is_said_is_not_guessed(self, table: dict[str, np.ndarray]) -> None:
        volume, amount = table["volume"].copy(), table["amount"].copy()
        table["volume"] /= 10
        table["amount"] /= 1000
        assert settle(table, volume_unit=10.0)[0] == (10, 1000)
        np.testing.assert_allclose(table["volume"], volume, rtol=1e-6)
        np.testing.assert_allclose(table["amount"], amount, rtol=1e-6)
        assert settle(table, volume_unit=5.0, amount_unit=7.0) == ((5, 7), ())
        np.testing.assert_allclose(table["volume"], volume * 5, rtol=1e-6)

    def test_what_fits_nothing_stays(self, table: dict[str, np.ndarray]) -> None:
        table["volume"] /= 37
        volume = table["volume"].copy()
        units, (note,) = settle(table)
        assert units == (1, 1)
        assert "which no known units explain: volume and amount left as they are" in note
        np.testing.assert_array_equal(table["volume"], volume)

    def test_an_index_has_no_say(self, table: dict[str, np.ndarray]) -> None:
        table["amount"][:2] *= 1000
        assert settle(table, stocks=(False, False, True))[0] == (1, 1)

    def test_without_amounts_nothing_is_known(self, table: dict[str, np.ndarray]) -> None:
        del table["amount"]
        assert settle(table) == ((1, 1), ())
        assert settle(table, volume_unit=100.0)[0] == (100, 1)


def check(table: dict[str, np.ndarray]) -> tuple[str, ...]:
    notes = Notes()
    check_vwap(table, CODES, DAYS, notes)
    return notes.sentences()


class TestVwap:
    def test_it_is_amount_over_volume(self, table: dict[str, np.ndarray]) -> None:
        expected = table.pop("vwap").copy()
        table["volume"][0, 3] = table["amount"][0, 3] = 0
        assert check(table) == ("vwap made as amount / volume",)
        assert np.isnan(table["vwap"][0, 3])
        expected[0, 3] = NAN
        np.testing.assert_allclose(table["vwap"], expected, rtol=1e-6)

    def test_the_sources_own_is_kept(self, table: dict[str, np.ndarray]) -> None:
        expected = table["vwap"].copy()
        assert check(table) == ()
        np.testing.assert_array_equal(table["vwap"], expected)

    def test_a_row_in_which_it_cannot_be(self, table: dict[str, np.ndarray]) -> None:
        table["vwap"][0, 3] = table["high"][0, 3] * 1.02
        table["vwap"][1, 4] = table["low"][1, 4] * 0.98
        table["vwap"][2, 5] = table["high"][2, 5] * 1.009  # rounding of amounts
        table["high"][2, 6], table["vwap"][2, 6] = NAN, table["close"][2, 6] * 1.02
        (note,) = check(table)
        assert note.startswith("3 bars whose vwap lies more than 1 % outside low and high: its vwap left out")
        assert note.endswith("(A 2000-01-06; B 2000-01-07; C 2000-01-09)")
        assert np.argwhere(np.isnan(table["vwap"])).tolist() == [[0, 3], [1, 4], [2, 6]]

    def test_an_index_has_none(self, table: dict[str, np.ndarray]) -> None:
        del table["vwap"]
        table["amount"][1] /= 50
        notes = check(table)
        assert notes[0].startswith("1 instrument whose vwap lies outside low and high on most days")
        assert np.isnan(table["vwap"]).all(axis=1).tolist() == [False, True, False]

    @pytest.mark.parametrize("made", [True, False])
    def test_if_most_have_none_there_is_none(self, table: dict[str, np.ndarray], made: bool) -> None:
        if made:
            del table["vwap"]
            table["amount"][1:] /= 50
        else:
            table["vwap"][1:] /= 50
        (note,) = check(table)
        of = "amount / volume" if made else "the source's vwap"
        assert note == f"no vwap: {of} lies outside low and high for 2 of 3 instruments (B; C)"
        assert "vwap" not in table

    def test_a_source_without_amounts(self, table: dict[str, np.ndarray]) -> None:
        del table["vwap"], table["amount"]
        assert check(table) == ("no vwap: the source has neither it nor both amount and volume",)
        assert "vwap" not in table

    def test_a_source_without_low_and_high(self, table: dict[str, np.ndarray]) -> None:
        del table["low"], table["high"]
        table["vwap"] = table["close"].copy()
        assert check(table) == ()


def change(
    source: np.ndarray | None, computed: np.ndarray, unit: str = "auto"
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    notes = Notes()
    table = {COMPUTED: computed.copy()} | ({} if source is None else {"change": source.copy()})
    chosen = choose_change(table, unit, notes)
    assert set(table) == {"change"}
    return table["change"], chosen, notes.sentences()


class TestChange:
    COMPUTED = np.random.default_rng(2).normal(0, 0.03, (3, 200)).astype(np.float32)
    COMPUTED[:, 0] = NAN

    def test_from_the_closes(self) -> None:
        found, unit, notes = change(None, self.COMPUTED)
        np.testing.assert_array_equal(found, self.COMPUTED)
        assert (unit, notes) == ("computed", ())

    @pytest.mark.parametrize(("unit", "size"), [("fraction", 1), ("percent", 100)])
    def test_the_sources_own_in_its_unit(self, unit: str, size: float) -> None:
        source = np.round(self.COMPUTED * size, 4 if size == 1 else 2).astype(np.float32)
        source[:, 0] = 0.01 * size  # the exchange knows the first day
        source[1, 5] = NAN
        found, chosen, notes = change(source, self.COMPUTED)
        assert chosen == unit
        assert notes == (() if size == 1 else ("the source's change is in percent: made a fraction",))
        np.testing.assert_allclose(found[:, 0], 0.01, rtol=1e-6)
        assert found[1, 5] == self.COMPUTED[1, 5]
        np.testing.assert_allclose(found[:, 1:], self.COMPUTED[:, 1:], atol=6e-5)
        np.testing.assert_array_equal(change(source, self.COMPUTED, unit)[0], found)

    def test_a_difference_of_prices_is_none(self) -> None:
        found, unit, notes = change(self.COMPUTED * np.float32(23.5), self.COMPUTED)
        np.testing.assert_array_equal(found, self.COMPUTED)
        assert unit == "computed"
        assert notes[0].startswith("the source's change is neither")

    def test_a_single_day_tells_nothing(self) -> None:
        found, unit, notes = change(self.COMPUTED[:, 1:2], self.COMPUTED[:, :1])
        assert np.isnan(found).all()
        assert unit == "computed"
        assert notes == ("too few moves tell the unit of the source's change: made from the closes instead",)

    def test_it_can_be_left(self) -> None:
        found, unit, notes = change(self.COMPUTED * 100, self.COMPUTED, "computed")
        np.testing.assert_array_equal(found, self.COMPUTED)
        assert (unit, notes) == ("computed", ())
