"""A market and a workflow that are small enough to fail many times: 20 stocks, one of them alone on some days."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from qlib_ext.market.synthetic.sample import SampleMarket

ROOT = Path(__file__).parents[2]
SEGMENTS = {
    "train": ["2016-04-05", "2016-04-22"],
    "valid": ["2016-05-03", "2016-05-18"],
    "test": ["2016-05-30", "2016-09-30"],
}
# A day of one stock in each of them.
LONELY = ("2016-04-12", "2016-05-10", "2016-07-06")
# The records that a run is made with here, and the sections of its report; with FAULT_RECORDS=all the workflow's own.
RECORDS = ("SignalRecord", "RankingRecord", "BacktestRecord", "ReportRecord")
SECTIONS = ("cumulative_return.CumulativeReturn", "training.Training", "provenance.Provenance")


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample market of a year, whose csi300 has a single member on three days."""
    root = tmp_path_factory.mktemp("faults") / "market"
    SampleMarket(seed=3, stocks=20, start="2015-12-01", end="2016-12-30").write(root)
    leave_alone(root / "instruments" / "csi300.txt", (root / "calendars" / "day.txt").read_text().split())
    return root


def leave_alone(members: Path, calendar: list[str]) -> None:
    """End every spell but the first stock's before each lonely day, and begin it again after."""
    first, *others = members.read_text().splitlines()
    for day in LONELY:
        place = calendar.index(day)
        before, after = calendar[place - 1], calendar[place + 1]
        cut = []
        for line in others:
            code, start, end = line.split("\t")
            whole = start > day or end < day
            spells = [(start, end)] if whole else [(start, before), (after, end)]
            cut += [f"{code}\t{a}\t{b}" for a, b in spells if a <= b]
        others = cut
    members.write_text("\n".join([first, *others]) + "\n")


@pytest.fixture(scope="session")
def configured(market: Path) -> Callable[..., dict[str, Any]]:
    """The shipped workflow of MiM-StocR on that market, made small."""

    def make(**variables: Any) -> dict[str, Any]:
        path = ROOT / "workflows" / "mimstocr_csi300.yaml"
        given = {"QLIB_DATA": str(market), "HIDDEN_SIZE": 4, "N_EPOCHS": 2, "DEVICE": "cpu", **variables}
        config = yaml.safe_load(jinja2.Template(path.read_text(encoding="utf-8")).render(given))
        task = config["task"]
        dataset = task["dataset"]["kwargs"]
        dataset["segments"] = SEGMENTS
        dataset["handler"]["kwargs"] |= {
            "fit_start_time": SEGMENTS["train"][0],
            "fit_end_time": SEGMENTS["train"][1],
        }
        task["model"]["kwargs"]["backbone"]["kwargs"] |= {"num_layers": 2, "dropout": 0.3}
        task["model"]["kwargs"]["trainer"]["learning_rate"] = 1e-2
        if os.environ.get("FAULT_RECORDS") != "all":
            task["record"] = [r for r in task["record"] if r["class"].rpartition(".")[2] in RECORDS]
            sections = [{"class": f"qlib_ext.report.sections.{section}"} for section in SECTIONS]
            task["record"][-1]["kwargs"] = {"sections": sections}
        for record in task["record"]:
            if record["class"].endswith("BacktestRecord"):
                record["kwargs"]["strategy"]["kwargs"] = {"topk": 5, "n_drop": 1}
        return config

    return make
