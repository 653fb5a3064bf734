from __future__ import annotations

import os
import pickle
import re
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market import store as store_module
from qlib_ext.market.store import QlibStore, StoreError, signature, write_store

CALENDAR = pd.DatetimeIndex(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08"])
NAN = np.nan
CLOSE = np.array(
    [  # SH600001, SZ000002, SZ300003
        [1.0, NAN, NAN],
        [2.0, NAN, 5.0],
        [NAN, NAN, 6.0],
        [4.0, NAN, NAN],
        [5.0, NAN, NAN],
    ]
)
CODES = ["SH600001", "SZ000002", "SZ300003"]
SPELLS = pd.DataFrame(
    {
        "instrument": ["SH600001", "SH600001", "SZ399999", "SZ300003"],
        "start": pd.to_datetime(["2019-12-31", "2020-01-07", "2020-01-02", "2020-01-04"]),
        "end": pd.to_datetime(["2020-01-03", "2020-01-07", "2020-01-08", "2099-12-31"]),
    }
)


@pytest.fixture
def store(tmp_path: Path) -> QlibStore:
    return write_store(
        tmp_path / "s", CALENDAR, CODES, {"close": CLOSE, "open": CLOSE - 0.5}, {"few": SPELLS}
    )


def naive_read(path: Path, days: int) -> list[float]:
    """A bin, one number at a time."""
    raw = path.read_bytes()
    numbers = [struct.unpack("<f", raw[i : i + 4])[0] for i in range(0, len(raw), 4)]
    row = [NAN] * days
    for offset, number in enumerate(numbers[1:]):
        row[int(numbers[0]) + offset] = number
    return row


class TestRoundTrip:
    def test_bars_come_back(self, store: QlibStore) -> None:
        bars = store.read(["close", "open"], CODES)
        assert bars.dtype == np.float32
        np.testing.assert_array_equal(bars, np.stack([CLOSE, CLOSE - 0.5]))

    def test_calendar_universes_and_codes_come_back(self, store: QlibStore) -> None:
        assert store.calendar.equals(CALENDAR)
        assert store.universes() == ["all", "few"]
        assert store.instruments() == ["SH600001", "SZ300003"]  # no folder for a stock without a bar
        assert store.fields("sz300003") == ["close", "open"]

    def test_membership_comes_back_row_by_row(self, store: QlibStore) -> None:
        pd.testing.assert_frame_equal(store.membership("few"), SPELLS)

    def test_all_runs_from_the_first_to_the_last_bar(self, store: QlibStore) -> None:
        assert (store.root / "instruments" / "all.txt").read_text() == (
            "SH600001\t2020-01-02\t2020-01-08\nSZ300003\t2020-01-03\t2020-01-06\n"
        )

    def test_bytes_are_those_of_qlib(self, store: QlibStore) -> None:
        content = (store.root / "features" / "sz300003" / "close.day.bin").read_bytes()
        assert content == struct.pack("<3f", 1, 5, 6)
        assert (store.root / "calendars" / "day.txt").read_bytes().startswith(b"2020-01-02\n2020-01-03\n")

    @given(
        values=st.lists(
            st.one_of(st.just(NAN), st.floats(width=32, allow_infinity=False)), min_size=10, max_size=10
        )
    )
    def test_any_float32_survives(
        self, tmp_path_factory: pytest.TempPathFactory, values: list[float]
    ) -> None:
        bars = np.array(values).reshape(5, 2)
        root = tmp_path_factory.mktemp("any")
        read = write_store(root, CALENDAR, ["A", "B"], {"close": bars}, {}).read(["close"], ["A", "B"])
        np.testing.assert_array_equal(read[0], bars)

    def test_a_field_without_a_value_gets_no_file(self, tmp_path: Path) -> None:
        bars = {"close": CLOSE, "vwap": np.where(np.arange(3) == 2, CLOSE, NAN)}
        store = write_store(tmp_path, CALENDAR, CODES, bars, {})
        assert store.fields("SH600001") == ["close"]
        assert store.fields("SZ300003") == ["close", "vwap"]

    def test_a_universe_without_members(self, tmp_path: Path) -> None:
        store = write_store(tmp_path, CALENDAR, CODES, {"close": CLOSE}, {"none": SPELLS[:0]})
        pd.testing.assert_frame_equal(store.membership("none"), SPELLS[:0], check_index_type=False)
        assert not store.member_mask("none", CODES).any()

    def test_codes_that_are_no_words(self, tmp_path: Path) -> None:
        codes = ["CON", "NA", "NAN"]  # Windows cannot name a folder CON, pandas reads NA as missing
        spells = pd.DataFrame({"instrument": codes, "start": CALENDAR[0], "end": CALENDAR[-1]})
        store = write_store(tmp_path, CALENDAR, codes, {"close": np.ones((5, 3))}, {"odd": spells})
        assert store.instruments() == codes
        assert (tmp_path / "features" / "_qlib_con").is_dir()
        assert store.member_mask("odd", codes).all()
        assert list(store.membership("all")["instrument"]) == codes


class TestRead:
    def test_missing_instrument_or_field_is_nan(self, store: QlibStore) -> None:
        bars = store.read(["close", "vwap"], ["SH999999", "SH600001"])
        assert np.isnan(bars[:, :, 0]).all()
        assert np.isnan(bars[1]).all()
        np.testing.assert_array_equal(bars[0, :, 1], CLOSE[:, 0])

    def test_case_and_dollar_do_not_matter(self, store: QlibStore) -> None:
        np.testing.assert_array_equal(
            store.read(["$Close"], ["sh600001"]), store.read(["close"], ["SH600001"])
        )

    def test_into_an_array_of_any_layout(self, store: QlibStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "_STOCKS_AT_ONCE", 2)
        fields = ["close", "vwap", "open"]
        expected = store.read(fields, CODES)
        out = np.zeros((5, 3, 3), np.float32).transpose(2, 0, 1)
        assert store.read(fields, CODES, out=out) is out
        np.testing.assert_array_equal(out, expected)
        with pytest.raises(ValueError, match=r"`out` must have the shape \(3, 5, 3\), found \(3, 5, 2\)"):
            store.read(fields, CODES, out=out[:, :, :2])

    def test_nothing_asked(self, store: QlibStore) -> None:
        assert store.read([], CODES).shape == (0, 5, 3)
        assert store.read(["close"], []).shape == (1, 5, 0)

    def test_calendar_lines_may_carry_a_time_or_end_blank(self, store: QlibStore) -> None:
        path = store.root / "calendars" / "day.txt"
        path.write_text("".join(f"{day} 00:00:00\r\n" for day in CALENDAR.strftime("%Y-%m-%d")) + "\n")
        assert QlibStore(store.root).calendar.equals(CALENDAR)


class TestSpans:
    def test_they_are_those_of_the_files(self, store: QlibStore) -> None:
        found = store.spans(["close", "vwap"], ["SH600001", "sz300003", "SH999999"])
        np.testing.assert_array_equal(found, [[[0, 5], [1, 3], [0, 0]], [[0, 0], [0, 0], [0, 0]]])


class TestMemberMask:
    def test_both_ends_count_and_spells_add_up(self, store: QlibStore) -> None:
        mask = store.member_mask("few", ["SZ300003", "sh600001", "SZ000002"])
        expected = [[False, True], [False, True], [True, False], [True, True], [True, False]]
        np.testing.assert_array_equal(mask, np.array([[*row, False] for row in expected]))

    def test_against_a_loop_over_days(self, store: QlibStore) -> None:
        mask = store.member_mask("few", CODES)
        for d, day in enumerate(CALENDAR):
            for s, code in enumerate(CODES):
                inside = any(
                    row.instrument == code and row.start <= day <= row.end for row in SPELLS.itertuples()
                )
                assert mask[d, s] == inside


class TestSignature:
    def test_it_covers_what_the_fingerprint_covers(self, store: QlibStore) -> None:
        covered = [name for name, _ in store_module._covered_files(store.root)]
        assert covered == [
            "calendars/day.txt",
            "instruments/all.txt",
            "instruments/few.txt",
            "features/SH600001/close.day.bin",
            "features/SH600001/open.day.bin",
            "features/SZ300003/close.day.bin",
            "features/SZ300003/open.day.bin",
        ]

    def test_it_is_the_same_until_a_file_is_another(self, store: QlibStore) -> None:
        before = signature(store.root)
        assert signature(store.root).digest == before.digest
        for path in ("calendars/day.txt", "instruments/few.txt", "features/sz300003/open.day.bin"):
            shutil.copy(store.root / path, store.root / "copy")
            (store.root / "copy").replace(store.root / path)  # the same content, in another file
            after = signature(store.root)
            assert after.digest != before.digest
            before = after

    def test_a_store_that_was_just_written_is_not_settled(
        self, store: QlibStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not signature(store.root).settled
        now = time.time_ns()
        monkeypatch.setattr(store_module.time, "time_ns", lambda: now + 3 * 10**9)
        assert signature(store.root).settled

    def test_a_file_that_vanishes_meanwhile_is_named(self, store: QlibStore) -> None:
        path = store.root / "features" / "sh600001" / "close.day.bin"
        path.unlink()
        path.symlink_to("nowhere")
        with pytest.raises(
            StoreError, match=r"must hold still while its files are looked at, found no .*close\.day\.bin"
        ):
            signature(store.root)

    def test_a_fingerprint_that_is_known_is_not_read(self, store: QlibStore) -> None:
        store.know_fingerprint("0123456789abcdef")
        assert store.fingerprint() == "0123456789abcdef"
        assert QlibStore(store.root).fingerprint() != "0123456789abcdef"

    def test_what_was_found_out_does_not_travel(self, store: QlibStore) -> None:
        store.know_fingerprint("0123456789abcdef")
        store.instruments()
        again = pickle.loads(pickle.dumps(store))
        assert again.fingerprint() == QlibStore(store.root).fingerprint()
        assert again.instruments() == store.instruments()
        assert again.calendar.equals(store.calendar)


class TestFingerprint:
    def test_same_content_elsewhere_has_the_same(self, store: QlibStore, tmp_path: Path) -> None:
        shutil.copytree(store.root, tmp_path / "copy")
        assert QlibStore(tmp_path / "copy").fingerprint() == store.fingerprint()

    def test_golden(self, store: QlibStore) -> None:
        assert store.fingerprint() == "f6434484348f28a6"

    @pytest.mark.parametrize("what", ["calendar", "membership", "bar", "new file"])
    def test_any_change_of_content_shows(self, store: QlibStore, what: str) -> None:
        before = store.fingerprint()
        if what == "calendar":
            path = store.root / "calendars" / "day.txt"
            path.write_text(path.read_text().replace("2020-01-08", "2020-01-09"))
        elif what == "membership":
            path = store.root / "instruments" / "few.txt"
            path.write_text(path.read_text().replace("2020-01-03", "2020-01-02"))
        elif what == "bar":
            path = store.root / "features" / "sh600001" / "close.day.bin"
            path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", 5.5))
        else:
            shutil.copy(
                store.root / "features/sh600001/close.day.bin", store.root / "features/sh600001/vwap.day.bin"
            )
        assert QlibStore(store.root).fingerprint() != before


class TestProgress:
    def test_the_writer_says_how_far_it_is(self, tmp_path: Path) -> None:
        said: list[tuple[int, int, str]] = []
        write_store(tmp_path / "s", CALENDAR, CODES, {"close": CLOSE}, {}, lambda *now: said.append(now))
        assert said == [(i, 3, "writing instruments") for i in range(3)]


class TestErrors:
    def test_a_missing_directory_names_the_commands_that_help(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError) as caught:
            QlibStore(tmp_path / "nowhere")
        message = str(caught.value)
        assert isinstance(caught.value, UserError)
        assert message == (
            f"expected a Qlib data directory, found no directory at `{tmp_path / 'nowhere'}`. To get a store: "
            "`qlib-ext data sample --out DIR` makes a sample market, `qlib-ext data download --out DIR` is Qlib's own "
            "data, `qlib-ext data import` makes one of CSV or Parquet; then set QLIB_DATA=DIR"
        )

    def test_missing_parts_are_named(self, store: QlibStore) -> None:
        shutil.rmtree(store.root / "instruments")
        (store.root / "calendars" / "day.txt").unlink()
        with pytest.raises(
            StoreError, match=r"is no Qlib data directory: calendars/day\.txt, instruments missing\. To get"
        ):
            QlibStore(store.root)

    def test_an_unknown_universe_lists_the_known(self, store: QlibStore) -> None:
        with pytest.raises(
            StoreError, match=r"has no universe 'fev' \(did you mean few\?\); instruments/ holds all, few"
        ):
            store.member_mask("fev", CODES)

    def test_an_unknown_instrument_names_the_nearest(self, store: QlibStore) -> None:
        with pytest.raises(
            StoreError,
            match=r"no bars of 'SH600002' \(did you mean SH600001 or SZ300003\?\); features/ holds 2",
        ):
            store.fields("SH600002")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "must hold trading days, found none"),
            ("2020-01-03\n2020-01-02\n", "must be in ascending order, found 2020-01-02 after 2020-01-03"),
            ("2020-01-03\n2020-01-03\n", "must be in ascending order, found 2020-01-03 after 2020-01-03"),
            ("day one\n", "must have one day a line, such as 2010-01-04"),
        ],
    )
    def test_calendars_that_are_none(self, store: QlibStore, text: str, message: str) -> None:
        (store.root / "calendars" / "day.txt").write_text(text)
        with pytest.raises(StoreError, match=message):
            QlibStore(store.root)

    @pytest.mark.parametrize(
        "text",
        [
            "SH600001\t2020-01-02\n",
            "SH600001\tx\ty\n",
            "SH600001,2020-01-02,2020-01-03\n",
            "A\t2020-01-02\t2020-01-03\nB\t2020-01-02\n",
        ],
    )
    def test_memberships_that_are_none(self, store: QlibStore, text: str) -> None:
        (store.root / "instruments" / "few.txt").write_text(text)
        with pytest.raises(StoreError, match=r"few\.txt` must have lines CODE<TAB>first day<TAB>last day"):
            store.membership("few")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "must hold a start index and float32 values, found 0 bytes"),
            (b"12345", "must hold a start index and float32 values, found 5 bytes"),
            (struct.pack("<3f", 4, 1, 2), r"within the 5 days of calendars/day\.txt, found days 4 to 5"),
            (struct.pack("<2f", -1, 1), "found days -1 to -1"),
            (struct.pack("<2f", 0.5, 1), "found days 0.5 to 0.5"),
            (struct.pack("<2f", NAN, 1), "found days nan to nan"),
        ],
    )
    def test_bins_that_are_none(self, store: QlibStore, content: bytes, message: str) -> None:
        (store.root / "features" / "sh600001" / "close.day.bin").write_bytes(content)
        with pytest.raises(StoreError, match=message):
            store.read(["close"], ["SH600001"])

    @pytest.mark.parametrize(
        "file",
        ["calendars/day.txt", "instruments/few.txt", "features/sh600001/close.day.bin", "side/sample.json"],
    )
    def test_a_pipe_is_refused_and_no_reader_waits(self, store: QlibStore, file: str) -> None:
        (store.root / "side").mkdir()
        (store.root / file).unlink(missing_ok=True)
        os.mkfifo(store.root / file)
        looks: tuple[Callable[[], object], ...] = (
            lambda: QlibStore(store.root),
            lambda: store.membership("few"),
            lambda: store.read(["close"], ["SH600001"]),
            store.fingerprint,
            lambda: store.sample,
        )
        refused = []
        for look in looks:
            try:
                look()
            except StoreError as error:
                refused.append(str(error))
        assert refused
        assert all(file in one and ("found a pipe" in one or "missing" in one) for one in refused)

    def test_a_bin_that_is_far_too_large_is_not_read(
        self, store: QlibStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = store.root / "features" / "sh600001" / "close.day.bin"
        os.truncate(path, 1 << 40)
        with pytest.raises(StoreError, match=r"found days 0 to 2\.74878e\+11"):
            store.read(["close"], ["SH600001"])
        with pytest.raises(StoreError, match="must have at most 24 bytes"):
            store.fingerprint()

    @pytest.mark.parametrize(
        ("limit", "message"),
        [
            ("MOST_DAYS", r"day\.txt` must have at most 2 days, found 5"),
            ("MOST_CODES", r"few\.txt` must name at most 2 instruments, found 3"),
            ("LIST_SIZE", r"day\.txt` must have at most 2 bytes"),
        ],
    )
    def test_lists_that_are_longer_than_any_market(
        self, store: QlibStore, limit: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, limit, 2)
        with pytest.raises(StoreError, match=message):
            QlibStore(store.root).membership("few")

    def test_two_folders_of_one_code(self, store: QlibStore) -> None:
        (store.root / "features" / "SH600001").mkdir(exist_ok=True)
        if len(list((store.root / "features").iterdir())) == 2:
            return  # a file system that ignores case cannot hold both
        with pytest.raises(StoreError, match="more than one folder of SH600001"):
            QlibStore(store.root).instruments()

    def test_writing_over_something(self, store: QlibStore) -> None:
        with pytest.raises(StoreError, match="must be a new or an empty directory"):
            write_store(store.root, CALENDAR, CODES, {"close": CLOSE}, {})

    def test_shapes_codes_and_columns_are_checked(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"`bars\['close'\]` must have .* \(5, 3\), found \(3, 5\)"):
            write_store(tmp_path, CALENDAR, CODES, {"close": CLOSE.T}, {})
        with pytest.raises(StoreError, match="`instruments` must differ, found more than once: SH600001"):
            write_store(tmp_path, CALENDAR, ["SH600001", "sh600001", "A"], {"close": CLOSE}, {})
        with pytest.raises(StoreError, match="`calendar` must be in ascending order"):
            write_store(tmp_path, CALENDAR[::-1], CODES, {"close": CLOSE}, {})
        with pytest.raises(StoreError, match=r"`memberships\['few'\]` must have .* found no end"):
            write_store(tmp_path, CALENDAR, CODES, {"close": CLOSE}, {"few": SPELLS.drop(columns="end")})
        assert not list(tmp_path.iterdir())


class TestRealStore:
    def test_bars_equal_a_naive_read(self, real_store: QlibStore) -> None:
        codes = ["SH000300", "SH600000", *real_store.instruments()[::97]]
        fields = ["open", "close", "volume", "factor"]
        bars = real_store.read(fields, codes)
        for f, field in enumerate(fields):
            for s, code in enumerate(codes):
                path = real_store.root / "features" / code.lower() / f"{field}.day.bin"
                np.testing.assert_array_equal(bars[f, :, s], naive_read(path, len(real_store.calendar)))

    def test_what_it_holds(self, real_store: QlibStore) -> None:
        assert len(real_store.calendar) == 2674
        assert len(real_store.instruments()) == 647
        assert real_store.universes() == ["all", "csi300"]
        assert "vwap" not in real_store.fields("SH600000")

    def test_members_without_bars_stay_in_the_membership(self, real_store: QlibStore) -> None:
        named = set(real_store.membership("csi300")["instrument"])
        assert len(named - set(real_store.instruments())) == 38
        assert real_store.member_mask("csi300", sorted(named)).sum(axis=1).max() == 300


class TestQlib:
    def test_qlib_writes_what_we_read(self, tmp_path: Path) -> None:
        """The oracle of the format: Qlib's own writer of bins."""
        from qlib.data.storage.file_storage import FileFeatureStorage

        store = write_store(tmp_path, CALENDAR, ["SH600001"], {"close": CLOSE[:, :1]}, {})
        path = tmp_path / "features" / "sh600001" / "open.day.bin"

        class Storage(FileFeatureStorage):
            uri = path

        Storage("SH600001", "open", "day").write([7.0, NAN, 9.0], index=1)
        np.testing.assert_array_equal(store.read(["open"], ["SH600001"])[0, :, 0], [NAN, 7, NAN, 9, NAN])


class TestReplaced:
    """A store that another version replaced is not read on as if nothing were: half of it would be of each."""

    @pytest.fixture
    def replaced_store(self, store: QlibStore, tmp_path: Path) -> QlibStore:
        opened = QlibStore(store.root)
        opened.instruments()  # found out before
        shutil.copytree(store.root, tmp_path / "new")
        store.root.rename(tmp_path / "old")
        (tmp_path / "new").rename(store.root)
        return opened

    @pytest.mark.parametrize(
        "look",
        [
            lambda store: store.read(["close"], store.instruments()),
            lambda store: store.spans(["close"], store.instruments()),
            lambda store: store.membership("all"),
            lambda store: store.fingerprint(),
        ],
        ids=["read", "spans", "membership", "fingerprint"],
    )
    def test_it_says_so(self, replaced_store: QlibStore, look: Callable[[QlibStore], object]) -> None:
        with pytest.raises(
            StoreError, match="was replaced by another version since it was opened; open it again"
        ):
            look(replaced_store)

    def test_opened_again_it_is_read(self, replaced_store: QlibStore) -> None:
        again = QlibStore(replaced_store.root)
        assert again.read(["close"], again.instruments()).size

    def test_a_replacement_that_was_cut_short_is_named(self, store: QlibStore) -> None:
        old = store.root.with_name(f".{store.root.name}.qlib-ext.old")
        store.root.rename(old)
        with pytest.raises(StoreError, match=re.escape(f"`mv {old} {store.root}` puts it back")):
            QlibStore(store.root)
