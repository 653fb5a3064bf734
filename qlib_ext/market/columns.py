"""Which column of a source is which field: the names that vendors use, and the ones that a user gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from qlib_ext.checks import UserError, brief, nearest

Known = Mapping[str, tuple[frozenset[str], ...]]

# Names as `_plain` leaves them. Where a field has two groups, the first one of which a column is there counts.
KNOWN: Known = {
    field: tuple(frozenset(group.split()) for group in groups)
    for field, groups in {
        "date": [
            "date datetime timestamp tradedate tradingdate tradeday tradingday 日期 交易日期 交易日",
            "day time",
        ],
        "code": ["code symbol ticker instrument tscode stockcode secucode wincode 代码 股票代码 证券代码"],
        "open": ["open openprice opening 开盘 开盘价"],
        "high": ["high highprice highest 最高 最高价"],
        "low": ["low lowprice lowest 最低 最低价"],
        "close": ["close closeprice closing 收盘 收盘价", "price"],
        "adj_close": ["adjclose adjustedclose adjcloseprice closeadj 复权收盘价"],
        "volume": ["volume vol tradevolume tradingvolume totalvolume 成交量"],
        "amount": [
            "amount money tradedvalue tradingvalue tradedamount turnovervalue dollarvolume 成交额 成交金额"
        ],
        "vwap": ["vwap avgprice averageprice 均价 成交均价"],
        "factor": ["factor adjfactor adjustfactor adjustmentfactor 复权因子"],
        # Where a source has both, `change` is often a difference of prices.
        "change": ["pctchg pctchange changepct changepercent 涨跌幅", "change"],
        # What a vendor says of the day; see `STATUSES`.
        "preclose": ["preclose prevclose previousclose 前收盘 前收盘价 昨收 昨收盘 昨收盘价"],
        "traded": ["tradestatus tradingstatus 交易状态"],
        "paused": ["paused suspended issuspended 是否停牌"],
        "split": ["stocksplits stocksplit splits splitfactor splitratio"],
        "dividend": ["dividends dividend divcash cashdividend exdividend"],
    }.items()
}
REQUIRED = ("date", "open", "high", "low", "close", "volume")
INDISPENSABLE = ("date", "code", "close")  # no bar is without them
# Of a bar, and no part of it: they are used, and not written into a store.
STATUSES = ("preclose", "traded", "paused", "split", "dividend")


def recognise(
    header: Sequence[str],
    given: Mapping[str, str],
    *,
    where: str,
    known: Known = KNOWN,
    required: Sequence[str] = REQUIRED,
) -> dict[str, str]:
    """Find the column of each field.

    Names are compared without case, blanks and punctuation: `Adj Close`, `adj_close` and `AdjClose` are one.

    Parameters
    ----------
    header
        Columns of the source.
    given
        Field to column, as the user says; an empty column says that there is none.
    where
        The source, for messages.
    known
        Field to the groups of names that mean it.
    required
        Fields that must have a column, unless `given` says that there is none.

    Returns
    -------
    dict
        Field to column, for the fields that have one.

    Raises
    ------
    UserError
        If a column given is not there, a required field has none, several columns could be one field, or one
        column is to be two fields. The message lists the columns found.
    """
    found = f"the columns of {where} are {', '.join(map(repr, header)) or 'none'}"
    columns: dict[str, str] = {}
    for field, column in given.items():
        if column and column not in header:
            raise UserError(
                f"`{field}` must be a column, found no {brief(column)}{nearest(column, header)}; {found}"
            )
        if column:
            columns[field] = column
    taken = set(columns.values())
    for field, groups in known.items():
        if field in given:
            continue
        for group in groups:
            candidates = [column for column in header if _plain(column) in group and column not in taken]
            if len(candidates) > 1:
                raise UserError(
                    f"more than one column could be `{field}`, {' and '.join(map(repr, candidates))}: choose with "
                    f"`--column {field}={candidates[0]}`; {found}"
                )
            if candidates:
                columns[field] = candidates[0]
                break
    missing = [field for field in required if field not in columns and given.get(field) != ""]
    if missing:
        dispensable = [field for field in missing if field not in INDISPENSABLE]
        none = f", or say with `--column {dispensable[0]}=` that there is none" if dispensable else ""
        raise UserError(
            f"no column is known to be {', '.join(f'`{field}`' for field in missing)}: name it with "
            f"`--column {missing[0]}=NAME`{none}; {found}"
        )
    used = list(columns.values())
    for column in used:
        if used.count(column) > 1 or list(header).count(column) > 1:
            raise UserError(f"a column must be one field, found {brief(column)} more than once; {found}")
    return columns


def field_of(column: str, known: Known = KNOWN) -> str | None:
    """The field that a column is named after, None for another one."""
    plain = _plain(column)
    return next((field for field, groups in known.items() for group in groups if plain in group), None)


def _plain(column: str) -> str:
    return re.sub(r"[\W_]+", "", column).lower()
