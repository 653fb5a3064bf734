"""The rules of an exchange: what may be traded at which price, in which lots, and what it costs, by date."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from qlib_ext.checks import UserError, above, at_least, brief, integer, nearest, one_of
from qlib_ext.files import MIB, load_yaml, read_text
from qlib_ext.market.rules.dated_rows import Row, choose, parse, share

Side = Literal["buy", "sell"]
SUFFIX = ".yaml"
KEYS = (
    "extends", "market", "tick", "boards", "statuses", "price_limit", "resale", "lots", "commission", "levies",
)  # fmt: skip
TAKES = {
    "price_limit": ("limit", "of?"),
    "resale": ("after_days",),
    "lots": ("minimum", "step"),
    "commission": ("rate", "minimum"),
}
LEVY = ("buy", "sell")
PREVIOUS_CLOSE, ISSUE_PRICE = "previous close", "issue price"


@dataclass(frozen=True)
class PriceLimit:
    """How far a price may go in a day.

    Attributes
    ----------
    down, up
        Fractions of the reference price; None: no limit.
    reference
        `previous close`, or `issue price` on a first day.
    """

    down: float | None
    up: float | None
    reference: str = PREVIOUS_CLOSE


@dataclass(frozen=True)
class Lot:
    """Shares of a purchase: at least `minimum`, then steps of `step`."""

    minimum: int
    step: int

    def whole(self, shares: float) -> int:
        """The most shares up to `shares` that an order may be of; a millionth of a share may be missing."""
        steps = int((shares + 1e-6 - self.minimum) // self.step)
        return self.minimum + steps * self.step if steps >= 0 else 0


@dataclass(frozen=True)
class Fees:
    """What a trade costs.

    Attributes
    ----------
    commission
        Of the value.
    minimum
        The least commission of an order, in currency.
    buy, sell
        Stamp duty and other levies of the value, all together.
    """

    commission: float
    minimum: float
    buy: float
    sell: float

    def levy(self, side: Side) -> float:
        """Levies of a purchase or a sale as a share of its value."""
        return self.buy if side == "buy" else self.sell

    def cost(self, value: float, side: Side) -> float:
        """The greater of commission and its minimum, and the levies on top; 0 of no value."""
        if value <= 0:
            return 0.0
        return max(self.commission * value, self.minimum) + self.levy(side) * value


class ExchangeRules:
    """A table of rules, asked by board and date.

    Parameters
    ----------
    table
        The content of a file of rules, as `docs/exchange-rules.md` explains it; without `extends`.
    name
        What it is called in messages and reports.

    Attributes
    ----------
    market
        What the table is of.
    tick
        Limit prices are multiples of it, in currency.
    boards, statuses
        Name -> the beginnings of the codes, and the words of a store.
    first_days
        The most trading days after its listing for which a stock has a price limit of its own.
    smallest_limit
        The least that any price limit of the table is; infinite where there is none.
    digest
        16 hex digits of the content.

    Raises
    ------
    UserError
        If the table does not fit, names an unknown board, or lacks what every table has.
    """

    def __init__(self, table: Mapping[str, Any], name: str):
        self.name = name
        where = f"the exchange rules {name}"
        _check_keys(table, where)
        for key in KEYS[1:]:
            if key not in table:
                raise UserError(
                    f"{where} must have a key `{key}`; or let them extend a table that has: `extends: cn`"
                )
        self.market = str(table["market"])
        self.tick = float(above("tick", table["tick"], 0))
        self.boards = _lists(table["boards"], "boards")
        self.statuses = _lists(table["statuses"], "statuses")
        known: dict[str, Any] = {"boards": self.boards, "statuses": self.statuses}
        self._rows = {kind: parse(table[kind], kind, takes=takes, **known) for kind, takes in TAKES.items()}
        levies = _mapping(table["levies"], "`levies`")
        self._levies = {
            str(levy): parse(rows, f"levies.{levy}", takes=LEVY, **known) for levy, rows in levies.items()
        }
        self._check_values()
        self.first_days = max((row.first_days or 0 for row in self._rows["price_limit"]), default=0)
        limits = [(limit.down, limit.up) for limit in map(_limit, self._rows["price_limit"])]
        self.smallest_limit = min((size for pair in limits for size in pair if size), default=math.inf)
        self._boards: dict[str, str] = {}
        self.digest = hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"ExchangeRules({self.name!r})"

    def board(self, code: str) -> str:
        """The board of an instrument, by the longest beginning of its code that the table lists.

        Raises
        ------
        UserError
            If the table lists none.
        """
        if code not in self._boards:
            found = self._board(code)
            if found is None:
                raise UserError(
                    f"the exchange rules {self.name} name no board for {code}: add the beginning of its code to "
                    f"`boards` in a table of your own that extends them; they know {', '.join(self.boards)}"
                )
            self._boards[code] = found
        return self._boards[code]

    def has_board(self, code: str) -> bool:
        """Whether the table lists a beginning of the code, which those of indices are not."""
        return code in self._boards or self._board(code) is not None

    def _board(self, code: str) -> str | None:
        upper = code.upper()
        found = [
            (len(begin), board)
            for board, begins in self.boards.items()
            for begin in begins
            if upper.startswith(begin.upper())
        ]
        return max(found)[1] if found else None

    def status(self, written: str) -> str | None:
        """The status that a store's word stands for; None for a word that the table does not list."""
        for status, words in self.statuses.items():
            if written.strip().upper() in {word.upper() for word in words}:
                return status
        return None

    def price_limit(
        self,
        board: str,
        day: pd.Timestamp,
        *,
        status: str | None = None,
        listed: pd.Timestamp | None = None,
        age: int | None = None,
    ) -> PriceLimit:
        """How far the price of a stock may go on a day.

        Parameters
        ----------
        board
            One of `boards`.
        day
            A trading day.
        status
            One of `statuses`, or None.
        listed, age
            The day of its listing, and the trading days since, 0 on the day itself; None: unknown or long ago.
        """
        row = self._choose(
            "price_limit", self._rows["price_limit"], board, day, status=status, listed=listed, age=age
        )
        return _limit(row)

    def resale_days(self, board: str, day: pd.Timestamp) -> int:
        """Trading days after which a purchase may be sold again, 0 or 1."""
        return int(self._choose("resale", self._rows["resale"], board, day).values["after_days"])

    def lot(self, board: str, day: pd.Timestamp) -> Lot:
        """Shares of which a purchase may be."""
        values = self._choose("lots", self._rows["lots"], board, day).values
        return Lot(values["minimum"], values["step"])

    def largest_step(self, boards: Iterable[str]) -> int:
        """The largest step in which any of `boards` trades or traded."""
        wanted = set(boards)
        steps = [
            row.values["step"] for row in self._rows["lots"] if row.boards is None or row.boards & wanted
        ]
        return max(steps, default=1)

    def fees(self, board: str, day: pd.Timestamp) -> Fees:
        """What a trade costs."""
        own = self._choose("commission", self._rows["commission"], board, day).values
        levies = [self._choose(levy, rows, board, day).values for levy, rows in self._levies.items()]
        return Fees(
            float(own["rate"]),
            float(own["minimum"]),
            float(sum(levy["buy"] for levy in levies)),
            float(sum(levy["sell"] for levy in levies)),
        )

    def require(self, codes: Iterable[str], first: pd.Timestamp, last: pd.Timestamp) -> None:
        """Raise a UserError unless every stock has a board, and its board all rules from `first` to `last`.

        Of a board that opened after `first` the rules must reach from its opening on, which its lots tell.
        """
        for board in sorted({self.board(code) for code in codes}):
            opened = min(
                (row.start for row in self._rows["lots"] if row.boards is None or board in row.boards),
                default=first,
            )
            for day in (max(first, opened), max(last, opened)):
                for ask in (self.price_limit, self.resale_days, self.lot, self.fees):
                    ask(board, day)

    def in_force(
        self, first: pd.Timestamp, last: pd.Timestamp, boards: Iterable[str]
    ) -> list[dict[str, str]]:
        """The rows that hold for any of `boards` on any day from `first` to `last`, in words.

        Returns
        -------
        Mappings with `rule`, `of` (boards, status, first days), `from`, `says` and `source`.
        """
        wanted = set(boards)
        kinds = {**self._rows, **self._levies}
        found = []
        for kind, rows in kinds.items():
            for row in rows:
                concerns = [
                    board
                    for board in self.boards
                    if board in wanted and (row.boards is None or board in row.boards)
                ]
                if not concerns or not row.overlaps(first, last):
                    continue
                if all(self._superseded(row, rows, board, first) for board in concerns):
                    continue
                found.append(
                    {
                        "rule": kind.replace("_", " "),
                        "of": _concerned(row, concerns),
                        "from": f"{row.start:%Y-%m-%d}",
                        "says": _says(kind, row),
                        "source": row.source,
                    }
                )
        return found

    def _superseded(self, row: Row, rows: list[Row], board: str, first: pd.Timestamp) -> bool:
        """Whether a row had given way to another one before `first`."""
        if row.start > first:
            return False
        age = None if row.first_days is None else row.first_days - 1
        return choose(rows, board, first, status=row.status, listed=first, age=age) is not row

    def _choose(self, kind: str, rows: list[Row], board: str, day: pd.Timestamp, **stock: Any) -> Row:
        row = choose(rows, board, day, **stock)
        if row is None:
            raise UserError(
                f"the exchange rules {self.name} have no row of `{kind}` for the board {board} on {day:%Y-%m-%d}: add one "
                "in a table of your own that extends them, or trade later"
            )
        return row

    def _check_values(self) -> None:
        for k, row in enumerate(self._rows["price_limit"]):
            where = f"price_limit[{k}]"
            limit, of = row.values["limit"], row.values["of"]
            one_of(f"{where}.of", of or PREVIOUS_CLOSE, (PREVIOUS_CLOSE, ISSUE_PRICE))
            pair = limit if isinstance(limit, list) else [limit, limit]
            if len(pair) != 2:
                raise UserError(
                    f"`{where}.limit` must be one limit or two, down and up; found {brief(limit)}"
                )
            for value in pair:
                if value is not None:
                    above(f"{where}.limit", share(value, f"{where}.limit"), 0)
        for k, row in enumerate(self._rows["resale"]):
            one_of(f"resale[{k}].after_days", row.values["after_days"], (0, 1))
        for k, row in enumerate(self._rows["lots"]):
            for key in TAKES["lots"]:
                integer(f"lots[{k}].{key}", row.values[key], 1)
        for k, row in enumerate(self._rows["commission"]):
            share(row.values["rate"], f"commission[{k}].rate")
            at_least(f"commission[{k}].minimum", row.values["minimum"], 0)
        for levy, rows in self._levies.items():
            for k, row in enumerate(rows):
                for key in LEVY:
                    share(row.values[key], f"levies.{levy}[{k}].{key}")


def shipped() -> list[str]:
    """Names of the tables that come with the package."""
    folder = resources.files(__package__)
    return sorted(file.name.removesuffix(SUFFIX) for file in folder.iterdir() if file.name.endswith(SUFFIX))


def read_rules(source: str | Path) -> ExchangeRules:
    """Read a table of rules.

    Parameters
    ----------
    source
        The name of a table of the package, `cn` or `us`, or the path of a YAML file. A file may say `extends: cn` (or
        another name, or a path beside it): its rows are then added to those of that table, its boards and statuses too,
        and its other keys take the place of the table's.

    Raises
    ------
    UserError
        If there is no such table, or it does not fit.
    """
    return ExchangeRules(_table(source, Path(), ()), str(source))


def _table(source: str | Path, folder: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """The content of a table with what it extends."""
    name = str(source)
    if name in shipped():
        text, beside = (resources.files(__package__) / f"{name}{SUFFIX}").read_text("utf-8"), folder
    else:
        path = folder / Path(name).expanduser()
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise UserError(
                f"`rules` must be one of {', '.join(shipped())}, or a YAML file; found {brief(name)}{nearest(name, shipped())}"
            )
        text, beside, name = read_text(path, MIB), path.parent, str(path.resolve())
    if name in seen:
        raise UserError(f"the exchange rules {name} extend themselves, through {', '.join(seen)}")
    try:
        table = load_yaml(text)
    except ValueError as error:
        raise UserError(f"the exchange rules {name} are no YAML: {error}") from error
    own = _mapping(table, f"the exchange rules {name}")
    _check_keys(own, f"the exchange rules {name}")
    if "extends" not in own:
        return own
    base = _table(own.pop("extends"), beside, (*seen, name))
    for key, value in own.items():
        base[key] = _joined(key, base.get(key), value)
    return base


def _joined(key: str, base: Any, own: Any) -> Any:
    """What a table extends and what it adds: rows after rows, mappings by their keys, one thing for another."""
    if key in TAKES and isinstance(base, list) and isinstance(own, list):
        return [*base, *own]
    if key in ("boards", "statuses", "levies") and isinstance(base, dict) and isinstance(own, dict):
        joined = {**base}
        for name, values in own.items():
            known = base.get(name)
            joined[name] = (
                [*known, *values] if isinstance(known, list) and isinstance(values, list) else values
            )
        return joined
    return own


def _check_keys(table: Mapping[str, Any], where: str) -> None:
    for key in table:
        if key not in KEYS:
            raise UserError(
                f"{where} have no place for `{key}`{nearest(str(key), KEYS)}; they take {', '.join(KEYS)}"
            )


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a mapping, found {brief(value)}")
    return value


def _lists(value: object, where: str) -> dict[str, list[str]]:
    """A mapping from names to lists of text."""
    found = _mapping(value, f"`{where}`")
    for name, words in found.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UserError(f"`{where}.{name}` must be a list of text, found {brief(words)}")
    return {str(name): words for name, words in found.items()}


def _limit(row: Row) -> PriceLimit:
    limit = row.values["limit"]
    down, up = limit if isinstance(limit, list) else (limit, limit)
    return PriceLimit(down, up, row.values["of"] or PREVIOUS_CLOSE)


def _concerned(row: Row, boards: list[str]) -> str:
    parts = [", ".join(boards)]
    if row.status is not None:
        parts.append(row.status)
    if row.first_days is not None:
        parts.append("first day" if row.first_days == 1 else f"first {row.first_days} days")
    return "; ".join(parts)


def _says(kind: str, row: Row) -> str:
    values = row.values
    if kind == "price_limit":
        limit = _limit(row)
        if limit.up is None and limit.down is None:
            return "no limit"
        up, down = ("none" if value is None else _percent(value) for value in (limit.up, limit.down))
        size = f"\N{PLUS-MINUS SIGN}{up}" if up == down else f"+{up}, \N{MINUS SIGN}{down}"
        return size if limit.reference == PREVIOUS_CLOSE else f"{size} of the {limit.reference}"
    if kind == "resale":
        return f"T+{values['after_days']}"
    if kind == "lots":
        if values["minimum"] == values["step"]:
            return f"multiples of {values['step']} shares"
        return f"at least {values['minimum']} shares, steps of {values['step']}"
    if kind == "commission":
        return f"{_percent(values['rate'])} of the value, at least {values['minimum']:g}"
    return f"{_percent(values['buy'])} of a purchase, {_percent(values['sell'])} of a sale"


def _percent(value: float) -> str:
    return f"{100 * value:.6g}%"
