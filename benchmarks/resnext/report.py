"""Tables 1 and 2 of the ResNeXt paper, its ablations and its costs, from the runs that are there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from mlflow import MlflowClient

from benchmarks.grid.page import Page
from benchmarks.grid.pictures import cumulative, losses
from benchmarks.grid.plan import Grid, Plan
from benchmarks.grid.results import Result, Results, Setting
from benchmarks.grid.tables import NONE, by, percent, spread
from qlib_ext.checks import UserError
from qlib_ext.metrics.significance import bootstrap_difference

ROOT = Path(__file__).parents[2]
OURS, JOINT = "ResNeXt", "joint"
FINDINGS = "findings.md"  # written by hand, beside the page
COST = "cost.json"  # of `benchmarks/step_cost.py sizes --json`, beside the page
CROSSED = "SSE50"  # the universe in which MiM-StocR's workflow is run
IMPLAUSIBLE = 0.60  # accuracy of next-day direction: above it, look for the leak
WHOLE = "all test days"  # as the records of direction call them
RETURN = "NEXT_RETURN"


def write(work: Path, uri: str, experiment: str, out: Path) -> list[Path]:
    """Write the report of the runs planned in `work` to `out`; returns the files.

    Raises
    ------
    UserError
        If no run is finished.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    results = Results(Plan(work / "plan.json"), MlflowClient(uri), experiment)
    if not results.done:
        raise UserError(
            f"no run planned in {work} is finished in {uri}: start with `python -m benchmarks.resnext run`"
        )
    folder = Path(__file__).parent
    grid = Grid(folder / "grid.yaml", ROOT)
    published = yaml.safe_load((folder / "published.yaml").read_text(encoding="utf-8"))
    metrics = results.metrics()
    ours = metrics[metrics["universe"] != CROSSED]
    page = Page("The ResNeXt multi-task paper, made again on US shares")
    _introduction(page, results, (out / FINDINGS).is_file())
    _in_short(page, ours)
    _tables(page, ours, grid, published)
    _ranking(page, ours, grid)
    _significance(page, results)
    _ablations(page, ours, grid)
    _crossed(page, metrics)
    _stress(page, results)
    _cost(page, out / COST)
    _figures(page, results)
    _what_was_run(page, results, grid)
    return page.write(out)


def _introduction(page: Page, results: Results, findings: bool) -> None:
    page.text(
        "Whether a share rises on the next day (direction, a classification) and by how much (return, a regression), "
        "from windows of daily bars and macro figures as they were released: five models, trained on the same days by "
        "the same trainer. Ours beside the paper's, with the mean and the standard deviation over seeds where there "
        "are several. The paper has 1.8 million samples of the S&P 500 that nobody else has; what stands here was run "
        "on the data and with the budget that each table names. An accuracy of 85 % for the direction of the next day "
        f"is no mark to be hit: at {IMPLAUSIBLE:.0%} a run warns of a leak."
    )
    page.code(
        "python -m benchmarks.resnext run --help\npython -m benchmarks.resnext report   # makes this page again"
    )
    run = next((result for result in results.done if result.cell.universe != CROSSED), None)
    if run is not None:
        segments = results.json(run, "data/summary.json")["segments"]
        rows = [
            {
                "segment": name,
                **{key: f"{value:,}" if isinstance(value, int) else value for key, value in of.items()},
            }
            for name, of in segments.items()
        ]
        page.text("The days, divided 70/15/15 and cut where labels reach over:")
        page.table("segments", pd.DataFrame(rows))
    if findings:
        page.text(f"What we make of these figures stands in {FINDINGS} beside this page.")


def _in_short(page: Page, metrics: pd.DataFrame) -> None:
    """Say whether anything beats the rules that need no model, and how the five stand."""
    page.heading("In short")
    lines = []
    for setting, group in metrics[metrics["method"] == JOINT].groupby("setting", sort=False):
        means = group.groupby("backbone")[
            [
                "direction/accuracy",
                "direction/majority_accuracy",
                "return/rmse",
                "return/zero_rmse",
                "RankIC",
            ]
        ].mean()
        means.columns = ["accuracy", "majority", "rmse", "zero", "rank_ic"]
        better = [name for name, row in means.iterrows() if row["accuracy"] > row["majority"]]
        nearer = [name for name, row in means.iterrows() if row["rmse"] < row["zero"]]
        ranks = means["rank_ic"].sort_values(ascending=False)
        lines.append(
            f"Accuracy of direction, at most {setting.epochs} epochs a phase: from {means['accuracy'].min():.2%} "
            f"({means['accuracy'].idxmin()}) to {means['accuracy'].max():.2%} ({means['accuracy'].idxmax()}); the most "
            f"common class of the training days has {means['majority'].mean():.2%}. Above it: {', '.join(better) or 'none'}."
        )
        lines.append(
            f"RMSE of the return: from {means['rmse'].min():.5f} ({means['rmse'].idxmin()}) to {means['rmse'].max():.5f} "
            f"({means['rmse'].idxmax()}); a forecast of 0 has {means['zero'].mean():.5f}. Below it: "
            f"{', '.join(nearer) or 'none'}."
        )
        lines.append(
            "RankIC with the next return: "
            + ", ".join(f"{name} {value:.4f}" for name, value in ranks.items())
            + "."
        )
    leaks = metrics[metrics["direction/accuracy"] > IMPLAUSIBLE]
    lines.append(
        f"Runs with an accuracy above {IMPLAUSIBLE:.0%}, where a leak is likelier than skill: "
        + (", ".join(f"{r.backbone} {r.method} seed {r.seed}" for r in leaks.itertuples()) or "none")
        + "."
    )
    page.items(lines)
    page.text("Whether a difference is more than chance is said below.")


def _tables(page: Page, metrics: pd.DataFrame, grid: Grid, published: Mapping[str, Any]) -> None:
    """Tables 1 and 2."""
    for table, title, columns, baseline in (
        (
            1,
            "Table 1: direction",
            {"accuracy": "direction/accuracy", "macro_f1": "direction/macro_f1"},
            "direction/majority_accuracy",
        ),
        (2, "Table 2: return", {"mae": "return/mae", "rmse": "return/rmse"}, None),
    ):
        page.heading(title)
        for number, (universe, setting, group) in enumerate(_groups(metrics), 1):
            group = group[group["method"] == JOINT]
            rows: list[dict[str, object]] = []
            for backbone in grid.backbones:
                own = group[group["backbone"] == backbone]
                if own.empty:
                    continue
                row: dict[str, object] = {"model": backbone, "seeds": len(own)}
                for name, column in columns.items():
                    paper = published[backbone][name]
                    row[NAMES[name]] = percent(own[column]) if table == 1 else _small(own[column])
                    row[f"paper's {NAMES[name]}"] = f"{paper:.1f}%" if table == 1 else f"{paper:.3f}"
                rows.append(row)
            if not rows:
                continue
            if table == 1:
                assert baseline is not None
                rows.append(
                    _rule("most common class", columns, {"accuracy": percent(group[baseline].head(1))})
                )
            else:
                zero = {name: _small(group[f"return/zero_{name}"].head(1)) for name in columns}
                rows.append(_rule("a return of 0", columns, zero))
            unit = (
                ""
                if table == 1
                else " Fractions of the price: 0.01 is one per cent; the paper names no unit."
            )
            page.text(
                f"{universe}: {setting}. All rows of the test days together; deviation over seeds in brackets.{unit}"
            )
            page.table(f"table{table}_{number}_{universe}", pd.DataFrame(rows).fillna(NONE))


NAMES = {"accuracy": "accuracy", "macro_f1": "macro F1", "mae": "MAE", "rmse": "RMSE"}


def _rule(name: str, columns: Mapping[str, str], figures: Mapping[str, str]) -> dict[str, object]:
    return {"model": name, "seeds": NONE, **{NAMES[key]: figures.get(key, NONE) for key in columns}}


def _groups(metrics: pd.DataFrame) -> list[tuple[str, Setting, pd.DataFrame]]:
    return [
        (universe, setting, group)
        for (universe, setting), group in metrics.groupby(["universe", "setting"], sort=False)
    ]


def _ranking(page: Page, metrics: pd.DataFrame, grid: Grid) -> None:
    page.heading("Ranking and money")
    page.text(
        "The forecast of the return ranks the shares of a day. RankIC is with the return of the next day, and with the "
        "one that can be traded, from the next close to the one after it. The portfolio holds the 50 best and replaces "
        "at most 5 a day, after cost."
    )
    for number, (universe, setting, group) in enumerate(_groups(metrics), 1):
        rows = []
        for backbone in grid.backbones:
            own = group[(group["backbone"] == backbone) & (group["method"] == JOINT)]
            if own.empty:
                continue
            rows.append(
                {
                    "model": backbone,
                    "seeds": len(own),
                    "RankIC, next day": spread(own["RankIC"]),
                    "RankIC, tradable": spread(own["RETURN/RankIC"]),
                    "Precision@50": percent(own["precision/50"]),
                    "base rate": percent(own["base_rate"].head(1)),
                    "return a year": percent(own["backtest/annualised_return"]),
                    "excess return a year": percent(own["backtest/annualised_excess_return"]),
                }
            )
        if rows:
            page.text(f"{universe}: {setting}.")
            page.table(f"ranking_{number}_{universe}", pd.DataFrame(rows))


def _significance(page: Page, results: Results) -> None:
    page.heading("How sure the differences are")
    page.text(
        f"{OURS} minus another model on the same days, the mean over the seeds that both have, with a 95 % interval from "
        "the stationary block bootstrap of days: shares of one day move together, so a day is one observation. Accuracy "
        "in points, MAE in basis points of the price (below 0 is better), RankIC with the next day's return."
    )
    rows: list[dict[str, object]] = []
    joint = [run for run in results.done if run.cell.method == JOINT and run.cell.universe != CROSSED]
    for (_, setting), runs in by(joint, "universe", "setting").items():
        models = {backbone: found for (backbone,), found in by(runs, "backbone").items()}
        rivals = {name: found for name, found in models.items() if name != OURS}
        if OURS not in models:
            continue
        for name, found in rivals.items():
            seeds = {run.cell.seed for run in models[OURS]} & {run.cell.seed for run in found}
            if not seeds:
                continue
            mine, theirs = (
                _daily(results, [run for run in of if run.cell.seed in seeds]) for of in (models[OURS], found)
            )
            rows.append(
                {"against": name, "seeds": len(seeds), **_differences(mine, theirs), "epochs": setting.epochs}
            )
        mine = _daily(results, models[OURS])
        rules = mine.assign(accuracy=mine["majority"], mae=mine["zero"], rank_ic=np.nan)
        rows.append(
            {
                "against": "most common class, return of 0",
                "seeds": len(models[OURS]),
                **_differences(mine, rules),
                "epochs": setting.epochs,
            }
        )
    if rows:
        page.table("significance", pd.DataFrame(rows))
    else:
        page.text(f"No run of {OURS}.")


def _differences(mine: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, str]:
    said: dict[str, str] = {}
    for name, column, unit in (("accuracy", "accuracy", 100), ("MAE", "mae", 1e4), ("RankIC", "rank_ic", 1)):
        if theirs[column].isna().all():
            said |= {name: NONE, f"{name}, 95 %": NONE}
            continue
        found = bootstrap_difference(*mine[column].align(theirs[column]))
        form = "{:+.4f}" if unit == 1 else "{:+.2f}"
        said[name] = form.format(unit * found.mean)
        said[f"{name}, 95 %"] = f"{form.format(unit * found.low)} to {form.format(unit * found.high)}"
    return said


def _daily(results: Results, runs: Sequence[Result]) -> pd.DataFrame:
    """Accuracy, MAE and RankIC by day, the mean over seeds, and the rules that need no model."""
    tables = []
    for run in runs:
        direction = results.table(run, "direction/daily.parquet")
        ranking = results.table(run, "ranking/daily.parquet")
        tables.append(
            pd.DataFrame(
                {
                    "accuracy": direction["accuracy/model"],
                    "majority": direction["accuracy/majority"],
                    "mae": direction["mae/model"],
                    "zero": direction["mae/zero"],
                    "rank_ic": ranking[f"rank_ic/{RETURN}"],
                }
            )
        )
    return sum(tables[1:], tables[0]) / len(tables)


LEARNS = {"direction alone": {"direction"}, "return alone": {"return"}}  # every other method learns both
ABLATIONS = {
    "cardinality": "Cardinality: groups of the convolutions, the width the same (joint: 32)",
    "alpha": "Weight of the return's loss (joint: 1)",
    "tasks": "One task alone",
    "training": "Phases, augmentation, macro figures",
    "norm": "What normalises (joint: a stock's own window; batch: all stocks of the day)",
    "balancer": "MiM-StocR's CQB as the balancer",
}


def _ablations(page: Page, metrics: pd.DataFrame, grid: Grid) -> None:
    page.heading("Ablations")
    page.text(
        "Each row is the workflow with one thing changed, as benchmarks/resnext/grid.yaml says; a run without phases or of "
        "one task makes as many passes over the data as the three phases do. What a run did not learn is not shown. A "
        "difference as small as the deviation over the seeds of Table 1 says nothing."
    )
    shown = metrics[(metrics["backbone"] == OURS) & metrics["method"].isin(grid.tables["ablations"])]
    for number, (universe, setting, group) in enumerate(_groups(shown), 1):
        if set(group["method"]) == {JOINT}:
            continue
        page.text(f"{universe}, {OURS}: {setting}.")
        for table, title in ABLATIONS.items():
            rows = [
                {"": method, "seeds": len(own), **_learnt(own, LEARNS.get(method, {"direction", "return"}))}
                for method in grid.tables[table]
                if not (own := group[group["method"] == method]).empty
            ]
            if len(rows) > 1:
                page.text(f"{title}:")
                page.table(f"ablation_{table}_{number}_{universe}", pd.DataFrame(rows))


def _learnt(own: pd.DataFrame, learnt: set[str]) -> dict[str, str]:
    direction = {
        "accuracy": percent(own["direction/accuracy"]),
        "macro F1": percent(own["direction/macro_f1"]),
    }
    of_return = {
        "MAE": _small(own["return/mae"]),
        "RMSE": _small(own["return/rmse"]),
        "RankIC, next day": spread(own["RankIC"]),
        "excess return a year": percent(own["backtest/annualised_excess_return"]),
    }
    hidden = dict.fromkeys(direction if "direction" not in learnt else (), NONE)
    hidden |= dict.fromkeys(of_return if "return" not in learnt else (), NONE)
    return direction | of_return | hidden


def _crossed(page: Page, metrics: pd.DataFrame) -> None:
    page.heading("ResNeXt as a backbone of MiM-StocR")
    shown = metrics[(metrics["universe"] == CROSSED) & (metrics["method"] == JOINT)]
    if shown.empty:
        page.text("Not run.")
        return
    page.text(
        "MiM-StocR's workflow of A shares, its tasks, features, loss and CQB as they are, with another backbone. CQB as the "
        "balancer of this paper's workflow stands among the ablations."
    )
    for number, (universe, setting, group) in enumerate(_groups(shown), 1):
        rows = [
            {
                "backbone": backbone,
                "seeds": len(own),
                "IC": spread(own["IC"]),
                "RankIC": spread(own["RankIC"]),
                "momentum accuracy": percent(own["momentum/accuracy"]),
                "excess return a year": percent(own["backtest/annualised_excess_return"]),
                "best epoch": f"{own['best epoch'].mean():.0f}",
            }
            for backbone, own in group.groupby("backbone", sort=False)
        ]
        page.text(f"{universe}: {setting}.")
        page.table(f"crossed_{number}_{universe}", pd.DataFrame(rows))


def _stress(page: Page, results: Results) -> None:
    page.heading("Periods of stress")
    joint = [run for run in results.done if run.cell.method == JOINT and run.cell.universe != CROSSED]
    page.text(
        "The same predictions, by period; the rules that need no model beside them. Means over seeds. Accuracy and errors "
        "of all rows of the period together."
    )
    for number, ((universe, setting), runs) in enumerate(by(joint, "universe", "setting").items(), 1):
        rows: list[dict[str, object]] = []
        for (backbone,), found in by(runs, "backbone").items():
            together = pd.concat([results.table(run, "direction/summary.csv") for run in found])
            together = together.groupby(["period", "rule"], sort=False).mean(numeric_only=True)
            for period in dict.fromkeys(together.index.get_level_values("period")):
                model, majority, zero = (
                    together.loc[(period, rule)] for rule in ("model", "majority", "zero")
                )
                rows.append(
                    {
                        "period": period,
                        "model": backbone,
                        "days": f"{model['days']:.0f}",
                        "accuracy": f"{model['accuracy']:.2%}",
                        "most common class": f"{majority['accuracy']:.2%}",
                        "macro F1": f"{model['macro_f1']:.2%}",
                        "MAE": f"{model['mae']:.5f}",
                        "of a return of 0": f"{zero['mae']:.5f}",
                        "RMSE": f"{model['rmse']:.5f}",
                        "of 0": f"{zero['rmse']:.5f}",
                    }
                )
        table = pd.DataFrame(rows)
        periods = {name: place for place, name in enumerate(dict.fromkeys(table["period"]))}
        table = table.sort_values("period", key=lambda names: names.map(periods), kind="stable")
        page.text(f"{universe}: {setting}.")
        page.table(f"periods_{number}_{universe}", table, left=2)


def _cost(page: Page, path: Path) -> None:
    page.heading("What a step costs")
    if not path.is_file():
        page.text("Not measured.")
        page.code(f"python benchmarks/step_cost.py sizes --json {COST}")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    machine, setup = found["machine"], found["setup"]
    where = machine["gpu"] or f"{setup['threads']} of {machine['cpus']} CPUs"
    page.text(
        f"A training step of a day by the number of fields F and of tasks K, on {where}, load average "
        f"{machine['load_average_before'][0]:g} before the run; relative to {found['reference']}. With equal weights all "
        "tasks share one backward pass; CQB makes one for each."
    )
    page.code(f"python benchmarks/step_cost.py sizes --json {COST}")
    rows = [
        {
            "": row["name"],
            "stocks": f"{row['stocks']:,}",
            "ms": f"{1e3 * row['seconds']:.1f}",
            "relative": f"{row['time_ratio']:.2f}",
            "peak, MB": f"{row['megabytes']:,.0f}",
        }
        for row in found["rows"]
    ]
    page.table("cost", pd.DataFrame(rows))


def _figures(page: Page, results: Results) -> None:
    page.heading("Losses and returns")
    page.text(
        "Losses by epoch, the phases one after the other: each task alone, then both. The mark is the epoch whose weights "
        "were kept; the test days are never read in training."
    )
    joint = [run for run in results.done if run.cell.method == JOINT and run.cell.universe != CROSSED]
    if not joint:
        return
    least = min(run.cell.seed for run in joint)
    first = [run for run in joint if run.cell.seed == least]
    for number, ((universe, setting), runs) in enumerate(by(first, "universe", "setting").items(), 1):
        histories = {run.cell.backbone: results.table(run, "training/history.parquet") for run in runs}
        page.figure(
            f"losses_{number}_{universe}",
            losses(histories, OURS),
            f"{universe}: loss of each task on train (dashed) and validation, seed {least}; {setting}.",
        )
        daily = {run.cell.backbone: results.table(run, "backtest/daily.parquet") for run in runs}
        page.figure(
            f"cumulative_{number}_{universe}",
            cumulative(daily, OURS),
            f"{universe}: return after cost, compounded; seed {least}; {setting}.",
        )


def _what_was_run(page: Page, results: Results, grid: Grid) -> None:
    page.heading("What was run, and what was not")
    lines = []
    for (setting,), runs in by(results.done, "setting").items():
        universes = ", ".join(dict.fromkeys(run.cell.universe for run in runs))
        lines.append(f"{len(runs)} runs on {universes}: {setting}.")
    left = [f"{result.cell}: {result.setting}" for result in results.all if result.run is None]
    lines.append(f"Asked for and not finished: {len(left)}" + (":" if left else "."))
    page.items(lines + left)
    page.text(
        "The budget of the workflow itself is 30 epochs a phase and a hidden size of 256 in float32. Only firms that still "
        "traded years after the test days are in these data, so every portfolio looks better than it could have been."
    )


def _small(values: pd.Series) -> str:
    """A mean of five places, and the deviation over seeds in units of the last."""
    mean = f"{values.mean():.5f}"
    return f"{mean} ({1e5 * values.std(ddof=1):.0f})" if len(values) > 1 else mean
