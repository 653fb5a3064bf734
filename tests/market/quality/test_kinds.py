"""Every kind of fault, planted one at a time in a market that has none: the audit names the file, stock and day."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.quality import side_data as side
from qlib_ext.market.quality.check import KINDS, Finding
from qlib_ext.market.quality.repair import repair

DAY = 100  # where most faults are planted


@dataclass(frozen=True)
class Case:
    """A fault to plant, and what else it must and may bring with it."""

    plant: Callable[[Any], dict[str, Any]]
    also: frozenset[str]
    market: str


CASES: dict[str, Case] = {}


def plants(kind: str, also: str = "", market: str = "market") -> Callable[[Callable], Callable]:  # type: ignore[type-arg]
    """Register a function that plants `kind` and returns where it must be found: file, instrument, date, count.

    `also` are other kinds that the same fault is, in other words.
    """

    def register(function: Callable) -> Callable:  # type: ignore[type-arg]
        assert kind not in CASES
        CASES[kind] = Case(function, frozenset(also.split()), market)
        return function

    return register


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS if kind not in side.KINDS])
def test_a_planted_fault_is_found_where_it_is(kind: str, request: pytest.FixtureRequest) -> None:
    case = CASES[kind]
    market = request.getfixturevalue(case.market)
    expected = case.plant(market)
    found = market.audit(**expected.pop("arguments", {}))
    of_kind = found.of(kind)
    assert of_kind, f"found only {[finding.message for finding in found.findings]}"
    assert {key: getattr(of_kind[0], key) for key in expected} == expected, of_kind[0]
    others = {finding.kind for finding in found.findings} - {kind}
    assert others == case.also, [finding.message for finding in found.findings if finding.kind in others]


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS if kind.fix is not None])
def test_a_promised_fix_is_kept(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case = CASES[kind]
    market = request.getfixturevalue(case.market)
    expected = case.plant(market)
    result = repair(market.root, tmp_path / "fixed", market.audit(**expected.pop("arguments", {})))
    assert kind in {finding.kind for finding in result.mended}
    assert result.done
    assert result.after.of(kind) == []
    # A file without a value is not there: that the stock lacks the field is still an error.
    errors = {finding.kind for finding in result.left if finding.severity == "error"}
    assert errors == ({"field-missing"} if kind == "bin-empty" else set())


def test_every_case_is_of_a_known_kind() -> None:
    assert set(CASES) == {kind.name for kind in KINDS} - {kind.name for kind in side.KINDS}


def test_there_are_many_kinds_and_each_is_explained() -> None:
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names) >= 100
    assert all(kind.what and kind.why and not kind.what.endswith(".") for kind in KINDS)
    assert {kind.severity for kind in KINDS} == {"error", "warning", "note"}


def place(market: Any, code: str, field: str, day: int | None = DAY, count: int = 1) -> dict[str, Any]:
    """What a finding about one day of one stock says of its place."""
    return {
        "file": market.file(code, field),
        "instrument": code,
        "date": None if day is None else market.days[day],
        "count": count,
    }


# files


@plants("store-part-missing", "all-missing")
def _(market: Any) -> dict[str, Any]:
    shutil.rmtree(market.root / "instruments")
    return {"file": "instruments"}


@plants("unreadable-file")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.path(code, "open").unlink()
    market.path(code, "open").mkdir()
    return {"file": market.file(code, "open"), "instrument": code}


@plants("metadata-unreadable")
def _(market: Any) -> dict[str, Any]:
    return {"file": market.text("universes.json", "{")}


@plants("upper-case-folder")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    (market.root / "features" / code.lower()).rename(market.root / "features" / code)
    return {"file": f"features/{code}", "instrument": code}


@plants("upper-case-file")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    path = market.path(code, "open")
    path.rename(path.with_name("OPEN.day.bin"))
    return {"file": f"features/{code.lower()}/OPEN.day.bin", "instrument": code}


@plants("folder-twice")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    shutil.copytree(market.root / "features" / code.lower(), market.root / "features" / code)
    return {"file": f"features/{code}", "instrument": code}


@plants("folder-empty")
def _(market: Any) -> dict[str, Any]:
    (market.root / "features" / "sh699999").mkdir()
    return {"file": "features/sh699999", "instrument": "SH699999"}


@plants("stray-file")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0].lower()
    return {"file": market.text(f"features/{code}/close.day.bin.part", "x"), "instrument": code.upper()}


@plants("link-out")
def _(market: Any) -> dict[str, Any]:
    path = market.path(market.stocks[0], "open")
    outside = market.root.with_name("outside.bin")
    path.rename(outside)
    path.symlink_to(outside)
    return {"file": market.file(market.stocks[0], "open"), "count": 1}


@plants("bin-empty")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    return {"file": market.bytes(market.file(code, "vwap"), b""), "instrument": code}


@plants("bin-not-float32")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    file = market.file(code, "vwap")
    return {"file": market.bytes(file, market.path(code, "vwap").read_bytes()[:-2]), "instrument": code}


@plants("bin-start-invalid")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.write(market.path(code, "vwap"), -3, market.row(code, "vwap"))
    return {"file": market.file(code, "vwap"), "instrument": code}


@plants("bin-beyond-calendar")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.write(market.path(code, "vwap"), 0, np.append(market.row(code, "vwap"), [1.0, 2.0]))
    return {"file": market.file(code, "vwap"), "instrument": code}


@plants("bin-shifted", "vwap-outside-range amount-inconsistent")
def _(market: Any) -> dict[str, Any]:
    code = late(market)
    start, values = market.read(market.path(code, "vwap"))
    market.write(market.path(code, "vwap"), start - 5, values)
    return {"file": market.file(code, "vwap"), "instrument": code, "date": market.days[start - 5]}


@plants("bin-truncated")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.write(market.path(code, "vwap"), 0, market.row(code, "vwap")[:-7])
    return place(market, code, "vwap", -7, 7)


@plants("bin-starts-late")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.write(market.path(code, "vwap"), 4, market.row(code, "vwap")[4:])
    return place(market, code, "vwap", 4, 4)


@plants("field-missing")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.path(code, "volume").unlink()
    return {"file": market.file(code, "volume"), "instrument": code}


@plants("field-missing-everywhere")
def _(market: Any) -> dict[str, Any]:
    for path in market.root.glob("features/*/factor.day.bin"):
        path.unlink()
    return {"file": None, "instrument": None, "count": 23}


@plants("field-optional-missing")
def _(market: Any) -> dict[str, Any]:
    for path in market.root.glob("features/*/vwap.day.bin"):
        path.unlink()
    return {"file": None, "count": 23}


# calendar


@plants("calendar-empty")
def _(market: Any) -> dict[str, Any]:
    return {"file": market.text("calendars/day.txt", "\n \n")}


@plants("calendar-unparsable", "calendar-missing-day")
def _(market: Any) -> dict[str, Any]:
    days = market.days
    market.set_days([*days[:DAY], "2014-02-30", *days[DAY + 1 :]])
    return {"file": "calendars/day.txt", "count": 1}


@plants("calendar-format")
def _(market: Any) -> dict[str, Any]:
    days = market.days
    market.set_days([*days[:DAY], days[DAY].replace("-", "/"), *days[DAY + 1 :]])
    return {"file": "calendars/day.txt", "date": days[DAY]}


@plants("calendar-time-of-day")
def _(market: Any) -> dict[str, Any]:
    days = market.days
    market.set_days([*days[:DAY], f"{days[DAY]} 15:00:00", *days[DAY + 1 :]])
    return {"file": "calendars/day.txt", "date": days[DAY]}


@plants("calendar-unsorted")
def _(market: Any) -> dict[str, Any]:
    days = market.days
    market.set_days([*days[:DAY], days[DAY + 1], days[DAY], *days[DAY + 2 :]])
    return {"file": "calendars/day.txt", "date": days[DAY], "count": 1}


@plants("calendar-doubled-day", "day-empty")
def _(market: Any) -> dict[str, Any]:
    day = market.days[DAY]
    market.insert_day(DAY + 1, day)
    return {"file": "calendars/day.txt", "date": day, "count": 1}


@plants("calendar-weekend", "day-empty")
def _(market: Any) -> dict[str, Any]:
    friday = next(n for n, day in enumerate(market.days) if pd.Timestamp(day).weekday() == 4)
    saturday = str((pd.Timestamp(market.days[friday]) + pd.Timedelta(days=1)).date())
    market.insert_day(friday + 1, saturday)
    return {"file": "calendars/day.txt", "date": saturday, "count": 1}


@plants("calendar-holiday", "day-empty")
def _(market: Any) -> dict[str, Any]:
    market.insert_day(market.days.index("2014-04-30") + 1, "2014-05-01")
    return {"file": "calendars/day.txt", "date": "2014-05-01", "count": 1}


@plants("calendar-extra-session", "calendar-missing-day")
def _(market: Any) -> dict[str, Any]:
    market.set_days([day.replace("2014-04-30", "2014-05-01") for day in market.days])
    return {"file": "calendars/day.txt", "date": "2014-05-01", "count": 1}


@plants("calendar-missing-day", "change-inconsistent")
def _(market: Any) -> dict[str, Any]:
    day = market.days[DAY]
    market.drop_day(DAY)
    return {"file": "calendars/day.txt", "date": day, "count": 1}


@plants("calendar-not-exchange")
def _(market: Any) -> dict[str, Any]:
    days = pd.date_range("2014-01-02", periods=len(market.days)).strftime("%Y-%m-%d")
    stretch(market, list(days))
    return {"file": "calendars/day.txt", "date": "2014-01-04"}


@plants("calendar-gap", "calendar-not-exchange")
def _(market: Any) -> dict[str, Any]:
    days = pd.date_range("2014-01-02", periods=len(market.days) + 20).strftime("%Y-%m-%d")
    stretch(market, [*days[:50], *days[70:]])
    return {"file": "calendars/day.txt", "date": days[49], "count": 1}


@plants("calendar-future", "calendar-not-exchange calendar-gap universe-survivors")
def _(market: Any) -> dict[str, Any]:
    stretch(market, [*market.days[:-1], "2999-01-02"])
    return {"file": "calendars/day.txt", "date": "2999-01-02", "count": 1}


def stretch(market: Any, days: list[str]) -> None:
    """Give every day another date, in the memberships too."""
    new = dict(zip(market.days, days, strict=True))
    market.set_days(days)
    for path in sorted((market.root / "instruments").iterdir()):
        rows = [[code, new[start], new[end]] for code, start, end in market.rows(path.stem)]
        market.set_rows(path.stem, rows)


# bars


@plants("value-infinite")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "volume", DAY, np.inf)
    market.set(code, "volume", DAY + 3, -np.inf)
    return place(market, code, "volume", count=2)


@plants("value-absurd", "amount-inconsistent")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "volume", DAY, 1e20)
    return place(market, code, "volume")


@plants("price-negative")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "open", DAY, -1.5)
    return place(market, code, "open")


@plants("price-zero")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "low", DAY, 0.0)
    return place(market, code, "low")


@plants("volume-negative")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "amount", DAY, -5.0)
    return place(market, code, "amount")


@plants("high-below-low")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    high, low = market.row(code, "high")[DAY], market.row(code, "low")[DAY]
    market.set(code, "high", DAY, low)
    market.set(code, "low", DAY, high)
    return place(market, code, "high")


@plants("close-outside-range")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for field in ("open", "high", "low", "vwap"):
        market.set(code, field, DAY, market.row(code, "close")[DAY] * 1.02)
    market.settle(code)
    return place(market, code, "close")


@plants("open-outside-range")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "open", DAY, market.row(code, "high")[DAY] * 1.02)
    return place(market, code, "open")


@plants("vwap-outside-range")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "vwap", DAY, market.row(code, "low")[DAY] * 0.98)
    market.settle(code)
    return place(market, code, "vwap")


@plants("amount-inconsistent")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "amount", DAY, market.row(code, "amount")[DAY] * 1.02)
    return place(market, code, "amount")


@plants("volume-raw")
def _(market: Any) -> dict[str, Any]:
    codes = [code for code in market.stocks if np.nanmin(market.row(code, "factor")) > 1.1]
    for code in codes:
        market.set(code, "volume", slice(None), market.row(code, "volume") * market.row(code, "factor"))
    return {"count": len(codes)}


@plants("price-off-tick")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for field in ("open", "high", "low", "close", "vwap"):
        market.set(code, field, DAY, market.row(code, field)[DAY] * np.float32(1.0005))
    market.settle(code)
    return place(market, code, "factor")


@plants("amount-unit")
def _(market: Any) -> dict[str, Any]:
    for code in market.stocks:
        market.scale(code, slice(None), 1e-3, ("amount",))
    return {"count": 20}


@plants("close-missing")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "close", DAY, np.nan)
    market.settle(code)
    return place(market, code, "close")


@plants("price-missing")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "low", DAY, np.nan)
    return {**place(market, code, "open"), "message": f"{code} {market.days[DAY]}: close and no low"}


@plants("volume-missing")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "volume", slice(DAY, DAY + 3), np.nan)
    return place(market, code, "volume", count=3)


@plants("volume-zero-with-range", "volume-zero-with-move")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "volume", DAY, 0.0)
    return place(market, code, "volume")


@plants("field-empty")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "vwap", slice(None), np.nan)
    return {"file": market.file(code, "vwap"), "instrument": code}


@plants("field-constant", "amount-inconsistent amount-unit volume-raw")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "amount", slice(None), 1e6)
    return place(market, code, "amount", 0, len(market.days))


# prices


@plants("jump-unexplained", "price-off-tick")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.scale(code, slice(DAY, None), 0.5)
    market.settle(code)
    return place(market, code, "close")


@plants("fund-split")
def _(market: Any) -> dict[str, Any]:
    fund, like = "SH510300", market.stocks[0]
    (market.root / "features" / fund.lower()).mkdir()
    for path in (market.root / "features" / like.lower()).iterdir():
        start, values = market.read(path)
        market.write(market.path(fund, path.name.split(".")[0]), start, values[::-1].copy())
    for field in ("open", "high", "low", "close", "vwap"):
        market.set(fund, field, slice(None), market.row(fund, field) / market.row(fund, "factor"))
    market.set(fund, "factor", slice(None), 1.0)
    market.set_rows("all", sorted([*market.rows("all"), [fund, market.days[0], market.days[-1]]]))
    market.scale(fund, slice(DAY, None), 0.5)
    market.settle(fund)
    return place(market, fund, "close")


@plants("factor-jump")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.scale(code, slice(DAY, None), 1.3, ("open", "high", "low", "close", "vwap", "factor"))
    market.settle(code)
    return place(market, code, "factor")


@plants("price-spike", "price-off-tick")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.scale(code, slice(DAY, DAY + 1), 1.6)
    market.settle(code)
    return place(market, code, "close")


@plants("price-limit", "price-off-tick")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    growth = market.row(code, "close")[DAY] / market.row(code, "close")[DAY - 1]
    market.scale(code, slice(DAY, None), 1.13 / growth)
    market.settle(code)
    return place(market, code, "close")


@plants("jump-large", market="us_market")
def _(market: Any) -> dict[str, Any]:
    market.scale("AAX", slice(DAY, None), 0.6)
    market.scale("AAX", slice(DAY, DAY + 1), 8.0, ("volume",))
    market.settle("AAX")
    return place(market, "AAX", "close")


@plants("jump-after-suspension", "price-off-tick")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for path in (market.root / "features" / code.lower()).iterdir():
        market.set(code, path.name.split(".")[0], slice(DAY - 10, DAY), np.nan)
    market.scale(code, slice(DAY, None), 1.6)
    market.settle(code)
    return place(market, code, "close")


@plants("stale-run")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for field in ("open", "high", "low", "close", "vwap"):
        market.set(code, field, slice(DAY, DAY + 7), market.row(code, field)[DAY])
    market.settle(code)
    return place(market, code, "close", count=7)


@plants("bar-repeated")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for field in ("open", "high", "low", "close", "vwap", "volume"):
        market.set(code, field, DAY, market.row(code, field)[DAY - 1])
    market.settle(code)
    return place(market, code, "close")


@plants("volume-zero-with-move")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for field in ("open", "high", "low", "vwap"):
        market.set(code, field, DAY, market.row(code, "close")[DAY])
    market.set(code, "volume", DAY, 0.0)
    market.settle(code)
    return place(market, code, "volume")


@plants("suspension-carried")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for field in ("open", "high", "low", "close", "vwap"):
        market.set(code, field, slice(DAY, DAY + 3), market.row(code, "close")[DAY - 1])
    market.set(code, "volume", slice(DAY, DAY + 3), 0.0)
    market.settle(code)
    return {"instrument": code, "date": market.days[DAY], "count": 3}


@plants("gap-long", market="us_market")
def _(market: Any) -> dict[str, Any]:
    for path in (market.root / "features" / "aax").iterdir():
        market.set("AAX", path.name.split(".")[0], slice(50, 560), np.nan)
    close = market.row("AAX", "close")
    market.scale("AAX", slice(560, None), close[49] / close[560])
    market.settle("AAX")
    return place(market, "AAX", "close", 560)


@plants("change-inconsistent")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "change", DAY, market.row(code, "change")[DAY] + 0.004)
    return place(market, code, "change")


@plants("change-in-percent")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.scale(code, slice(None), 100, ("change",))
    return {"file": market.file(code, "change"), "instrument": code}


@plants("factor-nonpositive")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "factor", DAY, 0.0)
    return place(market, code, "factor")


@plants("factor-missing")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set(code, "factor", DAY, np.nan)
    return place(market, code, "factor")


@plants("factor-drifts", "price-off-tick")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    steps = 1 + 1e-3 * (np.arange(len(market.days)) % 2)
    market.set(code, "factor", slice(None), market.row(code, "factor") * steps)
    return {**place(market, code, "factor", 1), "count": len(market.days) - 1}


@plants("factor-constant", market="us_market")
def _(market: Any) -> dict[str, Any]:
    for code in market.stocks:
        market.set(code, "factor", slice(None), 1.0)
    return {"count": 12}


# cross-section


def blank(market: Any, codes: list[str], day: int) -> None:
    """Take the bars of a day away."""
    for code in codes:
        for path in (market.root / "features" / code.lower()).iterdir():
            market.set(code, path.name.split(".")[0], day, np.nan)
        market.settle(code)


def everything(market: Any) -> list[str]:
    return [path.name.upper() for path in sorted((market.root / "features").iterdir())]


@plants("day-empty")
def _(market: Any) -> dict[str, Any]:
    blank(market, everything(market), DAY)
    return {"file": "features", "date": market.days[DAY], "count": 1}


@plants("day-untraded", "suspension-carried")
def _(market: Any) -> dict[str, Any]:
    for code in everything(market):
        for field in ("open", "high", "low", "close", "vwap"):
            market.set(code, field, DAY, market.row(code, "close")[DAY - 1])
        market.set(code, "factor", DAY, market.row(code, "factor")[DAY - 1])
        market.set(code, "volume", DAY, 0.0)
        market.settle(code)
    return {"file": "features", "date": market.days[DAY], "count": 1}


@plants("day-partial")
def _(market: Any) -> dict[str, Any]:
    blank(market, market.stocks[:14], DAY)
    return {"file": "features", "date": market.days[DAY], "count": 1}


@plants("last-day-partial")
def _(market: Any) -> dict[str, Any]:
    blank(market, market.stocks[:14], len(market.days) - 1)
    return {"file": "features", "date": market.days[-1], "count": 1}


@plants("calendar-beyond-bars", "universe-range")
def _(market: Any) -> dict[str, Any]:
    market.set_days([*market.days, "2015-04-01"])
    return {"file": "features", "date": "2015-04-01", "count": 1}


@plants("field-empty-day", "price-missing")
def _(market: Any) -> dict[str, Any]:
    for code in market.stocks:
        market.set(code, "open", DAY, np.nan)
    return {"file": "features/*/open.day.bin", "date": market.days[DAY], "count": 1}


@plants("day-copied")
def _(market: Any) -> dict[str, Any]:
    for code in everything(market):
        for field in ("open", "high", "low", "close", "vwap", "volume", "factor"):
            market.set(code, field, DAY, market.row(code, field)[DAY - 1])
        market.settle(code)
    return {"file": "features", "date": market.days[DAY], "count": 1}


@plants("market-jump", "price-off-tick")
def _(market: Any) -> dict[str, Any]:
    for code in market.stocks:
        market.scale(code, slice(DAY, None), 0.6)
        market.settle(code)
    return {"file": "features", "date": market.days[DAY], "count": 1}


@plants("volume-level")
def _(market: Any) -> dict[str, Any]:
    for code in market.stocks:
        market.scale(code, slice(DAY, None), 100.0, ("volume", "amount"))
    return {"file": "features", "date": market.days[DAY], "count": 1}


@plants("stocks-identical")
def _(market: Any) -> dict[str, Any]:
    one, other = sorted(market.stocks[:2])
    for path in (market.root / "features" / one.lower()).iterdir():
        market.bytes(f"features/{other.lower()}/{path.name}", path.read_bytes())
    return {"file": market.file(one, "close"), "instrument": one, "count": 2}


@plants("days-shifted")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    for path in (market.root / "features" / code.lower()).iterdir():
        start, values = market.read(path)
        market.write(path, start + 2, values[:-2])
    market.set_rows(
        "all", [[*row[:1], market.days[2], *row[2:]] if row[0] == code else row for row in market.rows("all")]
    )
    return {"file": market.file(code, "close"), "instrument": code}


# universes


@plants("universe-missing")
def _(market: Any) -> dict[str, Any]:
    return {"arguments": {"universe": "csi500"}, "file": "instruments/csi500.txt"}


@plants("universe-empty")
def _(market: Any) -> dict[str, Any]:
    return {"file": market.text("instruments/sse50.txt", "\n")}


def append(market: Any, universe: str, *rows: list[str]) -> str:
    market.set_rows(universe, [*market.rows(universe), *rows])
    return f"instruments/{universe}.txt"


def member(market: Any, universe: str = "csi300") -> list[str]:
    """The row of a stock that is a member on all days."""
    return next(
        row for row in market.rows(universe) if row[1] == market.days[0] and row[2] == market.days[-1]
    )


@plants("membership-incomplete")
def _(market: Any) -> dict[str, Any]:
    file = append(market, "csi300", ["SH600000", "2014-01-02"])
    return {"file": file, "instrument": "SH600000"}


@plants("membership-separator")
def _(market: Any) -> dict[str, Any]:
    rows = market.rows("csi300")
    rows[0] = [",".join(rows[0])]
    market.set_rows("csi300", rows)
    return {"file": "instruments/csi300.txt", "count": 1}


@plants("membership-date")
def _(market: Any) -> dict[str, Any]:
    file = append(market, "csi300", ["SH600000", "2014-01-02", "2014-02-31"])
    return {"file": file, "instrument": "SH600000"}


@plants("membership-date-format")
def _(market: Any) -> dict[str, Any]:
    rows = market.rows("csi300")
    rows[0][1] = rows[0][1].replace("-", "")
    market.set_rows("csi300", rows)
    return {"file": "instruments/csi300.txt", "instrument": rows[0][0]}


@plants("membership-reversed")
def _(market: Any) -> dict[str, Any]:
    code = member(market)[0]
    file = append(market, "csi300", [code, "2014-06-03", "2014-06-02"])
    return {"file": file, "instrument": code, "date": "2014-06-03"}


@plants("membership-overlap")
def _(market: Any) -> dict[str, Any]:
    code = member(market)[0]
    file = append(market, "csi300", [code, "2014-06-03", "2014-07-01"])
    return {"file": file, "instrument": code, "date": "2014-06-03", "count": 1}


@plants("membership-doubled-row")
def _(market: Any) -> dict[str, Any]:
    row = member(market)
    file = append(market, "csi300", row, row)
    return {"file": file, "instrument": row[0], "date": row[1], "count": 2}


@plants("membership-lower-case")
def _(market: Any) -> dict[str, Any]:
    rows = [[row[0].lower(), *row[1:]] for row in market.rows("sse50")]
    market.set_rows("sse50", rows)
    return {"file": "instruments/sse50.txt", "instrument": rows[0][0].upper(), "count": len(rows)}


@plants("membership-without-bars", "universe-coverage")
def _(market: Any) -> dict[str, Any]:
    file = append(market, "csi300", ["SH699999", "2014-02-10", "2015-03-31"])
    return {"file": file, "instrument": "SH699999", "date": "2014-02-10"}


@plants("universe-without-bars")
def _(market: Any) -> dict[str, Any]:
    rows = [[f"{row[0][2:]}.SH", *row[1:]] for row in market.rows("sse50")]
    market.set_rows("sse50", rows)
    return {"file": "instruments/sse50.txt", "instrument": rows[0][0]}


@plants("membership-beyond-bars", "universe-coverage")
def _(market: Any) -> dict[str, Any]:
    code = member(market)[0]
    for path in (market.root / "features" / code.lower()).iterdir():
        start, values = market.read(path)
        market.write(path, start, values[:40])
    rows = [[code, row[1], market.days[39]] if row[0] == code else row for row in market.rows("all")]
    market.set_rows("all", rows)
    last = int(np.flatnonzero(~np.isnan(market.row(code, "close")))[-1])
    return {"file": universe_of(market, code), "instrument": code, "date": market.days[last + 1]}


def universe_of(market: Any, code: str) -> str:
    """The first file, by name, of a universe that has the stock."""
    names = [path.stem for path in sorted((market.root / "instruments").iterdir()) if path.stem != "all"]
    return next(f"instruments/{name}.txt" for name in names if code in {row[0] for row in market.rows(name)})


@plants("membership-outside-calendar")
def _(market: Any) -> dict[str, Any]:
    code = member(market)[0]
    file = append(market, "csi300", [code, "2005-04-08", "2007-01-31"])
    return {"file": file, "instrument": code, "date": "2005-04-08", "count": 1}


@plants("membership-open-ended")
def _(market: Any) -> dict[str, Any]:
    code = member(market)[0]
    rows = [[*row[:2], "2099-12-31"] if row[0] == code else row for row in market.rows("csi300")]
    market.set_rows("csi300", rows)
    return {"file": "instruments/csi300.txt", "instrument": code, "count": 1}


@plants("index-in-universe")
def _(market: Any) -> dict[str, Any]:
    file = append(market, "csi300", ["SH000300", market.days[0], market.days[-1]])
    return {"file": file, "instrument": "SH000300"}


@plants("universe-size")
def _(market: Any) -> dict[str, Any]:
    market.text("universes.json", json.dumps({"csi300": {"size": 16, "rule": "16 of 20"}}))
    return {"file": "instruments/csi300.txt", "date": market.days[0], "count": len(market.days)}


@plants("universe-size-jump")
def _(market: Any) -> dict[str, Any]:
    rows = market.rows("csi300")
    at_first = [row for row in rows if row[1] == market.days[0]]
    rows = [[*row[:2], min(row[2], market.days[DAY])] if row in at_first[:8] else row for row in rows]
    market.set_rows("csi300", rows)
    return {"file": "instruments/csi300.txt", "date": market.days[DAY + 1], "count": 1}


@plants("universe-survivors", "calendar-not-exchange", market="market")
def _(market: Any) -> dict[str, Any]:
    days = pd.date_range("2014-01-02", periods=len(market.days), freq="6D").strftime("%Y-%m-%d")
    stretch(market, list(days))
    rows = [row for row in market.rows("all") if row[2] == days[-1] and not row[0].startswith("SH000")]
    market.set_rows("mine", rows)
    return {"file": "instruments/mine.txt", "date": days[0], "count": len(rows)}


@plants("universe-empty-day")
def _(market: Any) -> dict[str, Any]:
    before = [[*row[:2], market.days[DAY - 1]] for row in market.rows("sse50") if row[1] == market.days[0]]
    after = [[row[0], market.days[DAY + 1], market.days[-1]] for row in before]
    market.set_rows("sse50", [*before, *after])
    return {"file": "instruments/sse50.txt", "date": market.days[DAY], "count": 1}


@plants("universe-range")
def _(market: Any) -> dict[str, Any]:
    rows = [[*row[:2], min(row[2], market.days[-11])] for row in market.rows("csi300")]
    market.set_rows("csi300", rows)
    return {"file": "instruments/csi300.txt", "date": market.days[-10], "count": 10}


@plants("universe-coverage", "membership-without-bars")
def _(market: Any) -> dict[str, Any]:
    file = append(market, "csi300", ["SH699999", market.days[DAY], market.days[DAY + 4]])
    return {"file": file, "date": market.days[DAY], "count": 5}


@plants("all-missing")
def _(market: Any) -> dict[str, Any]:
    (market.root / "instruments" / "all.txt").unlink()
    return {"file": "instruments/all.txt"}


@plants("all-without-bars")
def _(market: Any) -> dict[str, Any]:
    file = append(market, "all", ["SH699999", market.days[0], market.days[-1]])
    return {"file": file, "instrument": "SH699999"}


@plants("all-lacks-stock")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    market.set_rows("all", [row for row in market.rows("all") if row[0] != code])
    return {"file": "instruments/all.txt", "instrument": code, "date": market.days[0]}


@plants("all-range")
def _(market: Any) -> dict[str, Any]:
    code = market.stocks[0]
    rows = [[*row[:2], market.days[-4]] if row[0] == code else row for row in market.rows("all")]
    market.set_rows("all", rows)
    return {"file": "instruments/all.txt", "instrument": code, "date": market.days[-1], "count": 3}


# benchmark


@plants("benchmark-missing")
def _(market: Any) -> dict[str, Any]:
    return {"arguments": {"benchmark": "sh000905"}, "file": "features/sh000905", "instrument": "SH000905"}


@plants("benchmark-gap")
def _(market: Any) -> dict[str, Any]:
    blank(market, ["SH000300"], DAY)
    return place(market, "SH000300", "close")


@plants("benchmark-range")
def _(market: Any) -> dict[str, Any]:
    for path in (market.root / "features" / "sh000300").iterdir():
        start, values = market.read(path)
        market.write(path, start, values[:-5])
    return place(market, "SH000300", "close", -5, 5)


@plants("benchmark-flat")
def _(market: Any) -> dict[str, Any]:
    for field in ("open", "high", "low", "close", "vwap"):
        market.set("SH000300", field, slice(DAY, DAY + 4), market.row("SH000300", field)[DAY - 1])
    market.settle("SH000300")
    return place(market, "SH000300", "close", count=4)


@plants("benchmark-unlike-market")
def _(market: Any) -> dict[str, Any]:
    close = market.row("SH000300", "close").astype(float)
    for field in ("open", "high", "low", "close", "vwap"):
        market.set("SH000300", field, slice(None), 1e6 / close)
    market.settle("SH000300")
    return {"file": market.file("SH000300", "close"), "instrument": "SH000300"}


def late(market: Any) -> str:
    """A stock whose bars begin after the first month."""
    for code in market.stocks:
        start, values = market.read(market.path(code, "close"))
        if start > 20 and len(values) > 100:
            return code
    raise AssertionError("no stock of the market lists late")


class TestSideData:
    def test_faults_of_side_data_are_told(self, market: Any) -> None:
        one, other = market.stocks[:2]
        days = pd.to_datetime(market.days[:5] * 2)
        table = pd.DataFrame({"datetime": days, "instrument": [one] * 5 + [other] * 5, "market_value": 1e9})
        table.loc[7, "market_value"] = -1.0
        table.to_parquet(market.root / "side" / "market_value.parquet")
        found = {finding.kind: finding for finding in market.audit().findings}
        assert set(found) == {"side-bad-market-value", "side-few-stocks", "side-ends-early"}
        finding: Finding = found["side-bad-market-value"]
        assert (finding.file, finding.instrument, finding.date) == (
            "side/market_value.parquet",
            other,
            market.days[2],
        )
