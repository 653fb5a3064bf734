"""How often the highest scored stocks rose."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.charts import Bars, Chart
from qlib_ext.report.sections.base import Section, shown


class Precision(Section):
    """Precision@N against the base rate."""

    title = "Precision of the top of the list"
    requires = ("ranking/daily.parquet",)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """A bar for each N, a line for the base rate."""
        daily = run.table("ranking/daily.parquet")
        shares = {f"top {n}": daily[f"precision/{n}"].mean() for n in _numbers(daily)}
        return {
            "precision": Bars(
                values=pd.DataFrame({"share that rose": shares}),
                levels={"base rate: all scored stocks": daily["base_rate"].mean()},
                ylabel="share that rose",
                percent=True,
                height=260,
                alt="Precision of the highest scored stocks against the base rate",
                caption="Share of the N highest scored stocks of a day whose raw return label is positive, mean over "
                "days. The line is the same share of all scored stocks: what a list drawn by lot would give.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """The chart and its table."""
        daily = run.table("ranking/daily.parquet")
        base = daily["base_rate"]
        rows = []
        for n in _numbers(daily):
            share = daily[f"precision/{n}"]
            better = (share > base)[share.notna() & base.notna()]
            rows.append(
                (
                    f"Precision@{n}",
                    html.percent(share.mean()),
                    html.percent(base.mean()),
                    html.points((share - base).mean()),
                    html.percent(better.mean() if len(better) else float("nan"), 1),
                )
            )
        header = ["", "Precision", "Base rate", "Difference", "Days above base"]
        charts = "".join(shown(name, chart) for name, chart in self.charts(run).items())
        return charts + html.table(header, rows, numbers=range(1, 5))


def _numbers(daily: pd.DataFrame) -> list[int]:
    found = (re.fullmatch(r"precision/(\d+)", str(column)) for column in daily.columns)
    return sorted(int(match.group(1)) for match in found if match)
