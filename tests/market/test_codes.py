from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.codes import is_bare, normalise_code

NUMBER = st.from_regex(r"[036]\d{5}", fullmatch=True)


class TestChina:
    @pytest.mark.parametrize(
        "written",
        [
            "600000.SH",
            "600000.sh",
            "sh.600000",
            "SH600000",
            "sh600000",
            "600000.XSHG",
            "600000.SS",
            " 600000 ",
        ],
    )
    def test_vendors_spellings_are_one(self, written: str) -> None:
        assert normalise_code(written, "cn") == "SH600000"

    @pytest.mark.parametrize(
        ("written", "code"),
        [
            ("1", "SZ000001"),  # read as a number, it lost its zeros
            ("600163.0", "SH600163"),
            ("000300", "SZ000300"),
            ("000300.SH", "SH000300"),
            ("300750", "SZ300750"),
            ("200011", "SZ200011"),
            ("159915", "SZ159915"),
            ("510300", "SH510300"),
            ("688981", "SH688981"),
            ("900901", "SH900901"),
            ("920002", "BJ920002"),
            ("830799", "BJ830799"),
            ("430047.BJ", "BJ430047"),
            ("000001.XSHE", "SZ000001"),
        ],
    )
    def test_the_exchange(self, written: str, code: str) -> None:
        assert normalise_code(written, "cn") == code

    @given(NUMBER, st.sampled_from(["SH", "SZ", "BJ"]))
    def test_a_code_stays_as_it_is(self, number: str, exchange: str) -> None:
        code = exchange + number
        assert normalise_code(code, "cn") == code == normalise_code(f"{number}.{exchange.lower()}", "cn")

    def test_other_codes_are_only_made_upper_case(self) -> None:
        assert normalise_code("csi_test", "cn") == "CSI_TEST"

    def test_a_number_of_no_exchange(self) -> None:
        with pytest.raises(
            UserError, match=r"first digits tell the exchange, found '730000'; write it as SH730000"
        ):
            normalise_code("730000", "cn")


class TestUnitedStates:
    @pytest.mark.parametrize(
        ("written", "code"), [("aapl", "AAPL"), (" BRK.B", "BRK.B"), ("^gspc", "^GSPC"), ("600000", "600000")]
    )
    def test_upper_case(self, written: str, code: str) -> None:
        assert normalise_code(written, "us") == code


class TestRefused:
    @pytest.mark.parametrize(
        "written", ["", "  ", "..", ".hidden", "a/b", "a\\b", "A B", "A\tB", "A\n"[:1] + "\0"]
    )
    @pytest.mark.parametrize("region", ["cn", "us"])
    def test_what_cannot_name_a_folder(self, written: str, region: str) -> None:
        with pytest.raises(UserError, match="expected a code of letters, digits"):
            normalise_code(written, region)

    def test_an_unknown_region(self) -> None:
        with pytest.raises(UserError, match="`region` must be one of cn, us, found 'uk'"):
            normalise_code("A", "uk")


@pytest.mark.parametrize(
    ("written", "bare"), [("000300", True), ("1", True), ("SH000300", False), ("A", False)]
)
def test_bare_codes_are_known(written: str, bare: bool) -> None:
    assert is_bare(written, "cn") is bare
    assert not is_bare(written, "us")
