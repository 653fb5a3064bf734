"""Codes of instruments, brought into the one form that a store has: `SH600000`, `AAPL`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from qlib_ext.checks import UserError, brief, one_of

REGIONS = ("cn", "us")
# How vendors name the exchanges of mainland China.
_EXCHANGES = {
    name: exchange
    for exchange, names in {"SH": "SH SS SSE XSHG", "SZ": "SZ SZE SZSE XSHE", "BJ": "BJ BSE XBSE"}.items()
    for name in names.split()
}
_NAMES = "|".join(sorted(_EXCHANGES, key=len, reverse=True))
_BEFORE = re.compile(rf"({_NAMES})[._-]?(\d{{6}})")
_AFTER = re.compile(rf"(\d{{6}})[._-]?({_NAMES})")
_IN_A_STORE = re.compile(r"(SH|SZ|BJ)\d{6}")
_BARE = re.compile(r"(\d{1,6})(?:\.0)?")  # a spreadsheet has made it a number, perhaps
# The first digits say on which exchange a security is listed; the longest match counts.
_FIRST_DIGITS = {
    digits: exchange
    for exchange, beginnings in {"SH": "5 6 9", "SZ": "0 1 2 3", "BJ": "4 8 92"}.items()
    for digits in beginnings.split()
}
_INDEX = re.compile(r"^(SH000\d{3}|SZ399\d{3}|BJ899\d{3}|CSI\d+|\^.+)$")
_CN_CODE = re.compile(r"^(SH|SZ|BJ)\d{6}$")
_US_CODE = re.compile(r"^[A-Z]{1,5}([.\-_][A-Z]{1,3})?$")
_SAFE = re.compile(r"[A-Z0-9^][A-Z0-9^._=&+-]{0,99}")  # it becomes the name of a folder


def normalise_code(code: str, region: str) -> str:
    """Return a code as a store has it.

    In `cn`, `600000.SH`, `sh.600000`, `600000.XSHG` and `600000` become `SH600000`. A bare number is given its
    zeros back and the exchange of its first digits: 6, 5 and 9 Shanghai, 0 to 3 Shenzhen, 4, 8 and 92 Beijing. So a
    bare `000300` is the stock of Shenzhen; the index must be named `SH000300`. Other codes are only made upper-case,
    in `us` all of them.

    Parameters
    ----------
    code
        As the source has it; blanks around it do not count.
    region
        `cn` or `us`.

    Raises
    ------
    UserError
        If it is empty, cannot name a folder, or is a bare number of no exchange.
    """
    one_of("region", region, REGIONS)
    upper = code.strip().upper()
    if region == "cn":
        if match := _BEFORE.fullmatch(upper):
            return _EXCHANGES[match[1]] + match[2]
        if match := _AFTER.fullmatch(upper):
            return _EXCHANGES[match[2]] + match[1]
        if match := _BARE.fullmatch(upper):
            number = match[1].zfill(6)
            exchange = _FIRST_DIGITS.get(number[:2], _FIRST_DIGITS.get(number[0]))
            if exchange is None:
                raise UserError(
                    f"expected a code whose first digits tell the exchange, found {brief(code)}; write it as SH{number} "
                    f"or SZ{number}"
                )
            return exchange + number
    if not _SAFE.fullmatch(upper):
        raise UserError(
            f"expected a code of letters, digits and . - _ ^ = & + such as "
            f"{'SH600000' if region == 'cn' else 'BRK.B'}, found {brief(code)}"
        )
    return upper


def is_bare(code: str, region: str) -> bool:
    """Whether `normalise_code` has to guess the exchange of a code from its digits."""
    return region == "cn" and _BARE.fullmatch(code.strip()) is not None


def code_in_store(code: str, known: Collection[str]) -> str:
    """Return a code as a store writes it.

    Parameters
    ----------
    code
        Such as 600000.SH, sh.600000, 600000.XSHG, SH600000 or 600000.
    known
        Codes of the store, upper-case. If they look like SH600000, the code is read as a Chinese one.

    Returns
    -------
    A code of `known` where it is one of them; otherwise the same spelling. A bare number is that of the exchange on
    which `known` has it, where that is one alone: 000300 is SH000300 in a store that has the index and no such stock.
    """
    plain = code.strip().upper()
    if plain in known:
        return plain
    region = "cn" if any(map(_IN_A_STORE.fullmatch, known)) else "us"
    if region == "us" or not is_bare(plain, region):
        return normalise_code(plain, region)
    number = _BARE.fullmatch(plain)[1].zfill(6)  # type: ignore[index]
    there = [exchange + number for exchange in ("SH", "SZ", "BJ") if exchange + number in known]
    return there[0] if len(there) == 1 else normalise_code(plain, region)


def is_index(code: str) -> bool:
    """Whether a code is that of an index by its form: `SH000300`, `SZ399006`, `^GSPC`."""
    return _INDEX.match(code) is not None


def region(codes: Sequence[str]) -> str | None:
    """`cn` or `us` where most codes look like it, None otherwise."""
    for name, form in (("cn", _CN_CODE), ("us", _US_CODE)):
        if codes and sum(form.match(code) is not None for code in codes) > 0.8 * len(codes):
            return name
    return None
