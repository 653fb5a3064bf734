"""Tables 1 to 4 and Figures 2 to 5 of the paper from the runs that are there, beside the paper's own figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from benchmarks.grid.tables import by, percent, printed, spread
from benchmarks.paper import pictures
from benchmarks.paper.pictures import OURS
from qlib_ext.checks import UserError
from qlib_ext.metrics.significance import (
    bootstrap_difference,
    bootstrap_mean,
    model_confidence_set,
    superior_predictive_ability,
)

ROOT = Path(__file__).parents[2]
FINDINGS = "findings.md"  # written by hand, beside the page


def write(work: Path, uri: str, experiment: str, out: Path) -> list[Path]:
    """Write the report of the runs planned in `work` to `out`; returns the files.

    Raises
    ------
    UserError
        If no run is finished.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    plan = Plan(work / "plan.json")
    results = Results(plan, MlflowClient(uri), experiment)
    if not results.done:
        raise UserError(
            f"no run planned in {work} is finished in {uri}: start with `python -m benchmarks.paper run`"
        )
    grid = Grid(Path(__file__).parent / "grid.yaml", ROOT)
    published = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
    page = Page("The tables and figures of MiM-StocR, made again")
    metrics = results.metrics()
    _introduction(page, results, (out / FINDINGS).is_file())
    _in_short(page, metrics, grid)
    _table_1(page, metrics, grid, published)
    _ablations(page, metrics, grid, published)
    _precision(page, metrics, grid, published)
    _significance(page, results)
    _precisions(page, results, metrics)
    _figures(page, results, grid)
    _what_was_run(page, results, grid)
    return page.write(out)


def _introduction(page: Page, results: Results, findings: bool) -> None:
    page.text(
        "Ours beside the paper's, with the mean and the standard deviation over seeds (in units of 1e-3, as the paper "
        "prints it; none for one seed). The paper trains on 2007-2014 for up to 100 epochs; what stands here was run "
        "on the data and with the budget that each table names, so the paper's figures are a place on the map and "
        "not a mark that was to be hit."
    )
    page.code(
        "python -m benchmarks.paper run --help\npython -m benchmarks.paper report   # makes this page again"
    )
    if findings:
        page.text(
            f"What we make of these figures, and why they came out so, stands in {FINDINGS} beside this page."
        )


def _in_short(page: Page, metrics: pd.DataFrame, grid: Grid) -> None:
    """Where ours is ahead and where it is not, block by block."""
    compared = metrics[metrics["method"].isin(grid.tables["table1"])]
    page.heading("In short")
    lines = []
    for (universe, setting, backbone), group in compared.groupby(
        ["universe", "setting", "backbone"], sort=False
    ):
        means = group.groupby("method")[["IC", "RankIC", "backtest/annualised_excess_return"]].mean()
        if OURS not in means.index or len(means) < 2:
            continue
        said = [
            _placed(means[column], name, form)
            for column, name, form in (
                ("RankIC", "RankIC", "{:.4f}"),
                ("IC", "IC", "{:.4f}"),
                ("backtest/annualised_excess_return", "excess return a year after cost", "{:+.2%}"),
            )
        ]
        lines.append(
            f"{universe}, {backbone}, {setting.precision}, hidden size {setting.hidden_size}, {len(means)} methods: "
            + "; ".join(said)
            + "."
        )
    if lines:
        page.items(lines)
        page.text(
            "Means over the seeds that were run. Whether a difference is more than chance is said below."
        )
    else:
        page.text(f"No block has {OURS} and another method of Table 1.")


def _placed(means: pd.Series, name: str, form: str) -> str:
    """Where ours stands among the methods in one measure."""
    order = means.sort_values(ascending=False)
    place = [*order.index].index(OURS) + 1
    best = f", behind {order.index[0]} with {form.format(order.iloc[0])}" if place > 1 else ""
    return f"{name} {form.format(means[OURS])}, place {place} of {len(order)}{best}"


def _groups(metrics: pd.DataFrame) -> Iterable[tuple[str, Setting, pd.DataFrame]]:
    for (universe, setting), group in metrics.groupby(["universe", "setting"], sort=False):
        yield universe, setting, group


def _table_1(page: Page, metrics: pd.DataFrame, grid: Grid, published: dict[str, Any]) -> None:
    page.heading("Table 1: IC and RankIC")
    for number, (universe, setting, group) in enumerate(_groups(metrics), 1):
        rows = []
        for backbone in grid.backbones:
            for method in [*grid.tables["table1"], *(m for m in grid.tables["decay"] if "decay" in m)]:
                ours = group[(group["backbone"] == backbone) & (group["method"] == method)]
                if ours.empty:
                    continue
                paper = published["table1"][backbone].get(method, {}).get(universe, [np.nan] * 4)
                rows.append(
                    {
                        "backbone": backbone,
                        "method": method,
                        "seeds": len(ours),
                        "IC": spread(ours["IC"]),
                        "paper's IC": printed(paper[0], paper[1]),
                        "RankIC": spread(ours["RankIC"]),
                        "paper's RankIC": printed(paper[2], paper[3]),
                        "excess return a year": percent(ours["backtest/annualised_excess_return"]),
                        "best epoch": f"{ours['best epoch'].mean():.0f}",
                    }
                )
        if rows:
            page.text(f"{universe}: {setting}.")
            page.table(f"table1_{number}_{universe}", pd.DataFrame(rows), left=2)


def _ablations(page: Page, metrics: pd.DataFrame, grid: Grid, published: dict[str, Any]) -> None:
    titles = {
        "table2": "Table 2: momentum line or rise-or-fall",
        "table3": "Table 3: ablations",
        "readings": "Readings that the paper leaves open",
    }
    for table, title in titles.items():
        own = [method for method in grid.tables[table] if method != OURS]
        shown = metrics[metrics["method"].isin(own)]
        page.heading(title)
        if shown.empty:
            page.text("Not run.")
            continue
        for number, ((universe, setting, backbone), _) in enumerate(
            shown.groupby(["universe", "setting", "backbone"], sort=False), 1
        ):
            here = metrics[
                (metrics["universe"] == universe)
                & (metrics["setting"] == setting)
                & (metrics["backbone"] == backbone)
            ]
            rows = []
            for method in grid.tables[table]:
                ours = here[here["method"] == method]
                if ours.empty:
                    continue
                paper = published.get(table, {})
                paper = paper.get(backbone, {}).get(method) if table == "table2" else paper.get(method)
                paper = paper or [np.nan] * 4
                rows.append(
                    {
                        "": method,
                        "seeds": len(ours),
                        "IC": spread(ours["IC"]),
                        "RankIC": spread(ours["RankIC"]),
                        **(
                            {
                                "paper's IC": printed(paper[0], paper[1]),
                                "paper's RankIC": printed(paper[2], paper[3]),
                            }
                            if table != "readings"
                            else {}
                        ),
                    }
                )
            where = {
                "table2": " The paper's are of CSI300.",
                "table3": " The paper's are of HIST on CSI300.",
            }
            page.text(f"{universe}, {backbone}: {setting}.{where.get(table, '')}")
            page.table(f"{table}_{number}_{universe}_{backbone}", pd.DataFrame(rows))


def _precision(page: Page, metrics: pd.DataFrame, grid: Grid, published: dict[str, Any]) -> None:
    page.heading("Table 4: Precision@N")
    shown = metrics[metrics["method"].isin([m for m in grid.tables["table4"] if m != OURS])]
    if shown.empty:
        page.text("Not run.")
        return
    for number, ((universe, setting, backbone), _) in enumerate(
        shown.groupby(["universe", "setting", "backbone"], sort=False), 1
    ):
        here = metrics[
            (metrics["universe"] == universe)
            & (metrics["setting"] == setting)
            & (metrics["backbone"] == backbone)
        ]
        rows = []
        for method in grid.tables["table4"]:
            ours = here[here["method"] == method]
            if ours.empty:
                continue
            row = {"": method, "seeds": len(ours)}
            for n in (10, 20, 30, 50):
                row[f"@{n}"] = percent(ours[f"precision/{n}"])
                row[f"paper's @{n}"] = f"{published['table4'][method][n]:.2f}%"
            rows.append(row)
        base = here["base_rate"].mean()
        page.text(
            f"{universe}, {backbone}: {setting}. Base rate {base:.2%}: the share of all stocks whose return was "
            "positive, which is what a list drawn by lot has. The paper's are of HIST on CSI300."
        )
        page.table(f"table4_{number}_{universe}_{backbone}", pd.DataFrame(rows))


def _significance(page: Page, results: Results) -> None:
    page.heading("How sure the differences are")
    page.text(
        f"Mean daily IC and RankIC of {OURS} minus the baseline's, each the mean over the seeds that both have, with a 95 % "
        "interval from the stationary block bootstrap of days. SPA p: Hansen's test of superior predictive ability "
        f"with the baseline as benchmark and {OURS} as the only rival, on the daily RankIC; small says that {OURS} is "
        "better. In the set: whether the method stays in the model confidence set at 10 % of all methods of its block, each the mean over all its seeds."
    )
    rows: list[dict[str, object]] = []
    for (universe, setting, backbone), runs in by(results.done, "universe", "setting", "backbone").items():
        by_method = {method: seeds for (method,), seeds in by(runs, "method").items()}
        if OURS not in by_method or len(by_method) < 2:
            continue
        daily = {method: _daily(results, seeds) for method, seeds in by_method.items()}
        rank_ic = pd.DataFrame({name: table["rank_ic/RETURN"] for name, table in daily.items()})
        kept = {*rank_ic.columns[model_confidence_set(rank_ic) > 0.10]}
        for method, seeds in by_method.items():
            if method == OURS:
                continue
            both = {run.cell.seed for run in by_method[OURS]} & {run.cell.seed for run in seeds}
            if not both:
                continue
            ours, theirs = (
                _daily(results, [run for run in of if run.cell.seed in both])
                for of in (by_method[OURS], seeds)
            )
            row: dict[str, object] = {
                "universe": universe,
                "backbone": backbone,
                "against": method,
                "seeds": len(both),
            }
            for name, column in (("IC", "ic/RETURN"), ("RankIC", "rank_ic/RETURN")):
                difference = bootstrap_difference(*ours[column].align(theirs[column]))
                row[name] = f"{difference.mean:+.4f}"
                row[f"{name}, 95 %"] = f"{difference.low:+.4f} to {difference.high:+.4f}"
            rival = ours[["rank_ic/RETURN"]]
            row["SPA p"] = f"{superior_predictive_ability(theirs['rank_ic/RETURN'], rival):.3f}"
            row["in the set"] = "yes" if method in kept else "no"
            row[f"{OURS} in the set"] = "yes" if OURS in kept else "no"
            row["epochs"] = setting.epochs
            rows.append(row)
    if rows:
        page.table("significance", pd.DataFrame(rows), left=3)
    else:
        page.text(f"No block has {OURS} and another method.")


def _daily(results: Results, runs: Sequence[Result]) -> pd.DataFrame:
    """IC and RankIC by day, the mean over seeds."""
    tables = [results.table(run, "ranking/daily.parquet")[["ic/RETURN", "rank_ic/RETURN"]] for run in runs]
    return sum(tables[1:], tables[0]) / len(tables)


def _precisions(page: Page, results: Results, metrics: pd.DataFrame) -> None:
    """Runs that differ in nothing but the precision of the backbone, side by side."""
    page.heading("bfloat16 beside float32")
    pairs: dict[tuple[Any, ...], dict[str, Result]] = {}
    for run in results.done:
        shared = (run.cell, replace(run.setting, precision=""))
        pairs.setdefault(shared, {})[run.setting.precision] = run
    both = {key: found for key, found in pairs.items() if {"float32", "bfloat16"} <= {*found}}
    if not both:
        page.text("No run was made in both.")
        return
    rows = []
    for (cell, _), found in both.items():
        daily = {
            name: results.table(run, "ranking/daily.parquet")["rank_ic/RETURN"] for name, run in found.items()
        }
        difference = (daily["bfloat16"] - daily["float32"]).dropna().to_numpy()
        low, high = bootstrap_mean(difference)
        scores = [results.table(found[name], "signal/predictions.parquet")["score"] for name in daily]
        together = pd.concat(scores, axis=1, keys=[*daily]).dropna()
        alike = together.groupby(level="datetime").corr("spearman").xs("float32", level=1)["bfloat16"]
        rows.append(
            {
                "universe": cell.universe,
                "backbone": cell.backbone,
                "method": cell.method,
                "seed": cell.seed,
                "float32": f"{daily['float32'].mean():.4f}",
                "bfloat16": f"{daily['bfloat16'].mean():.4f}",
                "difference": f"{difference.mean():+.4f}",
                "95 %": f"{low:+.4f} to {high:+.4f}",
                "rank correlation of the scores": f"{alike.mean():.3f}",
            }
        )
    page.text(
        "RankIC of the test segment of runs that differ in the precision of the backbone alone, the difference with a "
        "95 % interval from the stationary block bootstrap of days, and how alike the two rank the stocks of a day. Two "
        "seeds of one precision differ too: the deviations of Table 1 say how much."
    )
    page.table("precision", pd.DataFrame(rows), left=4)


def _figures(page: Page, results: Results, grid: Grid) -> None:
    page.heading("Figures 2 and 4: losses by epoch")
    page.text(
        "The test segment is never read in training, so its losses are not drawn. Seed 0; the mark is the epoch whose "
        "weights were kept."
    )
    first = [run for run in results.done if run.cell.seed == min(r.cell.seed for r in results.done)]
    compared = set(grid.tables["table1"])
    first = [run for run in first if run.cell.method in compared]
    blocks = by(first, "universe", "setting", "backbone")
    for number, ((universe, setting, backbone), runs) in enumerate(blocks.items(), 1):
        histories = {run.cell.method: results.table(run, "training/history.parquet") for run in runs}
        page.figure(
            f"figure4_{number}_{universe}_{backbone}",
            losses(histories, OURS),
            f"{universe}, {backbone}: loss of each task on train (dashed) and validation; {setting}.",
        )
        balance = pictures.balance(histories)
        if balance is not None:
            page.figure(
                f"balance_{number}_{universe}_{backbone}",
                balance,
                f"{universe}, {backbone}: what CQB did, V, forgetting rate and weight decay by epoch, gradient norms "
                "of the tasks and the cosine between them.",
            )
    page.heading("Figure 3: cumulative return against the index")
    for number, ((universe, setting, backbone), runs) in enumerate(blocks.items(), 1):
        page.figure(
            f"figure3_{number}_{universe}_{backbone}",
            cumulative({run.cell.method: results.table(run, "backtest/daily.parquet") for run in runs}, OURS),
            f"{universe}, {backbone}: return after cost, compounded; seed {runs[0].cell.seed}; {setting}.",
        )
    page.heading("Figure 5: adaptive k")
    stores = dict.fromkeys((run.cell.universe, run.store) for run in results.done)
    for number, (universe, store) in enumerate(stores, 1):
        counted = pictures.adaptive_k(grid, universe, Path(store))
        if counted is not None:
            page.figure(
                f"figure5_{number}_{universe}",
                pictures.histogram(counted),
                f"{universe}: k of each training day; median {int(np.median(counted))}, from {counted.min()} to "
                f"{counted.max()}.",
            )


def _what_was_run(page: Page, results: Results, grid: Grid) -> None:
    page.heading("What was run, and what was not")
    done = by(results.done, "setting")
    lines = []
    for (setting,), runs in done.items():
        universes = ", ".join(dict.fromkeys(run.cell.universe for run in runs))
        lines.append(f"{len(runs)} runs on {universes}: {setting}.")
    open_ = [result for result in results.all if result.run is None]
    lines.append(f"Asked for and not finished: {len(open_)}" + (":" if open_ else "."))
    lines += [f"{result.cell}: {result.setting}" for result in open_]
    page.items(lines)
    ran = {(r.cell.universe, r.cell.backbone, r.cell.method) for r in results.done}
    missing = [
        f"{universe} {backbone}: {', '.join(left)}"
        for universe in grid.universes
        for backbone in grid.backbones
        if (left := [m for m in grid.tables["table1"] if (universe, backbone, m) not in ran])
    ]
    page.text(
        "Of the paper's Table 1, no run of:" if missing else "Every cell of the paper's Table 1 was run."
    )
    if missing:
        page.items(missing)
