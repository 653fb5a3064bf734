"""How the scores agree with the returns that followed, day by day."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.checks import UserError, integer, nearest
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.charts import Chart, Lines
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

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Daily values with their moving averages, and running sums."""
        label = self._label(run)
        daily = run.table("ranking/daily.parquet")
        window = self._days(daily)
        lines = {"IC": daily[f"ic/{label}"], "RankIC": daily[f"rank_ic/{label}"]}
        ic = lines["RankIC"].dropna()
        positive = f"{(ic > 0).mean():.0%}" if len(ic) else "none"
        averages = {
            f"{name}, mean of {window} days": values.rolling(window, min_periods=max(1, window // 2)).mean()
            for name, values in lines.items()
        }
        return {
            "information_coefficient": Lines(
                series=averages | {f"{name}, each day": values for name, values in lines.items()},
                hidden=[f"{name}, each day" for name in lines],
                ylabel="correlation",
                alt=f"IC and RankIC against {label} over time",
                caption=f"Correlation of the scores of day t with the raw label {label}, across the stocks of the day, as "
                f"the mean of {window} days; each day's own can be switched on. RankIC is above zero on {positive} of "
                f"{len(ic)} days.",
            ),
            "information_coefficient_sum": Lines(
                series={name: values.fillna(0.0).cumsum() for name, values in lines.items()},
                ylabel="running sum",
                height=240,
                alt=f"Running sums of IC and RankIC against {label}",
                caption="The running sum of the daily values; its slope is the mean. A day without a value adds nothing.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """The charts."""
        return "".join(shown(name, chart) for name, chart in self.charts(run).items())

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
