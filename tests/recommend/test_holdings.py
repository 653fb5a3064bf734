"""What an account holds, as people and brokers write it down."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.holdings import Holdings, read_holdings


@pytest.fixture
def code(newest: QlibStore) -> str:
    return next(code for code in newest.instruments() if code.startswith("SH60"))


@pytest.fixture
def other(newest: QlibStore) -> str:
    return next(code for code in newest.instruments() if code.startswith("SZ00"))


def read(store: QlibStore, path: Path, text: str, cash: float | None = None) -> Holdings:
    path.write_text(text, encoding="utf-8")
    return read_holdings(path, store, cash)


class TestReading:
    def test_codes_shares_and_cash(self, newest: QlibStore, code: str, other: str, tmp_path: Path) -> None:
        text = f"code,shares\n{code.lower()},1200\n\n{other},300.5\ncash,10000.25\n"
        assert read(newest, tmp_path / "held.csv", text) == Holdings(10000.25, {code: 1200.0, other: 300.5})

    def test_shortened_codes(self, newest: QlibStore, code: str, tmp_path: Path) -> None:
        text = f"code,shares\n{code[2:]},1200\ncash,1\n"
        assert read(newest, tmp_path / "held.csv", text).shares == {code: 1200.0}

    def test_a_brokers_own_names_order_and_mark_of_order(
        self, newest: QlibStore, code: str, other: str, tmp_path: Path
    ) -> None:
        text = f"\ufeffQuantity,Price,Symbol,days_held\n100,9.5, {code} ,7\n0,1,{other},\n"
        found = read(newest, tmp_path / "held.csv", text, cash=5.0)
        assert found == Holdings(5.0, {code: 100.0}, {code: 7})

    def test_an_account_of_cash_alone(self, newest: QlibStore, tmp_path: Path) -> None:
        assert read(newest, tmp_path / "held.csv", "code,shares\nCASH,7\n") == Holdings(7.0)


class TestStops:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty: its first line must be `code,shares`"),
            ("ticker;shares\nA;1\n", "must have the columns code and shares, found ticker;shares"),
            ("code,symbol,shares\n", "must have one column for the code"),
            ("code,shares\nSH999999,1\nCASH,1\n", "line 2: the store .* has no stock 'SH999999'"),
            (
                "code,shares\n{code},-100\nCASH,1\n",
                "line 2: the shares of {code} must be at least 0, found '-100'",
            ),
            ("code,shares\n{code},1_000\nCASH,1\n", "must be a number, without separators; found '1_000'"),
            ("code,shares\n{code},nan\nCASH,1\n", "must be at least 0, found 'nan'"),
            ("code,shares\n{code}\nCASH,1\n", "must be a number, without separators; found ''"),
            (
                "code,shares\n{code},1\n{code},2\nCASH,1\n",
                "line 3: {code} must come once, found it in line 2 too",
            ),
            ("code,shares\nCASH,1\nCASH,2\n", "CASH must come once"),
            ("code,shares\nCASH,-1\n", "line 2: the cash must be at least 0"),
            ("code,shares\n{code},100\n", "add a row `CASH,<amount>` to .*, or give `--cash`"),
            (
                "code,shares,days_held\n{code},100,a week\nCASH,1\n",
                "`days_held` must be a number of trading days",
            ),
        ],
    )
    def test_in_one_line_that_names_the_place(
        self, newest: QlibStore, code: str, tmp_path: Path, text: str, message: str
    ) -> None:
        with pytest.raises(UserError, match=message.replace("{code}", code)) as caught:
            read(newest, tmp_path / "held.csv", text.replace("{code}", code))
        assert "\n" not in str(caught.value)

    def test_cash_from_two_places(self, newest: QlibStore, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="the cash must be given once"):
            read(newest, tmp_path / "held.csv", "code,shares\nCASH,1\n", cash=1.0)

    @pytest.mark.parametrize("cash", [-1.0, float("nan"), float("inf")])
    def test_cash_that_is_none(self, newest: QlibStore, tmp_path: Path, cash: float) -> None:
        with pytest.raises(UserError, match="`--cash` must be an amount of at least 0"):
            read(newest, tmp_path / "held.csv", "code,shares\n", cash=cash)

    def test_a_file_that_cannot_be_read(self, newest: QlibStore, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="must be a CSV file in UTF-8"):
            read_holdings(tmp_path / "none.csv", newest)
        (tmp_path / "held.csv").write_bytes(b"code,shares\n\xff\xfe,1\n")
        with pytest.raises(UserError, match="must be a CSV file in UTF-8"):
            read_holdings(tmp_path / "held.csv", newest)
