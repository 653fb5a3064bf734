"""What a strategy remembers from one day to the next, kept in a file beside the holdings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.files import read_json, write_whole

KEPT = 10  # days, so that a day of the last ones can be asked for again


@dataclass(frozen=True)
class Memory:
    """What a strategy knew after the orders of some days.

    Attributes
    ----------
    strategy
        The configuration of the strategy that remembers, ready for JSON.
    days
        Day of the trade, ISO -> what the strategy said of itself after its orders, ready for JSON.
    """

    strategy: Mapping[str, Any]
    days: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, strategy: Mapping[str, Any]) -> Memory:
        """The memory of a strategy in a file, which a first call finds missing.

        Raises
        ------
        UserError
            If the file cannot be read, is no memory, or that of another strategy.
        """
        own = json.loads(json.dumps(strategy, default=str))
        if not path.exists():
            return cls(own)
        try:
            kept = read_json(path)
            days = {f"{pd.Timestamp(day):%Y-%m-%d}": dict(state) for day, state in kept["days"].items()}
            known = kept["strategy"]
        except UserError:
            raise
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(
                f"`--memory` must be a file that an earlier call wrote, found {path}, which cannot be read as one ({error}): name "
                "another, and the strategy begins without"
            ) from error
        if known != own:
            raise UserError(
                f"{path} is the memory of a strategy with other settings than the run's: name another file, and the strategy "
                "begins without"
            )
        return cls(own, days)

    def before(self, day: pd.Timestamp) -> Mapping[str, Any] | None:
        """What the strategy knew before the orders of a day; None where it knew nothing."""
        earlier = [each for each in self.days if pd.Timestamp(each) < day]
        return self.days[max(earlier)] if earlier else None

    def after(self, day: pd.Timestamp, state: Mapping[str, Any]) -> Memory:
        """With what it knows after the orders of a day; what was kept of that day and of later ones goes."""
        earlier = sorted(each for each in self.days if pd.Timestamp(each) < day)[1 - KEPT :]
        kept = {each: self.days[each] for each in earlier}
        return Memory(self.strategy, {**kept, f"{day:%Y-%m-%d}": dict(state)})

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        text = json.dumps({"strategy": self.strategy, "days": self.days}, ensure_ascii=False, indent=1)
        write_whole(path, text + "\n")
