"""The program that runs the golden workflows, in an environment that `golden.environment` has made.

    python -m tests.golden.run_workflows FOLDER [NAME ...]

writes `FOLDER/found/NAME.json` for each workflow: its statistics, its orders, its scores and the tables of its report;
`FOLDER/runs/NAME/log.txt` has what it printed.
The markets are made once. Each workflow runs in a fork of the process that imported everything, so that no workflow
sees what another left behind, and nothing is imported twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import lightgbm  # noqa: F401 - here, so that no fork has to
import pandas as pd
import qlib.contrib.model.gbdt  # noqa: F401
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from qlib.cli.run import workflow

from qlib_ext.market.side_data.import_table import import_table
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.synthetic.us_sample import USSampleMarket
from qlib_ext.report.document import Document

WORKFLOWS = Path(__file__).parent / "workflows"
EMPTY = "empty.db"

# All names of artifacts and of their columns that the suite knows.
SCORES = "signal/predictions.parquet"
SCORE = "score"
ORDERS = "backtest/orders.parquet"
DAY, STOCK, DIRECTION, FILLED, PRICE, REASON = (
    "datetime",
    "instrument",
    "direction",
    "filled",
    "price",
    "reason",
)
REPORT = "report/report.html"
# What changes from run to run, or with names: statistics that begin so, and titles of the report's sections.
UNSTEADY_STATISTICS = ("seconds/",)
UNSTEADY_SECTIONS = ("Provenance",)


def make_database(file: Path) -> None:
    """An empty database of MLflow's, which takes it seconds to make."""
    MlflowClient(f"sqlite:///{file}").search_experiments(max_results=1)


def make_markets(folder: Path) -> dict[str, Path]:
    """A Chinese market with side data that were brought in from a vendor's files, and one of the United States."""
    china, states = folder / "cn", folder / "us"
    SampleMarket(seed=3, stocks=40, start="2014-10-08", end="2015-12-31").write(china)
    USSampleMarket(seed=3, stocks=36, start="2007-10-01", end="2009-06-30").write(states)
    values = pd.read_parquet(china / "side" / "market_value.parquet")
    values.rename(columns={"market_value": "total_mv"}).to_csv(folder / "values.csv", index=False)
    import_table(
        china, "market_value", folder / "values.csv", columns={"market_value": "total_mv"}, replace=True
    )
    concepts = pd.read_parquet(china / "side" / "industry.parquet").rename(columns={"industry": "concept"})
    index = concepts["instrument"].str[-2:].astype(int)
    themes = concepts[index % 3 == 0].assign(concept="theme", start=pd.Timestamp("2015-04-01"), end=pd.NaT)
    themes = themes.drop_duplicates("instrument")
    pd.concat([concepts, themes]).to_csv(folder / "concepts.csv", index=False)
    import_table(china, "concepts", folder / "concepts.csv", columns={"concepts": "concept"})
    return {"cn": china, "us": states}


def run_workflow(name: str, folder: Path, markets: dict[str, Path]) -> None:
    """Run one workflow as `qrun` does, in a folder of its own, and write down what it left."""
    home = folder / "runs" / name
    home.mkdir(parents=True)
    os.chdir(home)
    with Path("log.txt").open("w", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    file = WORKFLOWS / f"{name}.yaml"
    os.environ["QLIB_DATA"] = str(markets["us" if "region: us" in file.read_text(encoding="utf-8") else "cn"])
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
    shutil.copy(folder / EMPTY, home / "mlflow.db")
    workflow(str(file))
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(name)
    (run,) = client.search_runs([experiment.experiment_id])
    if run.info.status != "FINISHED":
        raise RuntimeError(f"the run of {name} is {run.info.status}")
    found = folder / "found" / f"{name}.json"
    found.parent.mkdir(exist_ok=True)
    found.write_text(json.dumps(left_by(client, run), ensure_ascii=False), encoding="utf-8")


def left_by(client: MlflowClient, run: Run) -> dict[str, Any]:
    """What a run left, as plain numbers and texts."""

    def artifact(path: str) -> Path:
        return Path(client.download_artifacts(run.info.run_id, path))

    return {
        "statistics": {
            key: float(f"{value:.6g}")
            for key, value in sorted(run.data.metrics.items())
            if not key.startswith(UNSTEADY_STATISTICS)
        },
        "orders": order_lines(pd.read_parquet(artifact(ORDERS))),
        "scores": score_lines(pd.read_parquet(artifact(SCORES))),
        "report": report_lines(artifact(REPORT).read_text(encoding="utf-8")),
    }


def order_lines(orders: pd.DataFrame) -> list[str]:
    """Every order in its sequence: day, stock, direction, what was dealt, at which price, and why not in full."""
    return [
        f"{row[DAY]:%Y-%m-%d} {row[STOCK]} {row[DIRECTION]} {row[FILLED]:.2f} at {row[PRICE]:.4f}"
        + (f": {row[REASON]}" if isinstance(row[REASON], str) else "")
        for row in orders.reset_index().to_dict("records")
    ]


def score_lines(predictions: pd.DataFrame) -> list[str]:
    """Every score, in standard deviations of its day from the mean of its day, to two decimals.

    What scores are for is the order of a day's stocks; so a digit means the same for every model and day. Other code of
    the same arithmetic, such as AVX-512 in place of the portable one, moves one in a thousand by the third decimal, with
    ResNeXt all of them.
    """
    score = predictions[SCORE].dropna().astype("float64").sort_index()
    by_day = score.groupby(level=DAY)
    standard = (score - by_day.transform("mean")) / by_day.transform("std")
    return [
        f"{day:%Y-%m-%d} {stock} {value:.2f}".replace("-0.00", "0.00")
        for (day, stock), value in standard.items()
    ]


def report_lines(page: str) -> dict[str, list[str]]:
    """Title of each section -> the rows of its tables, in their order."""
    reader = _Tables()
    reader.feed(page)
    return {title: rows for title, rows in reader.sections.items() if title not in UNSTEADY_SECTIONS}


class _Tables(HTMLParser):
    """The text of tables and of figures in large print, by section."""

    ROWS = ("tr", "dl")
    CELLS = ("th", "td", "dt", "dd")

    def __init__(self) -> None:
        super().__init__()
        self.sections: dict[str, list[str]] = {}
        self._title: list[str] | None = None
        self._rows: list[str] = []
        self._cells: list[str] | None = None
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "h2":
            self._title = []
        elif tag in self.ROWS:
            self._cells = []
        elif tag in self.CELLS and self._cells is not None:
            self._cell = []

    def handle_data(self, data: str) -> None:
        for text in (self._title, self._cell):
            if text is not None:
                text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2" and self._title is not None:
            self._rows = self.sections.setdefault("".join(self._title), [])
            self._title = None
        elif tag in self.CELLS and self._cells is not None and self._cell is not None:
            self._cells.append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag in self.ROWS and self._cells is not None:
            self._rows.append(" | ".join(self._cells))
            self._cells = None


def main(folder: Path, names: list[str]) -> int:
    """Run the workflows one after the other; 1 if one of them failed."""
    torch.set_num_threads(1)
    # Both choose their code by the processor.
    torch.backends.mkldnn.set_flags(False)
    torch.backends.nnpack.set_flags(False)
    # With either, sums are in another order than without; neither is needed.
    pd.set_option("compute.use_bottleneck", False)
    pd.set_option("compute.use_numexpr", False)
    # The suite pins no picture, and to draw those of five reports takes longer than to train five models.
    Document.pictures = lambda *_: {}  # type: ignore[method-assign]
    fork = multiprocessing.get_context("fork")
    maker = fork.Process(target=make_database, args=(folder / EMPTY,))
    maker.start()
    markets = make_markets(folder)
    maker.join()
    failed = 0
    for name in names:
        process = fork.Process(target=run_workflow, args=(name, folder, markets))
        process.start()
        process.join()
        failed |= process.exitcode != 0
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", default=sorted(f.stem for f in WORKFLOWS.glob("*.yaml"))
    )
    given = parser.parse_args()
    sys.exit(main(given.folder, given.names))
