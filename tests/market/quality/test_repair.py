from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.quality.check import check_store
from qlib_ext.market.quality.repair import Repair, check_out, repair
from qlib_ext.market.store import QlibStore


def fixed(market, tmp_path: Path) -> Repair:  # type: ignore[no-untyped-def]
    """The repair of a store; it must leave the store as it is."""
    before = snapshot(market.root)
    result = repair(market.root, tmp_path / "fixed", market.audit())
    assert snapshot(market.root) == before
    return result


def snapshot(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def kinds(result: Repair) -> tuple[dict[str, int], dict[str, int]]:
    """Mended and left findings, counted by kind."""
    return tuple(dict(Counter(f.kind for f in findings)) for findings in (result.mended, result.left))  # type: ignore[return-value]


class TestNothingToDo:
    def test_a_clean_store_is_copied_bit_by_bit(self, clean: Path, tmp_path: Path) -> None:
        result = repair(clean, tmp_path / "fixed", check_store(clean))
        assert (result.done, result.mended, result.left) == ((), [], [])
        assert snapshot(tmp_path / "fixed") == snapshot(clean)
        assert QlibStore(tmp_path / "fixed").fingerprint() == QlibStore(clean).fingerprint()

    def test_no_file_is_shared(self, clean: Path, tmp_path: Path) -> None:
        # Qlib appends to files in place: that must not reach the other store.
        repair(clean, tmp_path / "fixed", check_store(clean))
        assert all(path.stat().st_nlink == 1 for path in (tmp_path / "fixed").rglob("*") if path.is_file())

    def test_what_cannot_be_known_is_left(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        one, other = market.stocks[:2]
        market.scale(one, slice(100, None), 0.5)
        market.set(other, "change", 50, 0.09)
        market.set_rows("csi300", [*market.rows("csi300"), ["SH699999", "2014-02-10", "2014-02-11"]])
        result = fixed(market, tmp_path)
        assert result.done == ()
        assert kinds(result)[0] == {}
        assert [(f.kind, f.instrument) for f in result.left] == [
            (f.kind, f.instrument) for f in result.before.findings
        ]
        assert snapshot(tmp_path / "fixed") == snapshot(market.root)


class TestNames:
    def test_folders_and_files_get_lower_case(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        fingerprint = QlibStore(market.root).fingerprint()
        one, other = market.stocks[:2]
        features = market.root / "features"
        (features / one.lower()).rename(features / one)
        market.path(other, "open").rename(market.path(other, "open").with_name("Open.DAY.bin"))
        (market.root / "instruments" / "sse50.txt").rename(market.root / "instruments" / "SSE50.txt")
        result = fixed(market, tmp_path)
        assert kinds(result) == ({"upper-case-folder": 1, "upper-case-file": 2}, {})
        assert result.done == ("files renamed to lower case: 2", "folders renamed to lower case: 1")
        assert QlibStore(tmp_path / "fixed").fingerprint() == fingerprint

    def test_what_lies_astray_is_left_out(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        fingerprint = QlibStore(market.root).fingerprint()
        one = market.stocks[0]
        market.text("features/.DS_Store", "x")
        market.text(f"features/{one.lower()}/close.day.bin.tmp", "x")
        market.text("instruments/notes.md", "x")
        (market.root / "features" / "sh699999").mkdir()
        market.bytes(f"features/{one.lower()}/alpha.day.bin", b"")
        result = fixed(market, tmp_path)
        assert kinds(result) == ({"stray-file": 3, "folder-empty": 1, "bin-empty": 1}, {})
        assert QlibStore(tmp_path / "fixed").fingerprint() == fingerprint

    def test_a_doubled_folder_goes_only_if_it_is_the_same(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        one, other = market.stocks[:2]
        features = market.root / "features"
        for code in (one, other):
            shutil.copytree(features / code.lower(), features / code)
        market.write(features / other / "open.day.bin", 0, np.ones(3))
        result = fixed(market, tmp_path)
        assert [finding.instrument for finding in result.mended] == [one]
        assert [(finding.kind, finding.instrument) for finding in result.left] == [("folder-twice", other)]
        assert (tmp_path / "fixed" / "features" / other / "open.day.bin").stat().st_size == 16


class TestCalendar:
    def test_days_are_sorted_and_bars_go_with_them(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        expected = QlibStore(market.root).fingerprint()
        order = np.arange(len(market.days))
        order[[10, 60]] = order[[60, 10]]  # a stock that lists late has no bar on either
        days = market.days
        market._every_bin(lambda row: row[order])
        market.set_days([days[n] for n in order])
        result = fixed(market, tmp_path)
        assert "calendar-unsorted" in kinds(result)[0]
        assert kinds(result)[1] == {}
        assert QlibStore(tmp_path / "fixed").fingerprint() == expected

    def test_a_doubled_day_is_joined(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        expected = QlibStore(market.root).fingerprint()
        market.insert_day(101, market.days[100])
        one = market.path(market.stocks[0], "close")
        start, values = market.read(one)
        values[[100 - start, 101 - start]] = values[
            [101 - start, 100 - start]
        ]  # the bar stands on the second
        market.write(one, start, values)
        result = fixed(market, tmp_path)
        assert kinds(result)[1] == {}
        assert QlibStore(tmp_path / "fixed").fingerprint() == expected

    def test_two_different_bars_of_one_day_are_left(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        market.insert_day(101, market.days[100], copied=True)
        one = market.stocks[0]
        market.set(one, "volume", 101, 7.0)
        result = fixed(market, tmp_path)
        assert result.after.of("calendar-doubled-day")
        assert snapshot(tmp_path / "fixed")["calendars/day.txt"] == snapshot(market.root)["calendars/day.txt"]

    def test_closed_days_without_bars_are_taken_out(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        expected = QlibStore(market.root).fingerprint()
        days = market.days
        market.insert_day(days.index("2014-04-30") + 1, "2014-05-01")  # a holiday
        market.insert_day(days.index("2014-02-14") + 1, "2014-02-15")  # a Saturday
        result = fixed(market, tmp_path)
        assert kinds(result)[1] == {}
        assert result.done == (
            "days without any bar taken out of the calendar, on which the exchange was closed: 2",
        )
        assert QlibStore(tmp_path / "fixed").fingerprint() == expected

    def test_a_holiday_with_bars_is_left(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        market.insert_day(market.days.index("2014-04-30") + 1, "2014-05-01", copied=True)
        result = fixed(market, tmp_path)
        assert result.after.of("calendar-extra-session")
        assert len(QlibStore(tmp_path / "fixed").calendar) == 303

    def test_other_ways_to_write_a_day(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        expected = QlibStore(market.root).fingerprint()
        days = market.days
        market.set_days([days[0].replace("-", "/"), f"{days[1]} 15:00:00", *days[2:]])
        result = fixed(market, tmp_path)
        assert kinds(result) == ({"calendar-format": 1, "calendar-time-of-day": 1}, {})
        assert QlibStore(tmp_path / "fixed").fingerprint() == expected

    def test_a_line_that_is_no_day_is_left(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        days = market.days
        market.set_days([*days[:5], "then", *days[6:]])
        result = fixed(market, tmp_path)
        assert result.after.of("calendar-unparsable")
        assert snapshot(tmp_path / "fixed") == snapshot(market.root)


class TestValues:
    def test_what_is_no_price_becomes_nan(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        one = market.stocks[0]
        for day, (field, value) in enumerate(
            [
                ("open", np.inf),
                ("open", -1.0),
                ("low", 0.0),
                ("volume", -3.0),
                ("factor", 0.0),
                ("amount", -np.inf),
            ],
            start=100,
        ):
            market.set(one, field, day, value)
        result = fixed(market, tmp_path)
        assert kinds(result)[0] == {
            "value-infinite": 2,
            "price-negative": 1,
            "price-zero": 1,
            "volume-negative": 1,
            "factor-nonpositive": 1,
        }
        # What mending brings to light is told: these bars lack a number now.
        assert kinds(result)[1] == {"price-missing": 1, "volume-missing": 1, "factor-missing": 1}
        store = QlibStore(tmp_path / "fixed")
        for field in ("open", "low", "volume", "factor", "amount", "close"):
            old, new = (QlibStore(root).read([field], [one])[0, :, 0] for root in (market.root, store.root))
            wrong = ~np.isfinite(old) | (old <= 0)
            assert np.isnan(new[wrong]).all()
            np.testing.assert_array_equal(new[~wrong], old[~wrong])

    def test_change_in_percent_becomes_a_fraction(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        one = market.stocks[0]
        expected = market.row(one, "change")
        market.scale(one, slice(None), 100, ("change",))
        result = fixed(market, tmp_path)
        assert kinds(result) == ({"change-in-percent": 1}, {})
        np.testing.assert_allclose(
            QlibStore(tmp_path / "fixed").read(["change"], [one])[0, :, 0], expected, rtol=1e-6
        )


class TestMemberships:
    def test_rows_are_put_in_order(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        days = market.days
        a, b, c = market.stocks[:3]
        market.text(
            "instruments/few.txt",
            f"{a.lower()}\t{days[0]}\t{days[50]}\n"
            f"{b},{days[0]},{days[-1]}\n"
            f"{a}\t{days[40]}\t{days[90]}\textra\n"
            f"{c}\t20140102\t2099-12-31\n"
            f"{b}\t{days[0]}\t{days[-1]}\n"
            f"{c}\t2005-01-04\t2006-01-04\n"
            f"{a}\t{days[80]}\t{days[70]}\n"
            f"{a}\t{days[92]}\n",
        )
        result = fixed(market, tmp_path)
        assert (tmp_path / "fixed" / "instruments" / "few.txt").read_text() == (
            f"{a}\t{days[0]}\t{days[90]}\n"
            f"{b}\t{days[0]}\t{days[-1]}\n"
            f"{c}\t{days[0]}\t{days[-1]}\n"
            f"{a}\t{days[80]}\t{days[70]}\n"
            f"{a}\t{days[92]}\n"
        )
        mended, left = kinds(result)
        assert mended == {
            "membership-separator": 1,
            "membership-date-format": 1,
            "membership-overlap": 1,
            "membership-doubled-row": 1,
            "membership-lower-case": 1,
            "membership-outside-calendar": 1,
            "membership-open-ended": 1,
        }
        assert left == {"membership-incomplete": 1, "membership-reversed": 1}

    def test_spells_that_only_touch_stay_apart(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        days = market.days
        one = market.stocks[0]
        rows = [[one, days[0], days[49]], [one, days[50], days[-1]]]
        market.set_rows("few", rows)
        fixed(market, tmp_path)
        assert (tmp_path / "fixed" / "instruments" / "few.txt").read_text() == "".join(
            "\t".join(row) + "\n" for row in rows
        )

    @pytest.mark.parametrize("there", [True, False])
    def test_all_is_written_from_the_bars(self, market, tmp_path: Path, there: bool) -> None:  # type: ignore[no-untyped-def]
        rows = market.rows("all")
        if there:
            market.set_rows("all", [["SH699999", "2014-01-02", "2015-03-31"], *rows[2:5], *rows[6:]])
        else:
            (market.root / "instruments" / "all.txt").unlink()
        result = fixed(market, tmp_path)
        assert kinds(result)[1] == {}
        assert (tmp_path / "fixed" / "instruments" / "all.txt").read_text() == "".join(
            "\t".join(row) + "\n" for row in sorted(rows)
        )

    def test_an_all_that_is_no_text_is_written_anew(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        rows = market.rows("all")
        market.bytes("instruments/all.txt", b"\xff\xfe\x00SH600000")
        result = fixed(market, tmp_path)
        assert result.after.findings == ()
        text = (tmp_path / "fixed" / "instruments" / "all.txt").read_text()
        assert text == "".join("\t".join(row) + "\n" for row in sorted(rows))


class TestAnswer:
    def test_it_survives_json(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        market.set(market.stocks[0], "open", 100, np.inf)
        document = json.loads(json.dumps(fixed(market, tmp_path).to_json(), allow_nan=False))
        assert document["done"] == ["infinite values of `open` replaced by NaN: 1"]
        assert [finding["kind"] for finding in document["mended"]] == ["value-infinite"]
        assert document["before"]["counts"] == {"error": 1, "warning": 0, "note": 0}
        assert document["after"]["counts"] == {"error": 0, "warning": 1, "note": 0}

    def test_a_repaired_store_has_nothing_more_to_repair(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        one = market.stocks[0]
        market.set(one, "open", 100, np.inf)
        market.set_rows("csi300", [row for row in market.rows("csi300") for _ in range(2)])
        market.insert_day(101, market.days[100])
        first = fixed(market, tmp_path)
        again = repair(tmp_path / "fixed", tmp_path / "again", first.after)
        assert again.done == ()
        assert QlibStore(tmp_path / "again").fingerprint() == QlibStore(tmp_path / "fixed").fingerprint()

    def test_side_data_and_settings_come_along(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        market.text("universes.json", "{}")
        market.set(market.stocks[0], "open", 100, np.inf)
        fixed(market, tmp_path)
        old, new = snapshot(market.root), snapshot(tmp_path / "fixed")
        assert {file for file in old if old[file] != new[file]} == {market.file(market.stocks[0], "open")}
        assert old.keys() == new.keys()


class TestOut:
    def test_it_must_be_new(self, clean: Path, tmp_path: Path) -> None:
        (tmp_path / "dear").write_text("dear")
        with pytest.raises(
            UserError, match=r"must name a new or an empty directory, found something at .*nothing was"
        ):
            check_out(clean, tmp_path)
        with pytest.raises(UserError, match="must name a new or an empty directory"):
            check_out(clean, tmp_path / "dear")

    @pytest.mark.parametrize("inside", [".", "fixed", "features/fixed"])
    def test_it_must_lie_elsewhere(self, clean: Path, inside: str) -> None:
        with pytest.raises(UserError, match="leaves the old one as it is"):
            check_out(clean, clean / inside)

    def test_a_store_that_cannot_be_copied_leaves_nothing(self, market, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        (market.root / "side" / "link").symlink_to(tmp_path / "nowhere")
        with pytest.raises(UserError, match="expected a file, a directory or a link to one"):
            repair(market.root, tmp_path / "fixed", market.audit())
        assert not (tmp_path / "fixed").exists()
