"""The newest list that `qlib-ext daily` wrote into a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlib_ext.checks import UserError, brief
from qlib_ext.files import TABLE, read_json

DAY = re.compile(r"\d{4}-\d\d-\d\d\.json")


@dataclass(frozen=True)
class NewestList:
    """A list of a day.

    Attributes
    ----------
    day, run, run_name, universe
        The day at whose close it is known, and what made it.
    rows
        Of the stocks, the first rank first: `instrument`, `rank`, `score`, `close` and what else the file has.
    warnings
        What must be looked into first.
    orders
        How many orders of the next day come with it; None where none were asked for.
    page
        The page of that day; None where it is not beside it.
    """

    day: str
    run: str
    run_name: str
    universe: str
    rows: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    orders: int | None
    page: Path | None


def newest_list(folder: Path) -> NewestList | None:
    """The list of the newest day of a folder; None where it has none.

    Raises
    ------
    UserError
        If the file is none of `qlib-ext daily`.
    """
    files = sorted(file for file in folder.glob("*.json") if DAY.fullmatch(file.name))
    if not files:
        return None
    file = files[-1]
    try:
        said = read_json(file, TABLE)
        listed = [row for row in said["list"] if row["rank"] is not None]
        page = file.with_suffix(".html")
        return NewestList(
            day=str(said["day"]),
            run=str(said["run"]),
            run_name=str(said["run_name"]),
            universe=str(said["universe"]),
            rows=sorted(listed, key=lambda row: float(row["rank"])),
            warnings=[str(each) for each in said["warnings"]],
            orders=None if said["orders"] is None else len(said["orders"]),
            page=page if page.is_file() else None,
        )
    except UserError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{file} must be a list that `qlib-ext daily` wrote, found something else ({brief(str(error))})"
        ) from error
