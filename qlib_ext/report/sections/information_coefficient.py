"""How the scores agree with the returns that followed, day by day."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from qlib_ext.checks import UserError, integer, nearest
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.figures import daily_and_cumulative
from qlib_ext.report.sections.base import Section, shown


class InformationCoefficient(Section):
    """Daily and cumulative IC and RankIC.

    Parameters
    ----------
    label
        Label column; by default the first that the run was ranked against.
    window
        Days of the moving average; of a run shorter than four times as many, a quarter of its days.
    """

    title = "Information coefficient"
    requires = ("ranking/daily.parquet", "ranking/summary.csv")

    def __init__(self, label: str | None = None, window: int = 60):
        self.label = label
        self.window = integer("window", window, 1)

    def figures(self, run: RunArtifacts) -> Mapping[str, Figure]:
        """Daily values above, running sums below."""
        label = self._label(run)
        daily = run.table("ranking/daily.parquet")
        lines = {"IC": daily[f"ic/{label}"], "RankIC": daily[f"rank_ic/{label}"]}
        return {
            "information_coefficient": daily_and_cumulative(
                lines, ylabel="each day", window=self._days(daily)
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """The picture, with the share of days above zero."""
        label = self._label(run)
        daily = run.table("ranking/daily.parquet")
        ic = daily[f"rank_ic/{label}"].dropna()
        positive = f"{(ic > 0).mean():.0%}" if len(ic) else "none"
        return shown(
            self.figures(run)["information_coefficient"],
            alt=f"Daily and cumulative IC and RankIC against {label}",
            caption=f"Correlation of the scores of day t with the raw label {label}, across the stocks of the day: each day, "
            f"the mean of {self._days(daily)} days, and the running sum, whose slope is the mean; a day without a value adds "
            f"nothing. RankIC is above zero on {positive} of {len(ic)} days.",
        )

    def _days(self, daily: pd.DataFrame) -> int:
        return min(self.window, max(1, len(daily) // 4))

    def _label(self, run: RunArtifacts) -> str:
        known = [str(label) for label in run.table("ranking/summary.csv").index]
        label = known[0] if self.label is None else self.label
        if label not in known:
            raise UserError(
                f"`label` must be one of {', '.join(known)}, found {label!r}{nearest(label, known)}"
            )
        return label
