"""The methods of a study, from YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qlib_ext.checks import UserError, nearest

FILE = Path(__file__).with_name("methods.yaml")
TRAINING = "DAYS"  # stands for the days of training
YEARLY = {"class": "qlib_ext.portfolio.calendars.yearly.Yearly"}
MONTHLY = {"class": "qlib_ext.portfolio.calendars.monthly.Monthly"}
RISK = {
    "class": "qlib_ext.portfolio.risk_models.covariance.Covariance",
    "kwargs": {"estimator": {"class": "skfolio.moments.EmpiricalCovariance"}, "window": TRAINING},
}


@dataclass(frozen=True)
class Method:
    """A way to weights.

    Attributes
    ----------
    name, family
        What it is called, and the letter of its family.
    forecast
        Whether scores are a model's forecasts; otherwise they only say who is a candidate.
    monthly
        Whether it is rebalanced at the beginning of each month; otherwise it is bought on the first day and held.
    portfolio
        As `Portfolio` takes it, `DAYS` not yet filled in.
    """

    name: str
    family: str
    forecast: bool
    monthly: bool
    portfolio: Mapping[str, Any]

    @property
    def calendar(self) -> dict[str, str]:
        """As `TargetWeights` takes it."""
        return MONTHLY if self.monthly else YEARLY

    def of(self, days: int) -> dict[str, Any]:
        """The portfolio with so many days of training."""
        return _filled(self.portfolio, days)

    @property
    def fingerprint(self) -> str:
        """Of all that it says."""
        said = json.dumps([self.forecast, self.monthly, self.portfolio], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:8]


def methods(file: Path = FILE, names: list[str] | None = None) -> list[Method]:
    """The methods of a file, in its order.

    Parameters
    ----------
    file
        YAML: name -> `family`, `portfolio`, and where they are needed `monthly` and `forecast`.
    names
        Of those that are wanted; None for all.

    Raises
    ------
    UserError
        If a name is none of the file's.
    """
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name in names or []:
        if name not in said:
            raise UserError(f"there is no method {name!r}{nearest(name, said)}; {file} has {', '.join(said)}")
    return [
        Method(
            name,
            one["family"],
            one.get("forecast", False),
            one.get("monthly", False),
            {"risk_model": RISK, "invested": 1.0, **one["portfolio"]},
        )
        for name, one in said.items()
        if names is None or name in names
    ]


def _filled(value: Any, days: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(inner, days) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, days) for inner in value]
    return days if value == TRAINING else value
