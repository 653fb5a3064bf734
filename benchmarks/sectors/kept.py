"""What is kept of a sector and year, so that it is never run twice: a JSON and a compressed CSV file of some ten kB each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FORMAT = 1
DAILY = ".csv.xz"  # a third of what Parquet takes for so small a table
MILLIONTH = 1e6  # returns are kept as whole millionths


@dataclass
class Held:
    """What came of a method on the stocks of a sector, held over a year.

    Attributes
    ----------
    config
        Fingerprint of the method's configuration.
    weights, end
        Code -> weight that was aimed at on the first day, and weight in the account at the end; the rest is cash.
    sample
        Figures of the weights on the days of training, as `figures` names them, without cost.
    turnover, cost
        Bought and sold value over that of the account, and cost over it, sums of the year's days.
    seconds
        Of the processor.
    told
        What the portfolio said of its decisions.
    """

    config: str
    weights: dict[str, float]
    end: dict[str, float]
    sample: dict[str, float]
    turnover: float
    cost: float
    seconds: float
    told: list[str] = field(default_factory=list)


@dataclass
class SectorYear:
    """A sector and a year.

    Attributes
    ----------
    settings
        Fingerprint of everything but the methods that decides the numbers.
    year, sector
        Which.
    codes
        Stocks, the largest first.
    volatility, mean, correlation
        Of their daily returns on the days of training.
    held
        Method -> what came of it.
    daily
        Returns after cost by day of the year, a column a method.
    """

    settings: str
    year: int
    sector: str
    codes: list[str]
    volatility: list[float]
    mean: list[float]
    correlation: list[list[float]]
    held: dict[str, Held]
    daily: pd.DataFrame

    @property
    def name(self) -> str:
        """Of the files."""
        return f"{self.year}_{re.sub(r'[^A-Za-z0-9]+', '-', self.sector).strip('-')}"

    def write(self, runs: Path) -> None:
        """Write both files; the JSON file, by which it is known to be there, last."""
        runs.mkdir(parents=True, exist_ok=True)
        whole = (self.daily * MILLIONTH).round().astype(np.int32)
        whole.to_csv(runs / f"{self.name}{DAILY}", compression="xz", index_label="day", lineterminator="\n")
        said: dict[str, Any] = {"format": FORMAT, **{k: v for k, v in vars(self).items() if k != "daily"}}
        said["held"] = {method: asdict(one) for method, one in self.held.items()}
        (runs / f"{self.name}.json").write_text(json.dumps(_short(said)) + "\n", encoding="utf-8")


def read(path: Path) -> SectorYear:
    """A sector and year, by its JSON file."""
    said = json.loads(path.read_text(encoding="utf-8"))
    said.pop("format")
    daily = pd.read_csv(path.with_suffix(DAILY), index_col="day", parse_dates=["day"]) / MILLIONTH
    return SectorYear(
        **{**said, "held": {method: Held(**one) for method, one in said["held"].items()}}, daily=daily
    )


def read_all(runs: Path) -> list[SectorYear]:
    """All that are kept in a folder, by year and sector."""
    found = [read(path) for path in sorted(runs.glob("[0-9]*.json"))]
    return sorted(found, key=lambda one: (one.year, one.sector))


def _short(value: Any) -> Any:
    """Numbers with six digits, at any depth."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(inner) for inner in value]
    return value
