"""The page of the portfolios: tables, what constraints cost, and two pictures."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from qlib_ext.metrics import relative, risk
from qlib_ext.metrics.significance import bootstrap_difference, model_confidence_set
from qlib_ext.records.estimates import estimated

PER_YEAR = {"cn": 243.0, "us": 252.0}
NO_SCORES = "none"  # the folder of portfolios for which scores decide nothing but who is a candidate
TITLES = {
    "net": "return a year",
    "index": "over the index",
    "equal": "over equal weight",
    "low": "from",
    "high": "to",
    "ratio": "information ratio",
    "error": "tracking error",
    "forecast": "forecast",
    "volatility": "volatility",
    "drawdown": "drawdown",
    "turnover": "turnover a year",
    "cost": "cost a year",
    "names": "names",
    "chance": "lists below",
    "mcs": "MCS p",
    "relaxed": "days relaxed",
}


def write_report(out: Path, configs: Mapping[str, Any]) -> None:
    """Make README.md, tables and pictures from what the runs have left under `out`."""
    parts = [(out / "head.md").read_text(encoding="utf-8")] if (out / "head.md").exists() else []
    names = {slug(name): name for name in configs["portfolios"]}
    order = [*names]
    for folder in sorted((out / "runs").iterdir()):
        market = folder.name
        runs = {
            (kind.name, names[run.name]): run
            for kind in sorted(folder.iterdir())
            for run in sorted(kind.iterdir(), key=lambda one: order.index(one.name))
            if (run / "summary.json").exists() and run.name in names
        }
        table, daily = figures(runs, PER_YEAR[market])
        table.to_csv(out / f"{market}.csv", float_format="%.6g")
        _picture(table, daily, out, market)
        first, last = (f"{day:%Y-%m-%d}" for day in (daily["net"].index[0], daily["net"].index[-1]))
        parts += [f"## {market}, {first} to {last}\n", _table(table), missing(runs, configs["portfolios"])]
        parts += [f"![Wealth over equal weight](wealth_{market}.png)\n"]
        parts += [f"![Excess and tracking error](scatter_{market}.png)\n"]
        parts += [
            "### What the constraints cost\n",
            _ladder(daily["net"], configs["ladder"], PER_YEAR[market]),
        ]
    (out / "README.md").write_text("\n".join(parts), encoding="utf-8")


def slug(name: str) -> str:
    """A name as a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def missing(runs: Collection[tuple[str, str]], portfolios: Mapping[str, Any]) -> str:
    """Which portfolios of these scores are not among the runs, in words; nothing where all are."""
    lines = []
    for scores in dict.fromkeys([*(kind for kind, _ in runs), NO_SCORES]):
        left = [
            f"`{name}`"
            for name, config in portfolios.items()
            if config.get("scores", True) == (scores != NO_SCORES) and (scores, name) not in runs
        ]
        if left:
            lines.append(f"- {scores}: {', '.join(left)}")
    return "\n".join(["Not traded:\n", *lines, ""]) if lines else ""


def figures(
    runs: Mapping[tuple[str, str], Path], per_year: float
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """A row a run, and daily net returns and those of equal weight by run."""
    rows, net, equal = {}, {}, {}
    for key, folder in runs.items():
        daily = pd.read_parquet(folder / "daily.parquet").astype(np.float64)
        said = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        own, base = (daily["return"] - daily["cost"]).to_numpy(), daily["equal_weight"].to_numpy()
        net[key], equal[key] = pd.Series(own, daily.index), pd.Series(base, daily.index)

        def over(one: Any, other: Any) -> list[float]:
            return [risk.annualised_excess_return(one, other, per_year)]

        excess = over(own, base)[0]
        interval = estimated({"equal": excess}, over, own, base).iloc[0]
        rows[key] = {
            "net": risk.annualised_return(own, per_year),
            "index": risk.annualised_excess_return(own, daily["benchmark"], per_year)
            if "benchmark" in daily
            else np.nan,
            "equal": excess,
            "low": interval["low"],
            "high": interval["high"],
            "ratio": risk.information_ratio(own, base, per_year),
            "error": relative.tracking_error(own, base, per_year),
            "forecast": said.get("deviation", np.nan) * per_year**0.5,
            "volatility": risk.annualised_volatility(own, per_year),
            "drawdown": risk.max_drawdown(own),
            "turnover": daily["turnover"].mean() * per_year,
            "cost": daily["cost"].mean() * per_year,
            "names": said["names"],
            "chance": said["random_below"],
            "relaxed": said.get("relaxed", 0) / max(1, said.get("rebalances", 1)),
        }
    table = pd.DataFrame(rows).T.rename_axis(index=["scores", "portfolio"])
    together = pd.DataFrame(net)
    table.insert(table.columns.get_loc("relaxed"), "mcs", model_confidence_set(together.to_numpy()))
    return table, {"net": together, "equal": pd.DataFrame(equal)}


def _table(table: pd.DataFrame) -> str:
    percent = (
        "net",
        "index",
        "equal",
        "low",
        "high",
        "error",
        "forecast",
        "volatility",
        "drawdown",
        "cost",
        "relaxed",
        "chance",
    )
    rows = ["| scores | portfolio | " + " | ".join(TITLES[name] for name in table.columns) + " |"]
    rows.append("|---|---|" + "---:|" * table.shape[1])
    for (scores, portfolio), row in table.iterrows():
        cells = []
        for name, value in row.items():
            if np.isnan(value):
                cells.append("")
            elif name in percent:
                cells.append(
                    f"{value:.1%}" if name in ("cost", "error", "forecast") else f"{100 * value:.1f}%"
                )
            else:
                cells.append(f"{value:.1f}" if name in ("turnover", "names") else f"{value:.2f}")
        rows.append(f"| {scores} | {portfolio} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _ladder(net: pd.DataFrame, ladder: list[str], per_year: float) -> str:
    rows = ["| scores | with | beside | return a year | interval | p |", "|---|---|---|---:|---:|---:|"]
    for scores in dict.fromkeys(net.columns.get_level_values(0)):
        for before, after in itertools.pairwise(ladder):
            if (scores, before) in net and (scores, after) in net:
                found = bootstrap_difference(net[scores, after].to_numpy(), net[scores, before].to_numpy())
                low, high = per_year * found.low, per_year * found.high
                rows.append(
                    f"| {scores} | {after} | {before} | {per_year * found.mean:+.1%} | {low:+.1%} to {high:+.1%} | {found.p:.2f} |"
                )
    return "\n".join(rows) + "\n"


def _picture(table: pd.DataFrame, daily: Mapping[str, pd.DataFrame], out: Path, market: str) -> None:
    best = table.groupby(level="scores")["ratio"].nlargest(3).index.droplevel(0)
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for key in best:
        own, base = daily["net"][key].to_numpy(), daily["equal"][key].to_numpy()
        axes.plot(daily["net"].index, risk.relative_wealth(own, base), label=": ".join(key), linewidth=1)
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set_ylabel("wealth over equal weight, after cost")
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(out / f"wealth_{market}.png", dpi=110)
    plt.close(figure)
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for scores, rows in table.groupby(level="scores"):
        axes.errorbar(
            100 * rows["error"],
            100 * rows["equal"],
            100 * np.array([rows["equal"] - rows["low"], rows["high"] - rows["equal"]]),
            fmt="o", markersize=4, linewidth=0.6, label=str(scores),
        )  # fmt: skip
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel("realised tracking error against equal weight, % a year")
    axes.set_ylabel("over equal weight after cost, % a year")
    axes.legend(frameon=False)
    figure.savefig(out / f"scatter_{market}.png", dpi=110)
    plt.close(figure)
