from __future__ import annotations

import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from qlib_ext.checks import UserError
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.momentum import MomentumRecord
from qlib_ext.records.portfolio import PortfolioRecord
from qlib_ext.records.ranking import RankingRecord
from qlib_ext.records.report import ReportRecord, headline_table
from qlib_ext.records.signal import SignalRecord
from qlib_ext.records.sweeps import SweepRecord
from qlib_ext.report import headline
from qlib_ext.report.comparison import runs
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from tests.report.conftest import MadeUpRun

SECTIONS = [
    {"class": f"qlib_ext.report.sections.{name}"}
    for name in (
        "summary.Summary",
        "cumulative_return.CumulativeReturn",
        "drawdown.Drawdown",
        "information_coefficient.InformationCoefficient",
        "precision.Precision",
        "provenance.Provenance",
    )
]
STRATEGY = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}


@pytest.fixture
def recorded(run: Any, workplace: Any, model: Any) -> Any:
    """A run with everything but the report."""
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    RankingRecord(recorder=run).generate()
    MomentumRecord(recorder=run).generate()
    BacktestRecord(recorder=run, strategy=STRATEGY).generate()
    PortfolioRecord(recorder=run, draws=20).generate()
    return run


def test_from_scores_to_the_report(
    recorded: Any,
    files: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    before = files()
    record = ReportRecord(recorder=recorded, sections=SECTIONS, out_dir=str(tmp_path))
    record.generate()
    pictures = {"account", "cumulative_return", "drawdown", "excess_return", "precision"}
    pictures |= {"coverage", "information_coefficient"}
    pictures |= {f"information_coefficient_{part}" for part in ("sum", "histogram")}
    assert files() - before == {"report/report.html", *(f"figures/{name}.png" for name in pictures)}
    record.check(include_self=True)

    copy = tmp_path / f"records-{recorded.id[:8]}" / "report.html"
    page = copy.read_text(encoding="utf-8")
    assert page == Path(recorded.download_artifact("report/report.html")).read_text(encoding="utf-8")
    assert recorded.id in page

    shown = capsys.readouterr().out
    metrics = recorded.list_metrics()
    for number in (
        f"{metrics['IC']:.4f}",
        f"{metrics['RankICIR']:.4f}",
        f"{metrics['NEXT_RETURN/IC']:.4f}".replace("-", "−"),
        f"{metrics['precision/50']:.2%}",
        f"{metrics['momentum/accuracy']:.2%}",
        f"persistence {metrics['momentum/persistence_accuracy']:.2%}",
        f"{metrics['backtest/information_ratio']:.2f}",
        f"−{-metrics['backtest/max_drawdown']:.2%}",
        f"{metrics['backtest/turnover']:.2%}",
    ):
        assert number in shown
    described = recorded.list_tags()["mlflow.note.content"]
    assert f"| RankIC | {metrics['RankIC']:.4f} | ".replace("| -", "| −") in described
    assert str(copy) in shown
    assert f"sqlite:///{Path.cwd()}/mlflow.db" in shown
    assert recorded.id in shown


def test_80_columns_hold_the_table_and_all_that_is_in_it(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, days=60, epochs=1).view(experiment="a_long_name_" * 10)
    written = Console(width=80, file=io.StringIO())
    written.print(headline_table(run))
    shown = written.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    for row in (row for group in headline.groups(run) for row in group.rows):
        line = next(
            line for line in shown.splitlines() if line.startswith(row.name[:10]) and row.value in line
        )
        assert row.interval in line
    assert {*re.findall(r"[\w.%]+", shown)} >= {
        word
        for group in headline.groups(run)
        for row in group.rows
        for word in re.findall(r"[\w.%]+", row.beside)
    }


def test_a_synthetic_market_is_the_first_thing_on_the_terminal(
    recorded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Path(recorded.download_artifact("data/summary.json"))
    summary = json.loads(told.read_text()) | {"synthetic": True, "synthetic_seed": 5}
    told.write_text(json.dumps(summary))
    recorded.log_artifact(str(told), "data")
    capsys.readouterr()
    sections = [{"class": "qlib_ext.report.sections.summary.Summary"}]
    ReportRecord(recorder=recorded, sections=sections, out_dir=str(tmp_path)).generate()
    assert capsys.readouterr().out.startswith("Synthetic market: a program drew it")


def test_the_standard_report_has_what_the_run_can_feed(
    recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qlib_ext.report.document.Document.pictures", lambda *_: {})  # they take seconds
    ReportRecord(recorder=recorded, out_dir=str(tmp_path)).generate()
    (report,) = tmp_path.glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    headings = re.findall(r"<h2 [^>]*>([^<]*)</h2>", page)
    assert headings[0] == "Summary"
    assert headings[-1] == "Provenance"
    assert "Training" not in headings  # the model of this test logs nothing
    assert "Data quality" not in headings
    assert (
        "Training: the run has no training/history.parquet, written by qlib_ext.model.multi_task.MultiTaskModel."
        in page
    )
    assert (
        "Data quality: the run has no data/quality.json, written by qlib_ext.records.quality.QualityRecord."
        in page
    )


def test_another_section_stands_before_the_provenance(recorded: Any, tmp_path: Path) -> None:
    also = [{"class": "qlib_ext.report.sections.drawdown.Drawdown"}]
    sections = [
        {"class": f"qlib_ext.report.sections.{name}"} for name in ("summary.Summary", "provenance.Provenance")
    ]
    ReportRecord(recorder=recorded, sections=sections, also=also, out_dir=str(tmp_path)).generate()
    (report,) = tmp_path.glob("*/report.html")
    headings = re.findall(r"<h2 [^>]*>([^<]*)</h2>", report.read_text(encoding="utf-8"))
    assert headings == ["Summary", "Drawdown", "Provenance"]


def test_a_run_with_nothing(run: Any) -> None:
    with pytest.raises(
        UserError, match=r"the standard report needs artifacts .*`ranking/summary.csv`, written by"
    ):
        ReportRecord(recorder=run).generate()


def test_what_the_run_lacks_is_named(run: Any) -> None:
    with pytest.raises(
        UserError, match=r"ReportRecord needs .*`backtest/series.parquet`, written by .*BacktestRecord"
    ):
        ReportRecord(recorder=run, sections=SECTIONS).generate()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([], "`sections` must name at least one section"),
        ([{"class": "qlib_ext.report.sections.summary.Sum"}], r"`sections\[0\].class` names no class"),
        ([*SECTIONS, {"class": "qlib_ext.tracking.git.Git"}], r"`sections\[6\].class` names no class"),
        (
            [{"class": "qlib_ext.report.sections.quality.Quality", "kwargs": {"mist": 3}}],
            r"`sections\[0\].kwargs` has no place for `mist` \(did you mean most\?\)",
        ),
    ],
)
def test_wrong_sections(sections: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ReportRecord(recorder=None, sections=sections)


def test_a_workflow_that_says_that_there_is_no_index(
    run: Any, workplace: Any, model: Any, read: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    described = workplace.describe() | {"benchmark": None}
    monkeypatch.setattr(workplace, "describe", lambda: described)
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    RankingRecord(recorder=run).generate()
    BacktestRecord(recorder=run, strategy=STRATEGY, backtest={"benchmark": None}).generate()
    PortfolioRecord(recorder=run, draws=20, window_days=20).generate()
    SweepRecord(recorder=run, topk=[4]).generate()
    ReportRecord(recorder=run, out_dir=str(tmp_path)).generate()

    # What is computed: nothing beside an index.
    metrics, daily = run.list_metrics(), read("backtest/daily.parquet")
    relative = ("excess", "information", "benchmark", "beta", "alpha", "tracking", "capture", "correlation")
    assert not [name for name in metrics if any(word in name for word in relative)]
    assert "benchmark" not in daily
    assert [*read("portfolio/rolling.parquet").columns] == ["sharpe_ratio", "volatility"]

    # What is told: why, and no figure of an index.
    (report,) = tmp_path.glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "No index is named (`backtest.benchmark: null`), so nothing is compared with one" in text
    told = re.findall(
        r".{30}(?:[Oo]ver the index|index [+\N{MINUS SIGN}\d]|Beta\b|SH000300|\bnan\b).{30}",
        text,
        flags=re.DOTALL,
    )
    assert told == []
    for section in ("Cumulative return", "Drawdown", "Return and risk", "Rolling risk", "Months and years"):
        assert re.search(rf"<h2[^>]*>{section}</h2>", page)

    # What is compared with other runs.
    client = MlflowClient()
    with tempfile.TemporaryDirectory() as folder:
        there = stored(client, run.id, runs.READS)
        compared = runs.view(RunArtifacts.download(client, run.id, there, Path(folder)))
    assert "return" in compared.daily
    assert not {"index", "excess"} & {*compared.daily.columns}

    # The rest is what it is beside an index.
    BacktestRecord(recorder=run, strategy=STRATEGY, backtest={"benchmark": "SH000300"}).generate()
    pd.testing.assert_frame_equal(read("backtest/daily.parquet").drop(columns="benchmark"), daily)
    beside = run.list_metrics()
    own = {name: value for name, value in metrics.items() if name.startswith("backtest/")}
    assert {name: beside[name] for name in own} == own
